package campaign_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/tests/interop/wire"
)

const (
	feedAtOnce = 64 << 10 // bytes of one write
	drainAhead = 2000     // credit
)

// feeder sends events over one connection with many links.
type feeder struct {
	c    *wire.Client
	over chan struct{} // closed when nothing is read any more

	mu     sync.Mutex
	change *sync.Cond
	links  []feedLink
	open   int // not answered
	next   uint32
	ended  bool // by us
	err    error
}

// feedLink is the credit of a link.
type feedLink struct{ limit, count uint32 }

// newFeeder attaches a sender to each address.
func newFeeder(t *testing.T, addr string, addresses []string) *feeder {
	t.Helper()
	c, err := wire.Dial(wire.Options{Addr: addr, User: user, Password: secret})
	if err != nil {
		t.Fatal(err)
	}
	f := &feeder{c: c, over: make(chan struct{}), links: make([]feedLink, len(addresses))}
	f.change = sync.NewCond(&f.mu)
	go f.read()
	t.Cleanup(f.close)
	for i, address := range addresses {
		if err := c.Write(wire.Sender(uint32(i), fmt.Sprint(i), address), nil); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f *feeder) close() {
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	f.c.Conn.Close()
	<-f.over
}

// read takes credit and answers until the connection ends.
func (f *feeder) read() {
	defer close(f.over)
	for {
		p, _, err := f.c.Read()
		f.mu.Lock()
		if err == nil {
			err = f.take(p)
		}
		if err != nil && !f.ended {
			f.err = err
		}
		f.mu.Unlock()
		f.change.Broadcast()
		if err != nil {
			return
		}
	}
}

// take is told a frame. The feeder is locked.
func (f *feeder) take(p amqp.Performative) error {
	switch p := p.(type) {
	case *amqp.Flow:
		if p.HasHandle {
			f.links[p.Handle].limit = p.DeliveryCount + p.LinkCredit
		}
	case *amqp.Disposition:
		if p.State.StateKind() != amqp.DescAccepted {
			return fmt.Errorf("events %d to %d got %x, want accepted", p.First, p.Last, p.State)
		}
		f.open -= int(p.Last-p.First) + 1
	case *amqp.Detach, *amqp.End, *amqp.Close:
		return fmt.Errorf("the router sent %T %+v", p, p)
	}
	return nil
}

// room waits until an event may be sent by a link, and counts it. It does not wait where that
// would make what is to be written wait: ok is false then.
func (f *feeder) room(t *testing.T, link int, pending bool) (id uint32, ok bool) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	l := &f.links[link]
	for f.err == nil && (int32(l.limit-l.count) <= 0 || f.c.Window() <= 0) {
		if pending {
			return 0, false
		}
		f.change.Wait()
	}
	if f.err != nil {
		t.Fatal(f.err)
	}
	l.count++
	f.open++
	f.c.Sent()
	f.next++
	return f.next - 1, true
}

// send sends n events, each as next says: by which link, and what. It returns when all are accepted.
func (f *feeder) send(t *testing.T, n int, next func(i int) (link int, message []byte)) {
	t.Helper()
	buf := make([]byte, 0, feedAtOnce+1024)
	flush := func() {
		if _, err := f.c.Conn.Write(buf); err != nil {
			t.Fatal(err)
		}
		buf = buf[:0]
	}
	for i := range n {
		link, message := next(i)
		id, ok := f.room(t, link, len(buf) > 0)
		if !ok {
			flush()
			id, _ = f.room(t, link, false)
		}
		if buf = wire.Append(buf, wire.Transfer(uint32(link), id, false, false), message); len(buf) >= feedAtOnce {
			flush()
		}
	}
	flush()
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.open > 0 && f.err == nil {
		f.change.Wait()
	}
	if f.err != nil {
		t.Fatal(f.err)
	}
}

// numbered makes events of devices, which carry device and number in front of their
// payload.
type numbered struct {
	messages [][]byte // by device, with room for the number
	sent     []uint64 // by device
}

const eventPayload = 256 // bytes

func newNumbered(t *testing.T, devices int) *numbered {
	t.Helper()
	n := &numbered{sent: make([]uint64, devices)}
	for i := range devices {
		m := amqp.Message{Header: &amqp.Header{Durable: true}, ApplicationProperties: amqp.Map{{Key: "device_id", Value: fmt.Sprintf("device-%d", i)}},
			Data: [][]byte{make([]byte, eventPayload)}}
		b, err := m.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		n.messages = append(n.messages, b)
	}
	return n
}

// next is the next event of a device; it lives until the one after it.
func (n *numbered) next(device int) []byte {
	b := n.messages[device]
	n.sent[device]++
	body := b[len(b)-eventPayload:]
	binary.BigEndian.PutUint64(body, uint64(device))
	binary.BigEndian.PutUint64(body[8:], n.sent[device])
	return b
}

// checked looks at numbered events that come: each once, and those of a device in order.
type checked struct{ got []uint64 }

func (c *checked) take(message []byte) error {
	if len(message) < eventPayload {
		return fmt.Errorf("a message of %d bytes", len(message))
	}
	body := message[len(message)-eventPayload:]
	device, number := binary.BigEndian.Uint64(body), binary.BigEndian.Uint64(body[8:])
	if device >= uint64(len(c.got)) || number != c.got[device]+1 {
		return fmt.Errorf("number %d of device %d came, after those up to %d", number, device, c.got[min(device, uint64(len(c.got)-1))])
	}
	c.got[device] = number
	return nil
}

// attachUntilFirst attaches a receiver, and returns how long it took until an event was there.
func attachUntilFirst(t *testing.T, addr, address string, take func(message []byte) error) time.Duration {
	t.Helper()
	c, err := wire.Dial(wire.Options{Addr: addr, User: user, Password: secret})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Conn.Close()
	began := time.Now()
	if err := c.Write(wire.Receiver(0, "r", address), nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(wire.Credit(0, 0, 1), nil); err != nil {
		t.Fatal(err)
	}
	tr, message, err := wire.Await[*amqp.Transfer](c)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	if err := take(message); err != nil {
		t.Fatal(err)
	}
	settle := &amqp.Disposition{Role: amqp.RoleReceiver, First: tr.DeliveryID, Last: tr.DeliveryID, Settled: true, State: amqp.StateAccepted}
	if err := c.Write(settle, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(&amqp.Detach{Handle: 0, Closed: true}, nil); err != nil {
		t.Fatal(err)
	}
	for { // the router has heard all before it
		p, _, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := p.(*amqp.Detach); ok {
			return took
		}
	}
}

// drain takes n events, and returns how long that took until each tenth of them was there.
func drain(t *testing.T, addr, address string, n int, take func(message []byte) error) (tenths []time.Duration) {
	t.Helper()
	c, err := wire.Dial(wire.Options{Addr: addr, User: user, Password: secret})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Conn.Close()
	began := time.Now()
	if err := c.Write(wire.Receiver(0, "r", address), nil); err != nil {
		t.Fatal(err)
	}
	count, settled, limit := uint32(0), uint32(0), uint32(drainAhead)
	if err := c.Write(wire.Credit(0, 0, drainAhead), nil); err != nil {
		t.Fatal(err)
	}
	for int(settled) < n {
		tr, message, err := wire.Await[*amqp.Transfer](c)
		if err != nil {
			t.Fatalf("after %d of %d events: %v", count, n, err)
		}
		if tr.DeliveryID != count {
			t.Fatalf("delivery-id %d is delivery %d", tr.DeliveryID, count)
		}
		if err := take(message); err != nil {
			t.Fatal(err)
		}
		if count++; int(count)%max(1, n/10) == 0 {
			tenths = append(tenths, time.Since(began))
		}
		if c.Buffered() && count-settled < drainAhead/8 && int(count) < n {
			continue
		}
		out := wire.Append(nil, &amqp.Disposition{Role: amqp.RoleReceiver, First: settled, Last: count - 1, Settled: true, State: amqp.StateAccepted}, nil)
		settled = count
		if limit-count < drainAhead/2 {
			limit = count + drainAhead
			out = wire.Append(out, wire.Credit(0, count, drainAhead), nil)
		}
		if _, err := c.Conn.Write(out); err != nil {
			t.Fatal(err)
		}
	}
	return tenths
}

// systemLoad is how many processes want a processor.
func systemLoad() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
