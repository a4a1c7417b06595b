package stored_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/storetest"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/forward"
	"github.com/sluice-iot/sluice/router/stored"
)

// watched counts the calls of a log, and does to them what a test wants.
type watched struct {
	log stored.Log

	mu     sync.Mutex
	calls  map[string]int
	before func(ctx context.Context, call string) error // instead of the call, when it fails
	after  func(call string) error                      // instead of the answer
}

func (l *watched) count(call string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls[call]
}

func (l *watched) all() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.calls {
		n += k
	}
	return n
}

func (l *watched) script(before func(context.Context, string) error, after func(string) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before, l.after = before, after
}

func watch[T any](ctx context.Context, l *watched, call string, f func() (T, error)) (T, error) {
	l.mu.Lock()
	if l.calls == nil {
		l.calls = map[string]int{}
	}
	l.calls[call]++
	before, after := l.before, l.after
	l.mu.Unlock()
	var none T
	if before != nil {
		if err := before(ctx, call); err != nil {
			return none, err
		}
	}
	out, err := f()
	if err == nil && after != nil {
		if err := after(call); err != nil {
			return none, err
		}
	}
	return out, err
}

func (l *watched) Append(ctx context.Context, r eventstore.AppendRequest) (*eventstore.AppendResult, error) {
	return watch(ctx, l, "append", func() (*eventstore.AppendResult, error) { return l.log.Append(ctx, r) })
}
func (l *watched) Claim(ctx context.Context, r eventstore.ClaimRequest) (*eventstore.ClaimResult, error) {
	return watch(ctx, l, "claim", func() (*eventstore.ClaimResult, error) { return l.log.Claim(ctx, r) })
}
func (l *watched) Read(ctx context.Context, r eventstore.ReadRequest) (*eventstore.ReadResult, error) {
	return watch(ctx, l, "read", func() (*eventstore.ReadResult, error) { return l.log.Read(ctx, r) })
}
func (l *watched) Settle(ctx context.Context, r eventstore.SettleRequest) (*eventstore.SettleResult, error) {
	return watch(ctx, l, "settle", func() (*eventstore.SettleResult, error) { return l.log.Settle(ctx, r) })
}
func (l *watched) Release(ctx context.Context, r eventstore.ReleaseRequest) error {
	_, err := watch(ctx, l, "release", func() (struct{}, error) { return struct{}{}, l.log.Release(ctx, r) })
	return err
}

var errDown = iot.Errorf(iot.ErrUnavailable, "the store is down")

// nobody is a router whose receivers take nothing.
type nobody struct{}

func (nobody) Answer([]forward.Answered)                {}
func (nobody) Offer(string, []forward.Offer) (int, int) { return 0, 100 }
func (nobody) Drained(string)                           {}
func (nobody) Resume()                                  {}

// site is a router with its shelf, and peers that are connected to it in this process.
type site struct {
	t      testing.TB
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	router *forward.Router
	server *stored.Server
	log    *watched
	wheel  *peer.Wheel
	peers  int
	over   atomic.Bool
}

// newLog is a log in memory.
func newLog() (*storetest.Memory, *eventstore.Log) {
	m := &storetest.Memory{}
	return m, eventstore.New(m, eventstore.Options{})
}

// newSite starts a router on a log until the test ends.
func newSite(t testing.TB, log stored.Log, o stored.Options) *site {
	s := &site{t: t, log: &watched{log: log}, wheel: peer.NewWheel()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	policy := &shelved{}
	s.router = forward.New(policy)
	o.Log, o.Router = s.log, s.router
	s.server = stored.New(o)
	policy.shelf = s.server
	s.wg.Go(func() { s.wheel.Run(s.ctx) })
	t.Cleanup(func() { s.stop(time.Second) })
	return s
}

// stop shuts the site down as a router does.
func (s *site) stop(grace time.Duration) {
	if s.over.Swap(true) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	s.router.Shutdown(ctx)
	s.server.Close(ctx)
	s.cancel()
	s.wg.Wait()
	if f := s.server.Figures(); f.Queued != 0 {
		s.t.Errorf("%d bytes wait to be stored after the end", f.Queued)
	}
}

// kill ends the site as a crash does: the store hears nothing more of it.
func (s *site) kill() {
	if s.over.Swap(true) {
		return
	}
	s.log.script(func(context.Context, string) error { return errDown }, nil)
	s.cancel()
	s.wg.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.server.Close(ctx)
}

// shelved lets everybody use every address, all of them stored.
type shelved struct{ shelf forward.Shelf }

func (p *shelved) Sender(*peer.Conn, string) (forward.Access, *amqp.Error) {
	return forward.Access{Distribution: forward.Stored, Shelf: p.shelf, MaxMessage: eventstore.MaxMessageBytes}, nil
}
func (p *shelved) Receiver(*peer.Conn, string) (forward.Access, *amqp.Error) {
	return forward.Access{Distribution: forward.Stored, Shelf: p.shelf}, nil
}
func (p *shelved) Anonymous(*peer.Conn) *amqp.Error { return nil }

type anyone struct{}

func (anyone) Mechanisms(*peer.PeerInfo) []amqp.Symbol { return []amqp.Symbol{"ANONYMOUS"} }
func (anyone) Begin(*peer.PeerInfo, amqp.Symbol) (peer.Exchange, error) {
	return anyone{}, nil
}
func (anyone) Step(context.Context, []byte) ([]byte, any, error) { return nil, "anyone", nil }

// end is a peer with one link. Its fields are guarded by the connection.
type end struct {
	conn     *peer.Conn
	pipe     *peer.Pipe
	link     *peer.Link
	attach   peer.Attachment
	ready    chan struct{}
	closed   chan struct{}
	on       func(ev *peer.Event)
	writable func()
}

func (s *site) connect(a peer.Attachment, on func(ev *peer.Event), writable func()) *end {
	e := &end{attach: a, ready: make(chan struct{}), closed: make(chan struct{}), on: on, writable: writable}
	ours, theirs := peer.NewPipe()
	onPanic := func(v any, stack []byte) { s.t.Errorf("panic: %v\n%s", v, stack) }
	s.wg.Go(func() {
		peer.AcceptPipe(s.ctx, theirs, peer.Options{Config: peer.Config{ContainerID: "router"}, Handler: s.router, Wheel: s.wheel,
			Auth: anyone{}, OnPanic: onPanic}, nil)
	})
	s.peers++
	e.pipe = ours
	e.conn = peer.ConnectPipe(ours, peer.Options{Config: peer.Config{ContainerID: strconv.Itoa(s.peers), Hostname: "router"}, Handler: e,
		Wheel: s.wheel, Login: peer.Login{Mechanism: "ANONYMOUS", InitialResponse: []byte("c")}, OnPanic: onPanic})
	s.wg.Go(func() { e.conn.Serve(s.ctx) })
	<-e.ready
	return e
}

// Handle implements peer.Handler.
func (e *end) Handle(b *peer.Batch, c *peer.Conn, events []peer.Event) {
	c.Lock()
	defer c.Unlock()
	for i := range events {
		switch ev := &events[i]; ev.Kind {
		case peer.EventOpen:
			e.link = c.Engine().Begin().Attach(e.attach)
		case peer.EventAttached:
			close(e.ready)
		default:
			e.on(ev)
		}
	}
	b.Touch(c)
}

// Writable implements peer.Handler.
func (e *end) Writable(b *peer.Batch, c *peer.Conn) {
	if e.writable != nil {
		c.Lock()
		e.writable()
		b.Touch(c)
		c.Unlock()
	}
}

// Closed implements peer.Handler.
func (e *end) Closed(*peer.Batch, *peer.Conn, error) { close(e.closed) }

// do calls f with the connection locked, and writes what it brought about.
func (e *end) do(f func()) {
	var b peer.Batch
	e.conn.Lock()
	f()
	b.Touch(e.conn)
	e.conn.Unlock()
	b.Flush()
}

// kill ends the connection without a word.
func (e *end) kill() {
	e.pipe.Close()
	<-e.closed
}

func terminus(address string) (*amqp.Source, *amqp.Target) {
	return &amqp.Source{Address: address, HasAddress: true}, &amqp.Target{Address: address, HasAddress: true}
}

// producer sends as its credit allows.
type producer struct {
	*end
	queue    []sent
	names    map[uint32]string
	outcomes map[string]string
	order    []string // of the outcomes
	credit   int      // the most it ever had
	settled  bool     // what it sends is
}

type sent struct {
	name    string
	message []byte
}

func (s *site) producer(address string) *producer {
	p := &producer{names: map[uint32]string{}, outcomes: map[string]string{}}
	a := peer.Attachment{Name: "s", Role: amqp.RoleSender, SenderSettleMode: amqp.SenderMixed}
	a.Source, a.Target = terminus(address)
	p.end = s.connect(a, func(ev *peer.Event) {
		switch ev.Kind {
		case peer.EventOutcome:
			name := p.names[ev.ID]
			if was, there := p.outcomes[name]; there {
				s.t.Errorf("%s has the outcomes %s and %s", name, was, kind(ev.State))
			}
			p.outcomes[name] = kind(ev.State)
			p.order = append(p.order, name)
		case peer.EventCredit:
			p.credit = max(p.credit, int(ev.Link.Credit()))
			p.pump()
		}
	}, func() { p.pump() })
	return p
}

func kind(state amqp.Raw) string {
	switch v, _ := amqp.DecodeState(state); v := v.(type) {
	case amqp.Accepted:
		return "accepted"
	case amqp.Released:
		return "released"
	case *amqp.Rejected:
		return "rejected " + string(v.Error.Condition)
	case *amqp.Modified:
		return "modified"
	}
	return fmt.Sprintf("?%x", state)
}

// send sends what has no ttl, and a name such as d1/7 of which the first part is the device.
func (p *producer) send(names ...string) {
	for _, name := range names {
		p.post(sent{name, message(name, 0)})
	}
}

func (p *producer) post(x sent) {
	p.do(func() {
		p.queue = append(p.queue, x)
		p.pump()
	})
}

// pump is called with the connection locked.
func (p *producer) pump() {
	for len(p.queue) > 0 {
		if p.link.Send(&peer.Outgoing{Tail: p.queue[0].message, Settled: p.settled}) != peer.Sent {
			return
		}
		if !p.settled {
			p.names[p.link.LastID()] = p.queue[0].name
		}
		p.queue = p.queue[1:]
	}
}

// tally counts outcomes.
func (p *producer) tally() map[string]int {
	p.conn.Lock()
	defer p.conn.Unlock()
	n := map[string]int{}
	for _, o := range p.outcomes {
		n[o]++
	}
	return n
}

// waiting is how many outcomes are yet to come.
func (p *producer) waiting() int {
	p.conn.Lock()
	defer p.conn.Unlock()
	return len(p.queue) + len(p.names) - len(p.outcomes)
}

// message is an event of the device in its name.
func message(name string, ttl time.Duration) []byte {
	device, _, _ := strings.Cut(name, "/")
	m := amqp.Message{ApplicationProperties: amqp.Map{{Key: "device_id", Value: device}}, Data: [][]byte{[]byte(name)}}
	if ttl > 0 {
		m.Header = &amqp.Header{HasTTL: true, TTL: uint32(ttl.Milliseconds())}
	}
	b, err := m.Append(nil)
	if err != nil {
		panic(err)
	}
	return b
}

// got is a delivery.
type got struct {
	name    string
	id      uint32
	header  amqp.Header
	payload []byte
	at      time.Time
}

// consumer takes what comes and says what do returns, nil = nothing for now.
type consumer struct {
	*end
	got  []got
	do1  func(g got) amqp.Raw
	keep uint32 // credit that it renews; 0 = it does not
	deaf bool   // it is closing, and nobody would hear what it says
}

func accept(got) amqp.Raw  { return amqp.StateAccepted }
func nothing(got) amqp.Raw { return nil }

// consumer renews its credit.
func (s *site) consumer(address string, credit uint32, do func(got) amqp.Raw) *consumer {
	return s.receive(address, credit, credit, do)
}

// taker does not.
func (s *site) taker(address string, credit uint32, do func(got) amqp.Raw) *consumer {
	return s.receive(address, credit, 0, do)
}

func (s *site) receive(address string, credit, keep uint32, do func(got) amqp.Raw) *consumer {
	return s.attach(peer.Attachment{Credit: credit}, address, keep, do)
}

func (s *site) attach(a peer.Attachment, address string, keep uint32, do func(got) amqp.Raw) *consumer {
	c := &consumer{do1: do, keep: keep}
	a.Name, a.Role, a.SenderSettleMode = "r", amqp.RoleReceiver, amqp.SenderMixed
	a.Source, a.Target = terminus(address)
	c.end = s.connect(a, func(ev *peer.Event) {
		if ev.Kind != peer.EventDelivery || c.deaf {
			return
		}
		g := parse(ev.Payload)
		g.id = ev.ID
		c.got = append(c.got, g)
		if state := c.do1(g); state != nil {
			ev.Link.Settle(ev.ID, state, true)
		}
		if c.keep > 0 && ev.Link.Credit() <= c.keep/2 {
			ev.Link.SetCredit(c.keep)
		}
	}, nil)
	return c
}

func parse(payload []byte) got {
	m, err := amqp.DecodeMessage(payload)
	if err != nil {
		return got{name: "BROKEN " + err.Error()}
	}
	g := got{at: time.Now(), payload: append([]byte(nil), payload...)}
	if m.Header != nil {
		g.header = *m.Header
	}
	if len(m.Data) == 1 {
		g.name = string(m.Data[0])
	}
	return g
}

// say settles a delivery that was left open.
func (c *consumer) say(g got, state amqp.Raw) {
	c.do(func() { c.link.Settle(g.id, state, true) })
}

func (c *consumer) credit(n uint32) { c.do(func() { c.link.SetCredit(n) }) }

func (c *consumer) list() []got {
	c.conn.Lock()
	defer c.conn.Unlock()
	return append([]got(nil), c.got...)
}

func (c *consumer) names() (out []string) {
	for _, g := range c.list() {
		out = append(out, g.name)
	}
	return out
}

// numbered makes the names d/1 to d/n.
func numbered(device string, from, to int) (out []string) {
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprintf("%s/%d", device, i))
	}
	return out
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

func equal(t testing.TB, what string, got, want []string) {
	t.Helper()
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s: %s\nwant %s", what, short(got), short(want))
	}
}

func short(list []string) string {
	if len(list) > 40 {
		return fmt.Sprintf("%d: %s ...", len(list), strings.Join(list[:40], " "))
	}
	return fmt.Sprintf("%d: %s", len(list), strings.Join(list, " "))
}
