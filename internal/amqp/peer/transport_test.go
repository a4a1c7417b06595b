package peer_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// sockets returns the two ends of a TCP connection on loopback.
func sockets(t testing.TB) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// TestWriteDeadlineIsLifted: after a temporary writer's deadline has passed, the
// next write without waiting still works.
func TestWriteDeadlineIsLifted(t *testing.T) {
	client, server := sockets(t)
	defer client.Close()
	defer server.Close()
	tr, err := peer.NewTCP(server)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Write([]byte("a"), time.Millisecond); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Millisecond) // the kernel's clock: no bubble can hold it
	if n, err := tr.TryWrite([]byte("b")); n != 1 || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
}

// producer is the Handler of a client that sends and counts outcomes, and
// consumer that of one that accepts what comes.
type producer struct {
	address string
	want    int

	mu      sync.Mutex
	link    *peer.Link
	sent    int
	settled int
	done    chan struct{}
}

func (h *producer) Handle(b *peer.Batch, c *peer.Conn, events []peer.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.Lock()
	defer c.Unlock()
	defer b.Touch(c)
	for _, ev := range events {
		switch ev.Kind {
		case peer.EventOpen:
			h.link = c.Engine().Begin().Attach(peer.Attachment{Name: h.address, SenderSettleMode: amqp.SenderUnsettled,
				Source: &amqp.Source{}, Target: &amqp.Target{Address: h.address}})
		case peer.EventCredit, peer.EventWritable:
			h.send()
		case peer.EventOutcome:
			if ev.State.StateKind() != amqp.DescAccepted {
				panic(fmt.Sprintf("outcome %x", ev.State))
			}
			if h.settled++; h.settled == h.want {
				close(h.done)
			}
		}
	}
}

func (h *producer) send() {
	for h.sent < h.want && h.link.Send(&peer.Outgoing{Head: []byte("head "), Tail: make([]byte, 251)}) == peer.Sent {
		h.sent++
	}
}

func (h *producer) Writable(b *peer.Batch, c *peer.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.Lock()
	defer c.Unlock()
	h.send()
	b.Touch(c)
}

func (h *producer) Closed(*peer.Batch, *peer.Conn, error) {}

type consumer struct {
	address string
	got     int
}

func (h *consumer) Handle(b *peer.Batch, c *peer.Conn, events []peer.Event) {
	c.Lock()
	defer c.Unlock()
	defer b.Touch(c)
	for _, ev := range events {
		switch ev.Kind {
		case peer.EventOpen:
			c.Engine().Begin().Attach(peer.Attachment{Name: "in", Role: amqp.RoleReceiver, SenderSettleMode: amqp.SenderUnsettled,
				Source: &amqp.Source{Address: h.address}, Target: &amqp.Target{}, Credit: 100})
		case peer.EventDelivery:
			h.got++
			ev.Link.Settle(ev.ID, amqp.StateAccepted, true)
			if ev.Link.Credit() < 50 {
				ev.Link.SetCredit(100)
			}
		}
	}
}

func (h *consumer) Writable(*peer.Batch, *peer.Conn)      {}
func (h *consumer) Closed(*peer.Batch, *peer.Conn, error) {}

// TestOwnClient runs our client against our server over every transport, many
// connections at once whose readers all write to each other's.
func TestOwnClient(t *testing.T) {
	serverTLS, clientTLS := certificates(t)
	relays := newRelay()
	tcp := startServer(t, peer.Options{Handler: relays})
	secure := startServer(t, peer.Options{Handler: relays, TLS: serverTLS})
	messages := 3000
	if testing.Short() {
		messages = 300
	}
	var wg, served sync.WaitGroup
	var conns []*peer.Conn
	run := func(h peer.Handler, kind int) {
		o := peer.Options{Handler: h, Login: peer.PlainLogin("u", "p"), Wheel: peer.NewWheel()}
		var c *peer.Conn
		switch kind {
		case 0, 1:
			addr, conf := tcp.addr, (*tls.Config)(nil)
			if kind == 1 {
				addr, conf = secure.addr, clientTLS
				o.Login = peer.ExternalLogin()
			}
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			o.TLS = conf
			if c, err = peer.Connect(t.Context(), nc, o); err != nil {
				t.Fatal(err)
			}
		case 2:
			a, b := peer.NewPipe()
			served.Go(func() {
				peer.AcceptPipe(context.Background(), a, peer.Options{Handler: relays, Auth: plain{}, Local: "x", Wheel: peer.NewWheel()}, nil)
			})
			o.Login = peer.Login{Mechanism: "ANONYMOUS"}
			c = peer.ConnectPipe(b, o)
		}
		conns = append(conns, c)
		served.Go(func() {
			if err := c.Serve(context.Background()); err != nil {
				t.Errorf("%T: %v", h, err)
			}
		})
	}
	var consumers []*consumer
	for i := range 9 {
		cons := &consumer{address: fmt.Sprint(i % 2)}
		consumers = append(consumers, cons)
		run(cons, i%3)
		prod := &producer{address: fmt.Sprint(i % 2), want: messages, done: make(chan struct{})}
		run(prod, (i+1)%3)
		wg.Go(func() { <-prod.done })
	}
	wg.Wait()
	for _, c := range conns {
		c.Close(nil)
	}
	served.Wait()
	total := 0
	for _, c := range consumers {
		total += c.got
	}
	if total != 9*messages {
		t.Errorf("%d messages came, want %d", total, 9*messages)
	}
}

// TestNoSocketUnderLock: nothing of a transport is called with the connection's
// lock held. Everything runs in turns here, so a lock that is taken is taken by
// the caller.
func TestNoSocketUnderLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := peer.NewWheel()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go w.Run(ctx)
		ours, theirs := peer.NewPipe()
		var mu sync.Mutex
		calls := map[string]int{}
		r := &raw{t: t, p: theirs, done: make(chan error, 1)}
		go func() {
			r.done <- peer.AcceptPipe(t.Context(), ours, peer.Options{Handler: newRelay(), Auth: plain{}, Local: "x", Wheel: w}, func(c *peer.Conn) {
				r.conn = c
				peer.Spy(c, func(call string, free bool) {
					mu.Lock()
					defer mu.Unlock()
					if calls[call]++; !free {
						t.Errorf("%s with the lock held", call)
					}
				})
			})
		}()
		r.send("header SASL", "init mechanism=ANONYMOUS", "header AMQP", "open container-id=raw idle-timeout=4000",
			"begin incoming-window=1000000 outgoing-window=100", "attach name=in handle=0 role=sender target=q",
			"attach name=out handle=1 role=receiver source=q")
		synctest.Wait()
		r.send("flow next-incoming-id=0 incoming-window=100 next-outgoing-id=0 outgoing-window=0 handle=1 delivery-count=0 link-credit=10")
		for i := range 5 {
			r.send(fmt.Sprintf("transfer handle=0 delivery-id=%d payload=10000*x more", i))
			r.send("transfer handle=0 payload=10000*x")
			synctest.Wait()
			r.expect("transfer")
		}
		time.Sleep(5 * time.Second)
		r.expect("heartbeat")
		r.conn.Close(nil)
		<-r.done
		for _, call := range []string{"Read", "TryWrite", "SetReadDeadline", "CloseWrite", "Close"} {
			if calls[call] == 0 {
				t.Errorf("%s was never called", call)
			}
		}
	})
}

// TestIdleConnectionsAreSmall: a connection that has been busy and is idle holds
// neither read nor write buffers.
func TestIdleConnectionsAreSmall(t *testing.T) {
	const n = 100
	heap := func() uint64 {
		for range 3 { // a pool lets go of what two collections did not see used
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	srv := startServer(t, peer.Options{Handler: newRelay()})
	before := heap()
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for i := range n {
		c, err := net.Dial("tcp", srv.addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		frames := []string{"header SASL", "init mechanism=PLAIN initial-response=00750070", "header AMQP", "open container-id=raw",
			"begin incoming-window=1000000 outgoing-window=100", fmt.Sprintf("attach name=in handle=0 role=sender target=%d", i),
			fmt.Sprintf("attach name=out handle=1 role=receiver source=%d", i),
			"flow next-incoming-id=0 incoming-window=100000 next-outgoing-id=0 outgoing-window=0 handle=1 delivery-count=0 link-credit=1000"}
		talk(t, c, frames, "flow")
		for range 2 {
			var burst []string
			for id := range 20 {
				burst = append(burst, fmt.Sprintf("transfer handle=0 delivery-id=%d settled payload=2000*x", id))
			}
			talk(t, c, burst, "transfer delivery-id=19", "transfer handle=1 delivery-id=19", "transfer handle=1 delivery-id=39")
		}
	}
	if per := int64(heap()-before) / n; per > 24<<10 {
		t.Errorf("%d bytes for each idle connection", per)
	} else {
		t.Logf("%d bytes for each idle connection", per)
	}
}

// talk writes frames and reads until one begins as wanted.
func talk(t *testing.T, c net.Conn, frames []string, until ...string) {
	t.Helper()
	var all []byte
	for _, f := range frames {
		b, err := parseFrame(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	go c.Write(all)
	head := make([]byte, 8)
	for {
		if _, err := io.ReadFull(c, head); err != nil {
			t.Fatal(err)
		}
		if string(head[:4]) == "AMQP" {
			continue
		}
		size := int(head[0])<<24 | int(head[1])<<16 | int(head[2])<<8 | int(head[3])
		frame := append([]byte{}, head...)
		frame = append(frame, make([]byte, size-8)...)
		if _, err := io.ReadFull(c, frame[8:]); err != nil {
			t.Fatal(err)
		}
		for _, f := range formatOutput(frame) {
			for _, u := range until {
				if strings.HasPrefix(f, u) {
					return
				}
			}
		}
	}
}
