package campaign_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/tests/interop/wire"
)

const (
	payload     = 256 // bytes
	perAddress  = 10  // senders, and as many receivers
	inFlight    = 50  // unsettled deliveries of a sender, and credit of a receiver
	longestLife = 20 * time.Second
	longestRest = time.Second
	// atOnce bounds the log-ins at one time, as the router does for one address.
	atOnce = 500
)

// TestSoak has senders and receivers connect, die and return at half of the load
// that they can make: every message that was accepted was received, none was received
// twice, none was settled twice at its sender or, if that lived, never; and afterwards
// the router is as it was.
func TestSoak(t *testing.T) {
	clients, duration := 50, 3*time.Second
	switch runs() {
	case some:
		clients, duration = 1000, 20*time.Second
	case full:
		clients, duration = 1000, 10*time.Minute
	}
	r := startRouter(t)
	rate := measureFull(t, r, clients)
	before := rest(t, r, state{})
	t.Logf("full load of %d senders and receivers is %.0f messages a second; at rest %v", clients, rate, before)

	s := newSoak(t, r, clients)
	s.pause = time.Duration(float64(time.Second) * float64(clients) / (rate / 2))
	s.mortal = true
	s.run(duration)
	s.check()
	after := rest(t, r, before)
	t.Logf("after %s: %s", duration, s)
	t.Logf("at rest %v", after)
	if after.goroutines > before.goroutines+5 {
		t.Errorf("%d goroutines are left of the soak", after.goroutines-before.goroutines)
	}
	if after.heap > before.heap*3/2+4<<20 {
		t.Errorf("%d MB of heap are alive; before the soak, with as many connections behind it, %d", after.heap>>20, before.heap>>20)
	}
	if after.resident > limit(before) {
		t.Errorf("%d MB are resident; before the soak, with as many connections behind it, %d", after.resident>>20, before.resident>>20)
	}
}

// limit is what may be resident after a soak: memory goes back to the system little by little.
func limit(before state) int { return before.resident*3/2 + 32<<20 }

// rest waits until the router has nobody connected, its garbage is collected and, where
// it is known what that comes to, its memory has gone back to the system.
func rest(t *testing.T, r *router, before state) state {
	t.Helper()
	deadline := time.Now().Add(2 * patience)
	for least, calm := 1<<30, 0; calm < 3 && time.Now().Before(deadline); calm++ {
		time.Sleep(time.Second)
		if n := r.state(t).goroutines; n < least {
			least, calm = n, 0
		}
	}
	now := r.live(t)
	for before.resident > 0 && now.resident > limit(before) && time.Now().Before(deadline) {
		time.Sleep(time.Second)
		now.resident = r.state(t).resident
	}
	return now
}

// measureFull returns the messages a second of clients that live on and do not pause.
func measureFull(t *testing.T, r *router, clients int) float64 {
	t.Helper()
	const measured = 3 * time.Second
	s := newSoak(t, r, clients)
	s.run(measured)
	s.check()
	return float64(s.accepted.Load()) / measured.Seconds()
}

// soak counts what every message came to.
type soak struct {
	t      *testing.T
	r      *router
	pause  time.Duration // of a sender between two messages; 0 = none
	mortal bool

	clients  int
	dialing  chan struct{}
	stopped  atomic.Bool // senders send no more
	stop     chan struct{}
	ended    chan struct{} // receivers end
	lives    atomic.Int64
	sent     atomic.Int64
	accepted atomic.Int64
	released atomic.Int64
	modified atomic.Int64
	unknown  atomic.Int64 // unsettled when their sender died
	received atomic.Int64

	mu       sync.Mutex
	faults   []string
	sessions []*sending
}

func newSoak(t *testing.T, r *router, clients int) *soak {
	return &soak{t: t, r: r, clients: clients, dialing: make(chan struct{}, atOnce), stop: make(chan struct{}), ended: make(chan struct{})}
}

func (s *soak) String() string {
	return fmt.Sprintf("%d sent in %d lives, %d received, %d accepted, %d released, %d modified, %d unsettled when their sender died",
		s.sent.Load(), s.lives.Load(), s.received.Load(), s.accepted.Load(), s.released.Load(), s.modified.Load(), s.unknown.Load())
}

func (s *soak) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.faults) < 20 {
		s.faults = append(s.faults, fmt.Sprintf(format, args...))
	}
}

// run has the clients at work for d, then lets what is in flight settle.
func (s *soak) run(d time.Duration) {
	var senders, receivers sync.WaitGroup
	for i := range s.clients {
		receivers.Go(func() { s.live(s.ended, func(life time.Duration) error { return s.receive(i, life) }) })
	}
	for i := range s.clients {
		senders.Go(func() { s.live(s.stop, func(life time.Duration) error { return s.send(i, life) }) })
	}
	time.Sleep(d)
	s.stopped.Store(true)
	close(s.stop)
	senders.Wait()
	close(s.ended)
	receivers.Wait()
}

// live connects anew after each death, until the end.
func (s *soak) live(end <-chan struct{}, once func(time.Duration) error) {
	for {
		select {
		case <-end:
			return
		default:
		}
		life := time.Hour
		if s.mortal {
			life = rand.N(longestLife)
		}
		s.lives.Add(1)
		if err := once(life); err != nil {
			s.fault("%v", err)
		}
		select {
		case <-end:
			return
		case <-time.After(rand.N(longestRest)):
		}
	}
}

func (s *soak) dial() (*wire.Client, error) {
	s.dialing <- struct{}{}
	defer func() { <-s.dialing }()
	return wire.Dial(wire.Options{Addr: s.r.addr, User: user, Password: secret, MaxFrame: 4096})
}

// die ends a connection as clients end: in one way or another.
func die(c *wire.Client) {
	switch rand.IntN(3) {
	case 0:
		c.Cut()
	case 1:
		c.Conn.Close()
	default:
		_ = c.Write(&amqp.Close{}, nil)
		_ = c.Conn.(*net.TCPConn).CloseWrite()
		time.Sleep(10 * time.Millisecond)
		c.Conn.Close()
	}
}

func address(i int) string { return fmt.Sprintf("telemetry/soak%d", i/perAddress) }

// sending is one life of a sender and what became of its messages.
type sending struct {
	c      *wire.Client
	dying  atomic.Bool
	mu     sync.Mutex
	change *sync.Cond
	limit  uint32 // delivery-count up to which there is credit
	next   uint32 // delivery-id
	open   map[uint32]struct{}
	got    []uint64 // bits of the deliveries that were received
	broken bool
}

func (s *soak) send(i int, life time.Duration) error {
	c, err := s.dial()
	if err != nil {
		return fmt.Errorf("sender %d: %w", i, err)
	}
	defer c.Conn.Close()
	x := &sending{c: c, open: map[uint32]struct{}{}}
	x.change = sync.NewCond(&x.mu)
	s.mu.Lock()
	number := uint64(len(s.sessions))
	s.sessions = append(s.sessions, x)
	s.mu.Unlock()
	if err := c.Write(wire.Sender(0, "s", address(i)), nil); err != nil {
		return fmt.Errorf("sender %d: %w", i, err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { s.settlements(x) })
	death := time.AfterFunc(life, func() {
		x.dying.Store(true)
		die(c)
	})
	halt := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-s.stop:
		case <-halt:
		}
		x.change.Broadcast()
	})
	s.write(x, number)
	close(halt)
	watching.Wait()
	if death.Stop() {
		s.settle(x)
		x.dying.Store(true)
		_ = c.Write(&amqp.Close{}, nil)
	}
	reading.Wait()
	s.unknown.Add(int64(len(x.open)))
	return nil
}

// write sends as there is credit until the end of the soak or of the connection.
func (s *soak) write(x *sending, number uint64) {
	body := make([]byte, payload)
	binary.BigEndian.PutUint64(body, number)
	for {
		if s.pause > 0 {
			time.Sleep(s.pause/2 + rand.N(s.pause))
		}
		x.mu.Lock()
		for !x.broken && !s.stopped.Load() && (int32(x.limit-x.next) <= 0 || len(x.open) >= inFlight || x.c.Window() <= 0) {
			x.change.Wait()
		}
		if x.broken || s.stopped.Load() {
			x.mu.Unlock()
			return
		}
		id := x.next
		x.next++
		x.open[id] = struct{}{}
		x.mu.Unlock()
		binary.BigEndian.PutUint64(body[8:], uint64(id))
		x.c.Sent()
		s.sent.Add(1)
		if err := x.c.Write(wire.Transfer(0, id, false, false), wire.Data(body, payload)); err != nil {
			return
		}
	}
}

// settle waits until every message of a sender that lives is settled.
func (s *soak) settle(x *sending) {
	late := time.AfterFunc(patience/2, func() {
		x.mu.Lock()
		if len(x.open) > 0 && !x.broken {
			s.fault("%d messages of a sender that lives are not settled", len(x.open))
		}
		x.broken = true
		x.mu.Unlock()
		x.change.Broadcast()
	})
	defer late.Stop()
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(x.open) > 0 && !x.broken {
		x.change.Wait()
	}
}

// settlements reads until the connection ends.
func (s *soak) settlements(x *sending) {
	defer func() {
		x.mu.Lock()
		x.broken = true
		x.mu.Unlock()
		x.change.Broadcast()
	}()
	for {
		p, _, err := x.c.Read()
		if err != nil {
			if !x.dying.Load() {
				s.fault("a sender that did nothing wrong was disconnected: %v", err)
			}
			return
		}
		switch p := p.(type) {
		case *amqp.Flow:
			if p.HasHandle {
				x.mu.Lock()
				x.limit = p.DeliveryCount + p.LinkCredit
				x.mu.Unlock()
			}
		case *amqp.Disposition:
			s.outcome(x, p)
		case *amqp.Detach, *amqp.End, *amqp.Close:
			if !x.dying.Load() {
				s.fault("a sender that did nothing wrong got %T %+v", p, p)
			}
		}
		x.change.Broadcast()
	}
}

func (s *soak) outcome(x *sending, d *amqp.Disposition) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !d.Settled {
		s.fault("an outcome without settlement: %+v", d)
	}
	for id := d.First; id != d.Last+1; id++ {
		if _, open := x.open[id]; !open {
			s.fault("message %d of %d was settled twice or before it was sent", id, x.next)
			continue
		}
		delete(x.open, id)
		switch kind := d.State.StateKind(); kind {
		case amqp.DescAccepted:
			s.accepted.Add(1)
			if int(id/64) >= len(x.got) || x.got[id/64]&(1<<(id%64)) == 0 {
				s.fault("message %d was accepted and received by nobody", id)
			}
		case amqp.DescReleased:
			s.released.Add(1)
		case amqp.DescModified:
			s.modified.Add(1)
		default:
			s.fault("outcome %v of a message that any receiver accepts", kind)
		}
	}
}

// receive accepts what comes for as long as it lives.
func (s *soak) receive(i int, life time.Duration) error {
	c, err := s.dial()
	if err != nil {
		return fmt.Errorf("receiver %d: %w", i, err)
	}
	defer c.Conn.Close()
	var dying atomic.Bool
	death := time.AfterFunc(life, func() {
		dying.Store(true)
		die(c)
	})
	defer death.Stop()
	var watching sync.WaitGroup
	over := make(chan struct{})
	watching.Go(func() {
		select {
		case <-s.ended:
			dying.Store(true)
			c.Conn.Close()
		case <-over:
		}
	})
	defer watching.Wait()
	defer close(over)
	err = s.accept(c, i)
	if dying.Load() || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("receiver %d: %w", i, err)
}

func (s *soak) accept(c *wire.Client, i int) error {
	if err := c.Write(wire.Receiver(0, "r", address(i)), nil); err != nil {
		return err
	}
	if err := c.Write(wire.Credit(0, 0, inFlight), nil); err != nil {
		return err
	}
	var out []byte
	for count, topped := uint32(0), uint32(0); ; {
		p, body, err := c.Read()
		if err != nil {
			return err
		}
		switch p := p.(type) {
		case *amqp.Transfer:
			count++
			s.note(body)
			out = wire.Append(out, &amqp.Disposition{Role: amqp.RoleReceiver, First: p.DeliveryID, Last: p.DeliveryID, Settled: true, State: amqp.StateAccepted}, nil)
		case *amqp.Detach, *amqp.End, *amqp.Close:
			return fmt.Errorf("%T %+v", p, p)
		}
		if c.Buffered() || len(out) == 0 {
			continue
		}
		if count-topped >= inFlight/2 {
			topped = count
			out = wire.Append(out, wire.Credit(0, count, inFlight), nil)
		}
		if _, err := c.Conn.Write(out); err != nil {
			return err
		}
		out = out[:0]
	}
}

// note marks a message as received.
func (s *soak) note(message []byte) {
	if len(message) < 8+payload {
		s.fault("a message of %d bytes arrived", len(message))
		return
	}
	body := message[len(message)-payload:]
	number, id := binary.BigEndian.Uint64(body), binary.BigEndian.Uint64(body[8:])
	s.mu.Lock()
	x := s.sessions[number]
	s.mu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	for int(id/64) >= len(x.got) {
		x.got = append(x.got, 0)
	}
	if x.got[id/64]&(1<<(id%64)) != 0 {
		s.fault("message %d was received twice", id)
	}
	x.got[id/64] |= 1 << (id % 64)
	s.received.Add(1)
}

// check says what was wrong, and that something happened at all.
func (s *soak) check() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fault := range s.faults {
		s.t.Error(fault)
	}
	if s.accepted.Load() == 0 {
		s.t.Errorf("nothing was accepted: %v", s)
	}
	if sum := s.accepted.Load() + s.released.Load() + s.modified.Load() + s.unknown.Load(); sum != s.sent.Load() {
		s.t.Errorf("%d messages sent and %d accounted for", s.sent.Load(), sum)
	}
}
