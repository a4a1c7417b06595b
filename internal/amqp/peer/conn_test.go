package peer_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// raw is the other end of a pipe, driven frame by frame. It runs in a bubble of
// synctest, so that time passes only when everybody waits.
type raw struct {
	t    *testing.T
	p    *peer.Pipe
	conn *peer.Conn
	done chan error
	in   []byte

	unread []string
}

// accept serves one end of a pipe and gives the other.
func accept(t *testing.T, o peer.Options) *raw {
	t.Helper()
	ours, theirs := peer.NewPipe()
	r := &raw{t: t, p: theirs, done: make(chan error, 1)}
	o.Auth, o.Local = plain{}, "me"
	if o.Wheel == nil {
		o.Wheel = peer.NewWheel()
	}
	ready := make(chan struct{})
	go func() {
		r.done <- peer.AcceptPipe(context.Background(), ours, o, func(c *peer.Conn) {
			r.conn = c
			close(ready)
		})
	}()
	<-ready
	return r
}

func (r *raw) send(frames ...string) {
	r.t.Helper()
	for _, f := range frames {
		b, err := parseFrame(f)
		if err != nil {
			r.t.Fatal(err)
		}
		r.write(b)
	}
}

func (r *raw) write(b []byte) {
	r.t.Helper()
	if _, err := r.p.Write(b, time.Minute); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) open(more ...string) {
	r.t.Helper()
	r.send("header SASL", "init mechanism=ANONYMOUS", "header AMQP", "open container-id=raw",
		"begin incoming-window=1000000 outgoing-window=100")
	r.send(more...)
	r.expect("begin")
}

// read waits for some input and returns its frames.
func (r *raw) read() []string {
	b, err := r.p.Read(r.in)
	if err != nil {
		return []string{"error " + err.Error()}
	}
	r.in = nil
	var whole []byte
	for len(b) >= 8 {
		n := 8
		if string(b[:4]) != "AMQP" {
			_, n, _ = amqp.ParseFrame(b, 1<<20)
		}
		if n == 0 {
			break
		}
		whole, b = append(whole, b[:n]...), b[n:]
	}
	r.in = append(r.in, b...)
	return formatOutput(whole)
}

// expect reads until a frame with this beginning.
func (r *raw) expect(prefix string) string {
	r.t.Helper()
	for {
		if len(r.unread) == 0 {
			r.unread = r.read()
		}
		for len(r.unread) > 0 {
			f := r.unread[0]
			r.unread = r.unread[1:]
			if strings.HasPrefix(f, prefix) {
				return f
			}
			if strings.HasPrefix(f, "error") {
				r.t.Fatalf("%s, where %s is expected", f, prefix)
			}
		}
	}
}

func TestHandshakeThatNeverEnds(t *testing.T) {
	for name, frames := range map[string][]string{
		"silence": {},
		"header":  {"header SASL"},
		"no open": {"header SASL", "init mechanism=ANONYMOUS", "header AMQP"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newRelay()
				r := accept(t, peer.Options{Handler: h})
				start := time.Now()
				r.send(frames...)
				if err := <-r.done; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				if d := time.Since(start); d < 10*time.Second || d > 11*time.Second {
					t.Errorf("after %v", d)
				}
				if len(h.closed) != 0 {
					t.Error("Closed was called for a connection that was never opened")
				}
			})
		})
	}
}

func TestClose(t *testing.T) {
	for name, tt := range map[string]struct {
		answer bool
		want   time.Duration
	}{"answered": {true, 0}, "unanswered": {false, time.Second}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newRelay()
				r := accept(t, peer.Options{Handler: h})
				r.open()
				start := time.Now()
				r.conn.Close(&amqp.Error{Condition: amqp.CondConnectionForced, Description: "bye"})
				r.conn.Close(nil) // says nothing new
				r.expect(`close error="amqp:connection:forced: bye"`)
				if tt.answer {
					r.send("close")
					r.p.Close()
				}
				if err := <-r.done; err == nil || err.Error() != "amqp:connection:forced: bye" {
					t.Errorf("got %v", err)
				}
				if d := time.Since(start).Truncate(time.Second); d != tt.want {
					t.Errorf("after %v, want %v", d, tt.want)
				}
				if len(h.closed) != 1 {
					t.Errorf("Closed %d times", len(h.closed))
				}
			})
		})
	}
}

// TestCloseBeforeOpen: a connection that is closed while it shakes hands ends at
// once, and so does one whose open comes at that moment.
func TestCloseBeforeOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := accept(t, peer.Options{Handler: newRelay()})
		r.send("header SASL")
		synctest.Wait()
		start := time.Now()
		r.conn.Close(nil)
		<-r.done
		if d := time.Since(start); d > time.Second {
			t.Errorf("after %v", d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		h := newRelay()
		r := accept(t, peer.Options{Handler: closeAtOpen{h}})
		r.send("header SASL", "init mechanism=ANONYMOUS", "header AMQP", "open container-id=raw")
		start := time.Now()
		<-r.done
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("after %v", d)
		}
	})
}

type closeAtOpen struct{ *relay }

func (h closeAtOpen) Handle(b *peer.Batch, c *peer.Conn, events []peer.Event) {
	if events[0].Kind == peer.EventOpen {
		c.Close(nil)
	}
	h.relay.Handle(b, c, events)
}

func TestPeerCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRelay()
		r := accept(t, peer.Options{Handler: h})
		r.open("close error=amqp:connection:forced")
		r.expect("close")
		r.p.Close()
		if err := <-r.done; err == nil || err.Error() != "amqp:connection:forced" {
			t.Errorf("got %v", err)
		}
		r = accept(t, peer.Options{Handler: h})
		r.open("close")
		r.expect("close")
		r.p.Close()
		if err := <-r.done; err != nil {
			t.Errorf("got %v after an orderly close", err)
		}
	})
}

// TestHeartbeats: beats come in time for the peer, also while frames are sent,
// and a silent peer is closed.
func TestHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := peer.NewWheel()
		ctx, cancel := context.WithCancel(t.Context())
		go w.Run(ctx)
		defer cancel()
		r := accept(t, peer.Options{Handler: newRelay(), Wheel: w, Config: peer.Config{IdleTimeout: 30 * time.Second}})
		r.send("header SASL", "init mechanism=ANONYMOUS", "header AMQP", "open container-id=raw idle-timeout=4000")
		r.expect("open")
		start, last := time.Now(), time.Now()
		beats := 0
		for {
			f := r.read()[0]
			if gap := time.Since(last); gap > 4*time.Second {
				t.Errorf("%v without a frame, after %v", gap, time.Since(start))
			}
			last = time.Now()
			if f == "heartbeat" {
				beats++
				continue
			}
			if !strings.HasPrefix(f, `close error="hono:inactivity`) {
				t.Errorf("got %s", f)
			}
			break
		}
		if d := time.Since(start); d < 60*time.Second || d > 61*time.Second || beats < 20 || beats > 30 {
			t.Errorf("closed after %v and %d heartbeats", d, beats)
		}
		if err := <-r.done; err == nil || !strings.Contains(err.Error(), "hono:inactivity") {
			t.Errorf("got %v", err)
		}
	})
}

// TestSlowPeer: a peer that reads nothing gets no more than its share of memory,
// makes its links creditless, and is closed after ten seconds without progress.
func TestSlowPeer(t *testing.T) {
	const size = 10_000
	synctest.Test(t, func(t *testing.T) {
		h := newRelay()
		r := accept(t, peer.Options{Handler: h})
		r.open("attach name=out handle=0 role=receiver source=q",
			"flow next-incoming-id=0 incoming-window=1000000 next-outgoing-id=0 outgoing-window=0 handle=0 delivery-count=0 link-credit=1000000")
		synctest.Wait()
		for range 200 {
			h.node("q").held = append(h.node("q").held, message{settled: true, payload: make([]byte, size)})
		}
		start := time.Now()
		var b peer.Batch
		for range 3 { // the first fills the pipe
			h.pump(&b, "q")
			b.Flush()
			synctest.Wait()
		}
		r.conn.Lock()
		unsent := r.conn.Engine().Unsent()
		l := h.node("q").outs[0]
		if res := l.CanSend(size); res != peer.NotNow {
			t.Errorf("CanSend is %v, want %v", res, peer.NotNow)
		}
		r.conn.Unlock()
		if unsent <= 0 || unsent > peer.UnsentHigh+2*size {
			t.Errorf("%d bytes are unsent", unsent)
		}
		if err := <-r.done; err == nil {
			t.Error("ended without an error")
		}
		if d := time.Since(start); d < 10*time.Second || d > 12*time.Second {
			t.Errorf("closed after %v", d)
		}
		if len(h.node("q").outs) != 0 {
			t.Error("the link is still there")
		}
	})
}

// TestSlowPeerCatchesUp: sends go on when a slow peer reads again.
func TestSlowPeerCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRelay()
		r := accept(t, peer.Options{Handler: h})
		r.open("attach name=out handle=0 role=receiver source=q",
			"flow next-incoming-id=0 incoming-window=1000000 next-outgoing-id=0 outgoing-window=0 handle=0 delivery-count=0 link-credit=1000000")
		synctest.Wait()
		for range 300 {
			h.node("q").held = append(h.node("q").held, message{settled: true, payload: make([]byte, 10_000)})
		}
		var b peer.Batch
		h.pump(&b, "q")
		b.Flush()
		synctest.Wait()
		for got := 0; got < 300; {
			time.Sleep(time.Second) // slow, but alive
			for _, f := range r.read() {
				if strings.HasPrefix(f, "transfer") {
					got++
				} else if strings.HasPrefix(f, "error") {
					t.Fatal(f)
				}
			}
		}
		r.p.Close()
		<-r.done
	})
}

// TestChokedPeer: a peer that makes us answer and does not read is not read
// either: what it can pile up is bounded.
func TestChokedPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRelay()
		r := accept(t, peer.Options{Handler: h})
		r.open()
		wrote := 0
		for i := 0; ; i++ {
			b, _ := parseFrame(fmt.Sprintf("attach name=%d handle=%d role=sender target=forbidden", i, i))
			n, err := r.p.TryWrite(b)
			wrote += n
			if err != nil {
				t.Fatal(err)
			}
			if n < len(b) {
				synctest.Wait()
				if k, _ := r.p.TryWrite(b[n:]); k == 0 {
					break
				}
				break
			}
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		r.conn.Lock()
		unsent := r.conn.Engine().Unsent()
		r.conn.Unlock()
		// One batch of input is 64 KiB and is answered with about twice that.
		if unsent < 320<<10 || unsent > (320+3*64)<<10 {
			t.Errorf("%d bytes are unsent after %d of input", unsent, wrote)
		}
		<-r.done // ten seconds without progress
	})
}

// TestBothSend: two peers that send large messages to each other at once over
// one connection do not both stop listening.
func TestBothSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := peer.NewPipe()
		var wg sync.WaitGroup
		big := make([]byte, 900<<10)
		sides := []*bigSender{{big: big, done: make(chan struct{})}, {big: big, done: make(chan struct{})}}
		var conns [2]*peer.Conn
		wg.Go(func() {
			peer.AcceptPipe(t.Context(), a, peer.Options{Handler: sides[0], Auth: plain{}, Local: "x"}, func(c *peer.Conn) { conns[0] = c })
		})
		conns[1] = peer.ConnectPipe(b, peer.Options{Handler: sides[1], Login: peer.Login{Mechanism: "ANONYMOUS"}})
		wg.Go(func() { conns[1].Serve(t.Context()) })
		for _, s := range sides {
			<-s.done
		}
		conns[0].Close(nil)
		wg.Wait()
	})
}

// bigSender attaches a sender at begin and sends five large messages.
type bigSender struct {
	big  []byte
	out  *peer.Link
	sent int
	got  int
	done chan struct{}
}

func (s *bigSender) Handle(b *peer.Batch, c *peer.Conn, events []peer.Event) {
	c.Lock()
	defer c.Unlock()
	defer b.Touch(c)
	for _, ev := range events {
		switch ev.Kind {
		case peer.EventOpen:
			c.Engine().Begin()
		case peer.EventBegin:
			if s.out == nil {
				s.out = ev.Session.Attach(peer.Attachment{Name: fmt.Sprintf("%p", s), Source: &amqp.Source{}, Target: &amqp.Target{Address: "q"}})
			}
		case peer.EventAttach:
			ev.Link.Accept(peer.Attachment{Credit: 10})
		case peer.EventDelivery:
			if s.got++; s.got == 5 {
				close(s.done)
			}
		case peer.EventCredit, peer.EventWritable:
			s.send()
		}
	}
}

func (s *bigSender) send() {
	for s.sent < 5 && s.out.Send(&peer.Outgoing{Settled: true, Tail: s.big}) == peer.Sent {
		s.sent++
	}
}

func (s *bigSender) Writable(b *peer.Batch, c *peer.Conn) {
	c.Lock()
	defer c.Unlock()
	defer b.Touch(c)
	s.send()
}

func (s *bigSender) Closed(*peer.Batch, *peer.Conn, error) {}

// TestPanics: a handler's panic closes the connection that it was called for,
// whoever's goroutine that was, and no other.
func TestPanics(t *testing.T) {
	for _, where := range []string{"handle", "writable", "closed"} {
		t.Run(where, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &panicking{relay: newRelay()}
				var stack []byte
				o := peer.Options{Handler: h, OnPanic: func(_ any, s []byte) { stack = s }}
				bad, good := accept(t, o), accept(t, o)
				bad.open("attach name=out handle=0 role=receiver source=q",
					"flow next-incoming-id=0 incoming-window=1000000 next-outgoing-id=0 outgoing-window=0 handle=0 delivery-count=0 link-credit=1000000")
				good.open("attach name=in handle=0 role=sender target=q")
				synctest.Wait()
				h.conn, h.where = bad.conn, where
				switch where {
				case "handle":
					bad.send("begin@1 incoming-window=1 outgoing-window=1")
				case "writable":
					for i := range 50 {
						good.send(fmt.Sprintf("transfer handle=0 delivery-id=%d settled payload=10000*x", i))
						synctest.Wait()
					}
					for {
						if f := bad.read(); len(f) > 0 && strings.HasPrefix(f[0], "error") {
							break
						}
					}
				case "closed":
					bad.p.Close()
				}
				<-bad.done
				if !strings.Contains(string(stack), "panicking") {
					t.Errorf("stack %s", stack)
				}
				good.send("flow next-incoming-id=1 incoming-window=10 next-outgoing-id=50 outgoing-window=1 echo")
				good.expect("flow")
				good.p.Close()
				<-good.done
			})
		})
	}
}

type panicking struct {
	*relay
	conn  *peer.Conn
	where string
}

func (h *panicking) Handle(b *peer.Batch, c *peer.Conn, events []peer.Event) {
	if h.where == "handle" && c == h.conn {
		panic("handle")
	}
	h.relay.Handle(b, c, events)
}

func (h *panicking) Writable(b *peer.Batch, c *peer.Conn) {
	if h.where == "writable" && c == h.conn {
		panic("writable")
	}
	h.relay.Writable(b, c)
}

func (h *panicking) Closed(b *peer.Batch, c *peer.Conn, err error) {
	if h.where == "closed" && c == h.conn {
		panic("closed")
	}
	h.relay.Closed(b, c, err)
}

// TestGarbage: garbage closes its own connection, and a good one beside it lives on.
func TestGarbage(t *testing.T) {
	srv := startServer(t, peer.Options{Handler: newRelay()})
	s := session(t, dial(t, srv.addr, nil))
	for _, garbage := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01", "AMQP\x00\x00\x09\x01", "AMQP\x03\x01\x00\x00\x00\x00\x00\x01\x02\x01\x00\x00"} {
		c, err := net.Dial("tcp", srv.addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, garbage)
		b, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(b), amqp.HeaderSASL) {
			t.Errorf("answer to %q: %q, %v", garbage, b, err)
		}
		c.Close()
		if err := <-srv.errs; err == nil {
			t.Errorf("%q ended without an error", garbage)
		}
	}
	if _, err := s.NewSender(t.Context(), "q", nil); err != nil {
		t.Error(err)
	}
}

// TestTLSGoodbye: a TLS peer sees the end of the stream and no truncation, and
// one that does not speak TLS is closed.
func TestTLSGoodbye(t *testing.T) {
	serverTLS, clientTLS := certificates(t)
	srv := startServer(t, peer.Options{Handler: newRelay(), TLS: serverTLS})
	c, err := tls.Dial("tcp", srv.addr, clientTLS)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "garbage")
	if b, err := io.ReadAll(c); err != nil || string(b) != amqp.HeaderSASL {
		t.Errorf("got %q, %v", b, err)
	}
	if err := <-srv.errs; err == nil {
		t.Error("no error")
	}
	p, err := net.Dial("tcp", srv.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	io.WriteString(p, "GET / HTTP/1.1\r\n\r\n")
	io.ReadAll(p)
	if err := <-srv.errs; err == nil || !strings.Contains(err.Error(), "TLS handshake") {
		t.Errorf("got %v", err)
	}
}

// TestNoTLS: a client that forgot TLS hears of SASL and is refused even with the
// right password.
func TestNoTLS(t *testing.T) {
	serverTLS, _ := certificates(t)
	srv := startServer(t, peer.Options{Handler: newRelay(), TLS: serverTLS})
	for _, first := range []string{"header SASL", "header AMQP"} {
		c, err := net.Dial("tcp", srv.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, f := range []string{first, "init mechanism=PLAIN initial-response=00750070"} {
			b, _ := parseFrame(f)
			c.Write(b)
		}
		b, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(formatOutput(b), "; "); got != "header SASL; mechanisms mechanisms=PLAIN; outcome code=1" {
			t.Errorf("got %s", got)
		}
		if err := <-srv.errs; err == nil {
			t.Error("no error")
		}
	}
}

// TestSilentTLS: a client that says nothing at all keeps nobody from stopping.
func TestSilentTLS(t *testing.T) {
	serverTLS, _ := certificates(t)
	client, server := sockets(t)
	defer client.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := peer.Accept(ctx, server, peer.Options{Handler: newRelay(), TLS: serverTLS, Auth: plain{}}, nil); err == nil {
		t.Error("no error")
	}
}

// TestClosedBeforeItBegan: a connection that its owner closes at once ends at once.
func TestClosedBeforeItBegan(t *testing.T) {
	client, server := sockets(t)
	defer client.Close()
	start := time.Now()
	peer.Accept(t.Context(), server, peer.Options{Handler: newRelay(), Auth: plain{}}, func(c *peer.Conn) { c.Close(nil) })
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("after %v", d)
	}
}
