package downstream_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// scripted is a router that does what the test says.
type scripted struct {
	name    string
	credit  uint32                     // given with each attach
	refuse  *amqp.Error                // not nil: links are refused with it
	answer  func(d *received) amqp.Raw // nil = accepted; a nil state = no answer
	second  bool                       // outcomes are not settled: the sender is to do that
	refill  bool                       // credit is given back with each delivery
	maxSize uint64
	window  uint32

	wheel *peer.Wheel
	wg    sync.WaitGroup

	mu       sync.Mutex
	down     bool // refuses connections
	conns    []*peer.Conn
	links    map[string][]*peer.Link // attached, by address
	attached int
	detached int
	got      []*received
	states   []senderState
	outcomes []amqp.Descriptor // of what this router sent
	answers  []amqp.Raw        // the same, as they came
	infos    []*peer.PeerInfo
}

// received is one delivery.
type received struct {
	link    *peer.Link
	id      uint32
	settled bool
	payload []byte
}

type senderState struct {
	id      uint32
	settled bool
	kind    amqp.Descriptor
}

// newScripted returns a router that gives credit and accepts everything.
func newScripted(t testing.TB, name string) *scripted {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &scripted{name: name, credit: 100, refill: true, links: map[string][]*peer.Link{}, wheel: peer.NewWheel()}
	r.wg.Go(func() { r.wheel.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		r.setDown(true)
		r.kill()
		r.wg.Wait()
	})
	return r
}

func (r *scripted) setDown(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

// kill drops all connections without a word.
func (r *scripted) kill() {
	r.mu.Lock()
	conns := slices.Clone(r.conns)
	r.mu.Unlock()
	for _, c := range conns {
		c.Abort()
	}
}

func (r *scripted) options() peer.Options {
	return peer.Options{Config: peer.Config{ContainerID: r.name, MaxMessageSize: r.maxSize, IncomingWindow: r.window}, Handler: r, Wheel: r.wheel, Auth: anyone{},
		OnPanic: func(v any, stack []byte) { panic(v) }}
}

// dial is a Router.Dial.
func (r *scripted) dial(ctx context.Context) (*peer.Pipe, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return nil, errors.New("connection refused")
	}
	ours, theirs := peer.NewPipe()
	r.wg.Go(func() { peer.AcceptPipe(context.Background(), theirs, r.options(), r.onConn) })
	return ours, nil
}

// listen serves TCP and, with a configuration, TLS. The address has the port.
func (r *scripted) listen(t testing.TB, address string, o peer.Options) net.Addr {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("this system does not listen on %s: %v", address, err)
	}
	r.wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { peer.Accept(context.Background(), nc, o, r.onConn) })
		}
	})
	t.Cleanup(func() { ln.Close() })
	return ln.Addr()
}

func (r *scripted) onConn(c *peer.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, c)
	r.infos = append(r.infos, c.Info())
	if r.down {
		c.Abort()
	}
}

func (r *scripted) Handle(b *peer.Batch, c *peer.Conn, events []peer.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.Lock()
	defer c.Unlock()
	for i := range events {
		r.handle(&events[i])
	}
	b.Touch(c)
}

func (r *scripted) handle(ev *peer.Event) {
	switch ev.Kind {
	case peer.EventAttach:
		if r.refuse != nil {
			ev.Link.Refuse(r.refuse)
			return
		}
		if ev.Link.Role() == amqp.RoleSender { // the adapter wants to receive
			address := ev.Attach.Source.Address
			ev.Link.Data = address
			r.links[address] = append(r.links[address], ev.Link)
			ev.Link.Accept(peer.Attachment{})
			return
		}
		r.attached++
		address := ev.Attach.Target.Address
		ev.Link.Data = address
		r.links[address] = append(r.links[address], ev.Link)
		ev.Link.Accept(peer.Attachment{Credit: r.credit})
	case peer.EventOutcome:
		r.outcomes = append(r.outcomes, ev.State.StateKind())
		r.answers = append(r.answers, slices.Clone(ev.State))
	case peer.EventDetach:
		r.detached++
		address, _ := ev.Link.Data.(string)
		r.links[address] = slices.DeleteFunc(r.links[address], func(l *peer.Link) bool { return l == ev.Link })
	case peer.EventDelivery:
		r.delivery(ev)
	case peer.EventSenderState:
		r.states = append(r.states, senderState{ev.ID, ev.Settled, ev.State.StateKind()})
	}
}

func (r *scripted) delivery(ev *peer.Event) {
	d := &received{ev.Link, ev.ID, ev.Settled, slices.Clone(ev.Payload)}
	r.got = append(r.got, d)
	if r.refill && ev.Link.Credit() < r.credit/2 {
		ev.Link.SetCredit(r.credit)
	}
	state := amqp.StateAccepted
	if r.answer != nil {
		state = r.answer(d)
	}
	if !ev.Settled && state != nil {
		ev.Link.Settle(ev.ID, state, !r.second)
	}
}

func (r *scripted) Writable(*peer.Batch, *peer.Conn) {}

func (r *scripted) Closed(*peer.Batch, *peer.Conn, error) {}

// give sets the credit of the links of an address.
func (r *scripted) give(address string, n uint32) {
	r.each(address, func(l *peer.Link) { l.SetCredit(n) })
}

// each calls f for every link of an address, with its connection locked.
func (r *scripted) each(address string, f func(l *peer.Link)) {
	r.mu.Lock()
	links := slices.Clone(r.links[address])
	r.mu.Unlock()
	var b peer.Batch
	for _, l := range links {
		c := l.Conn()
		c.Lock()
		f(l)
		b.Touch(c)
		c.Unlock()
	}
	b.Flush()
}

func (r *scripted) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

// attaches and detaches count links over all connections.
func (r *scripted) attaches() (attached, detached int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.attached, r.detached
}

func (r *scripted) senderStates() []senderState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.states)
}

// anyone lets everybody in.
type anyone struct{}

func (anyone) Mechanisms(*peer.PeerInfo) []amqp.Symbol { return []amqp.Symbol{"EXTERNAL", "PLAIN"} }

func (anyone) Begin(*peer.PeerInfo, amqp.Symbol) (peer.Exchange, error) { return anyone{}, nil }

func (anyone) Step(context.Context, []byte) ([]byte, any, error) { return nil, "somebody", nil }
