package forward_test

import (
	"context"
	"sync"
	"testing"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/router/forward"
)

// flood is a client that sends as its credit allows, or accepts what it gets.
type flood struct {
	conn    *peer.Conn
	link    *peer.Link
	role    amqp.Role
	message []byte
	settled bool
	target  int // messages until done is told
	sent    int
	count   int
	taken   int // by the receiver since it last gave credit
	ready   chan struct{}
	done    chan struct{}
}

const floodCredit = 400

func (f *flood) Handle(b *peer.Batch, c *peer.Conn, events []peer.Event) {
	c.Lock()
	defer c.Unlock()
	for i := range events {
		switch ev := &events[i]; ev.Kind {
		case peer.EventOpen:
			a := peer.Attachment{Name: "l", Role: f.role, SenderSettleMode: amqp.SenderMixed,
				Source: &amqp.Source{Address: "a", HasAddress: true}, Target: &amqp.Target{Address: "a", HasAddress: true}}
			if f.role == amqp.RoleReceiver {
				a.Credit = floodCredit
			}
			f.link = c.Engine().Begin().Attach(a)
		case peer.EventAttached:
			close(f.ready)
		case peer.EventDelivery:
			if !ev.Settled {
				ev.Link.Settle(ev.ID, amqp.StateAccepted, true)
			}
			if f.taken++; f.taken >= floodCredit/2 {
				f.taken = 0
				ev.Link.SetCredit(floodCredit)
			}
			f.counted()
		case peer.EventOutcome:
			f.counted()
		case peer.EventCredit:
			f.send()
		}
	}
	b.Touch(c)
}

func (f *flood) send() {
	for f.sent < f.target {
		if f.link.Send(&peer.Outgoing{Settled: f.settled, Tail: f.message}) != peer.Sent {
			return
		}
		f.sent++
	}
}

func (f *flood) counted() {
	if f.count++; f.count == f.target {
		f.done <- struct{}{}
	}
	if f.role == amqp.RoleSender {
		f.send()
	}
}

func (f *flood) Writable(b *peer.Batch, c *peer.Conn) {
	if f.role == amqp.RoleSender {
		c.Lock()
		f.send()
		b.Touch(c)
		c.Unlock()
	}
}
func (f *flood) Closed(*peer.Batch, *peer.Conn, error) {}

// floods connects a sender and a receiver by a router until the test ends. The
// function it returns has n messages forwarded.
func floods(t testing.TB, gate forward.Gate, settled bool) (run func(n int)) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	r, wheel := forward.New(open{gate: gate}), peer.NewWheel()
	start := func(f *flood) {
		f.ready, f.done = make(chan struct{}), make(chan struct{}, 1)
		ours, theirs := peer.NewPipe()
		wg.Go(func() {
			peer.AcceptPipe(ctx, theirs, peer.Options{Config: peer.Config{ContainerID: "router"}, Handler: r, Wheel: wheel, Auth: anyone{},
				OnPanic: func(v any, stack []byte) { t.Errorf("panic: %v\n%s", v, stack) }}, nil)
		})
		f.conn = peer.ConnectPipe(ours, peer.Options{Config: peer.Config{ContainerID: "c", Hostname: "router"}, Handler: f, Wheel: wheel,
			Login: peer.Login{Mechanism: "ANONYMOUS", InitialResponse: []byte("c")}})
		wg.Go(func() { f.conn.Serve(ctx) })
		<-f.ready
	}
	receiver := &flood{role: amqp.RoleReceiver}
	sender := &flood{role: amqp.RoleSender, message: data(string(make([]byte, 240))), settled: settled}
	start(receiver)
	start(sender)
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return func(n int) {
		last := sender
		if settled {
			last = receiver
		}
		for _, f := range []*flood{receiver, sender} {
			f.conn.Lock()
			f.sent, f.count, f.target = 0, 0, n
			if f == receiver && !settled {
				f.target = -1
			}
			f.conn.Unlock()
		}
		var b peer.Batch
		sender.conn.Lock()
		sender.send()
		b.Touch(sender.conn)
		sender.conn.Unlock()
		b.Flush()
		<-last.done
	}
}

// BenchmarkForward is a message's way from one engine to another through the
// router, and its outcome's way back.
func BenchmarkForward(b *testing.B) {
	for name, settled := range map[string]bool{"unsettled": false, "settled": true} {
		b.Run(name, func(b *testing.B) {
			run := floods(b, nil, settled)
			run(20_000)
			b.ReportAllocs()
			b.ResetTimer()
			run(b.N)
		})
	}
}

func TestForwardAllocatesNothing(t *testing.T) {
	for name, settled := range map[string]bool{"unsettled": false, "settled": true} {
		t.Run(name, func(t *testing.T) {
			const n = 5000
			run := floods(t, nil, settled)
			run(20_000)
			// Pools are emptied by the collector, and that now and then costs a buffer.
			if got := testing.AllocsPerRun(4, func() { run(n) }) / n; got > 0.02 && !raceEnabled {
				t.Errorf("%.3f allocations per message, want none", got)
			}
		})
	}
}
