package forward

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// Router connects senders and receivers by address. It is a [peer.Handler].
type Router struct {
	policy   Policy
	pool     sync.Pool
	draining atomic.Bool
	refused  atomic.Int64 // messages for addresses that their sender may not use

	mu        sync.Mutex
	addresses map[string]*address
	conns     map[*peer.Conn]*conn
	nextConn  uint64
	past      Counts // of addresses that are gone
	gone      func(AddressInfo)
}

// conn is what the router keeps of a connection.
type conn struct {
	id     uint64
	opened time.Time

	anonymous atomic.Int64 // addresses used by links that have none of their own

	mu        sync.Mutex
	receivers map[*receiver]struct{}
	handouts  map[*handout]struct{} // that are yet to be sent
}

// New returns a router that asks policy.
func New(policy Policy) *Router {
	r := &Router{policy: policy, addresses: map[string]*address{}, conns: map[*peer.Conn]*conn{}}
	r.pool.New = func() any { return &work{} }
	return r
}

// Counts returns how many connections and addresses there are.
func (r *Router) Counts() (connections, addresses int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns), len(r.addresses)
}

func (r *Router) work(b *peer.Batch) *work {
	w := r.pool.Get().(*work)
	w.b, w.now = b, time.Now()
	return w
}

func (r *Router) done(w *work) {
	w.b = nil
	clear(w.parts)
	clear(w.from)
	w.parts, w.from = w.parts[:0], w.from[:0]
	if cap(w.scratch) > 64*1024 {
		w.scratch = nil
	}
	w.scratch = w.scratch[:0]
	r.pool.Put(w)
}

// Handle implements [peer.Handler].
func (r *Router) Handle(b *peer.Batch, c *peer.Conn, events []peer.Event) {
	w := r.work(b)
	for i := 0; i < len(events); {
		switch events[i].Kind {
		case peer.EventDelivery:
			i += r.deliveries(w, c, events[i:])
		case peer.EventOutcome:
			i += r.outcomes(w, c, events[i:])
		default:
			r.event(w, c, &events[i])
			i++
		}
		if len(w.overrun)+len(w.missed) > 0 {
			r.settleUp(w)
		}
	}
	r.done(w)
}

func (r *Router) event(w *work, c *peer.Conn, ev *peer.Event) {
	switch ev.Kind {
	case peer.EventOpen:
		r.mu.Lock()
		r.nextConn++
		r.conns[c] = &conn{id: r.nextConn, opened: w.now}
		r.mu.Unlock()
		if r.draining.Load() {
			c.Close(errStopping)
		}
	case peer.EventAttach:
		r.attach(w, c, ev)
	case peer.EventPart:
		if s, ok := ev.Link.Data.(*sender); ok {
			s.a.part(w, s, ev)
		}
	case peer.EventAborted:
		if s, ok := ev.Link.Data.(*sender); ok {
			s.a.mu.Lock()
			s.a.aborted(w, s)
			s.a.mu.Unlock()
		}
	case peer.EventCredit:
		switch x := ev.Link.Data.(type) {
		case *receiver:
			x.a.refresh(w, x, false)
		case *handout:
			r.handOut(w, x)
		}
	case peer.EventSenderState:
		r.senderState(w, ev)
	case peer.EventLost:
		if !ev.Settled { // else the sender has the outcome, and settles
			r.lost(w, ev.Token)
		}
	case peer.EventDetach:
		r.detached(w, ev.Link)
	case peer.EventWritable:
		r.Writable(w.b, c)
	}
}

// deliveries forwards the run of deliveries at the head of events that go to
// one address, and returns its length.
func (r *Router) deliveries(w *work, c *peer.Conn, events []peer.Event) int {
	w.parts, w.from = w.parts[:0], w.from[:0]
	var a *address
	n := 0
	for ; n < len(events) && events[n].Kind == peer.EventDelivery; n++ {
		ev := &events[n]
		s := r.origin(w, c, ev)
		if s == nil || a != nil && s.a != a {
			break
		}
		a = s.a
		parts := Parts{Tail: ev.Payload}
		ev.State = nil
		if s.gate != nil {
			var err *amqp.Error
			parts, w.scratch, err = s.gate.Admit(ev.Payload, w.scratch)
			if err != nil {
				ev.State = amqp.AppendRejected(nil, err)
			}
		}
		w.parts, w.from = append(w.parts, parts), append(w.from, s)
		if a.kind == Local {
			r.serve(w, s, ev)
			return n + 1
		}
	}
	if n == 0 {
		return 1 // of a link that was refused, or of a message that was
	}
	if a.kind == Stored {
		r.deposit(w, c, a, events[:n])
		return n
	}
	a.deliver(w, c, events[:n])
	return n
}

// origin returns the sender of a delivery; nil when there is none, and the
// delivery has been answered.
func (r *Router) origin(w *work, c *peer.Conn, ev *peer.Event) *sender {
	switch x := ev.Link.Data.(type) {
	case *sender:
		return x
	case *anonymous:
		s, err := r.target(w, x, ev)
		c.Lock()
		x.replenish()
		if err != nil {
			ev.Link.Settle(ev.ID, amqp.AppendRejected(nil, err), true)
		}
		w.b.Touch(c)
		c.Unlock()
		if err != nil {
			r.refused.Add(1)
			ev.Kind = 0 // it is not looked at again
			return nil
		}
		return s
	}
	return nil
}

// outcomes carries a run of outcomes back to one sending connection.
func (r *Router) outcomes(w *work, c *peer.Conn, events []peer.Event) int {
	if x, ok := events[0].Link.Data.(*handout); ok {
		r.handedOut(w, x, &events[0])
		return 1
	}
	if _, ok := events[0].Token.Ref.(Taker); ok {
		return r.taken(w, c, events)
	}
	x, _ := events[0].Link.Data.(*receiver)
	from, _ := events[0].Token.Ref.(*peer.Link)
	if from == nil {
		r.copied(w, c, events[:1])
		if x != nil {
			x.a.settled(x, 1)
		}
		return 1
	}
	src := from.Conn()
	n, settled, confirm := 0, 0, false
	src.Lock()
	for ; n < len(events) && events[n].Kind == peer.EventOutcome; n++ {
		ev := &events[n]
		l, _ := ev.Token.Ref.(*peer.Link)
		if l == nil || l.Conn() != src || ev.Link != events[0].Link {
			break
		}
		switch {
		case ev.Settled:
			l.Settle(ev.Token.ID, ev.State, true)
			settled++
		case l.ReceiverSettleMode() == amqp.ReceiverSecond && l.Settle(ev.Token.ID, ev.State, false):
			ev.Settled = true // by the sender, who is yet to say so
		default:
			// The receiver awaits a settlement that this sender does not give, or
			// that is gone: we settle in its place.
			l.Settle(ev.Token.ID, ev.State, true)
			settled++
			confirm = true
		}
	}
	w.b.Touch(src)
	src.Unlock()
	if confirm {
		r.confirm(w, c, events[:n])
	}
	if x != nil && settled > 0 {
		x.a.settled(x, settled)
	}
	return n
}

// confirm settles at the receiver what it has not settled itself.
func (r *Router) confirm(w *work, c *peer.Conn, events []peer.Event) {
	c.Lock()
	for i := range events {
		if ev := &events[i]; !ev.Settled {
			ev.Link.SettleSent(ev.ID, ev.State)
		}
	}
	w.b.Touch(c)
	c.Unlock()
}

// copied takes the outcome of a copy, or of a delivery that nobody waits for.
func (r *Router) copied(w *work, c *peer.Conn, one []peer.Event) {
	if !one[0].Settled {
		r.confirm(w, c, one)
	}
	if m, ok := one[0].Token.Ref.(*copies); ok {
		r.copyOutcome(w, m, one[0].State)
	}
}

// lost answers for a delivery whose receiver went before it settled.
func (r *Router) lost(w *work, t peer.Token) {
	switch m := t.Ref.(type) {
	case *copies:
		r.copyOutcome(w, m, amqp.StateDeliveryFailed)
		return
	case Taker:
		m.Lost()
		return
	}
	r.settle(w, t, amqp.StateDeliveryFailed)
}

// senderState carries a sender's own word to the receiver that has the delivery.
func (r *Router) senderState(w *work, ev *peer.Event) {
	if !ev.Settled {
		return
	}
	t := ev.Token
	if t.Ref == nil {
		switch x := ev.Link.Data.(type) {
		case *sender:
			t = x.a.forget(w, x, ev.ID)
		case *anonymous:
			t = x.forget(w, ev.ID)
		}
	}
	to, _ := t.Ref.(*peer.Link)
	if to == nil {
		return
	}
	c := to.Conn()
	c.Lock()
	was := to.SettleSent(t.ID, ev.State)
	w.b.Touch(c)
	c.Unlock()
	if x, ok := to.Data.(*receiver); ok && was {
		x.a.settled(x, 1)
	}
}

// settle gives a received delivery its outcome.
func (r *Router) settle(w *work, t peer.Token, state amqp.Raw) {
	l, _ := t.Ref.(*peer.Link)
	if l == nil {
		return
	}
	c := l.Conn()
	c.Lock()
	l.Settle(t.ID, state, true)
	w.b.Touch(c)
	c.Unlock()
}

func (r *Router) release(a *address) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.refs--; a.refs == 0 {
		delete(r.addresses, a.name)
		r.account(a)
	}
}

// own notes or forgets the receivers of a connection, for Writable.
func (r *Router) own(c *peer.Conn, x *receiver, add bool) {
	r.mu.Lock()
	k := r.conns[c]
	r.mu.Unlock()
	if k == nil {
		return
	}
	k.mu.Lock()
	if add {
		put(&k.receivers, x)
	} else {
		delete(k.receivers, x)
	}
	k.mu.Unlock()
}

// detached takes a link off its address, once: the peer may detach a link while
// another goroutine detaches it because it fell behind.
func (r *Router) detached(w *work, l *peer.Link) {
	switch x := l.Data.(type) {
	case *sender:
		if !x.left.Swap(true) {
			x.a.removeSender(w, x)
			if s, ok := x.a.service.(LinkService); ok {
				s.Gone(l)
			}
			r.release(x.a)
		}
	case *anonymous:
		r.forgetTargets(w, x)
	case *handout:
		r.ownHandout(x, false)
	case *receiver:
		if !x.left.Swap(true) {
			r.own(x.c, x, false)
			x.a.removeReceiver(w, x)
			r.release(x.a)
		}
	}
}

// Writable implements [peer.Handler]: the receivers of the connection that
// were passed over resume, each address in turn.
func (r *Router) Writable(b *peer.Batch, c *peer.Conn) {
	r.mu.Lock()
	k := r.conns[c]
	r.mu.Unlock()
	if k == nil {
		return
	}
	k.mu.Lock()
	list := make([]*receiver, 0, len(k.receivers))
	for x := range k.receivers {
		list = append(list, x)
	}
	waiting := slices.Collect(maps.Keys(k.handouts))
	k.mu.Unlock()
	w := r.work(b)
	for _, x := range list {
		x.a.refresh(w, x, true)
	}
	for _, x := range waiting {
		r.handOut(w, x)
	}
	r.settleUp(w)
	r.done(w)
}

// Closed implements [peer.Handler].
func (r *Router) Closed(_ *peer.Batch, c *peer.Conn, _ error) {
	r.mu.Lock()
	delete(r.conns, c)
	r.mu.Unlock()
}

// Shutdown stops giving credit, waits until what is in flight is settled or
// ctx ends, closes every connection with amqp:connection:forced and returns
// how many deliveries were left unsettled.
func (r *Router) Shutdown(ctx context.Context) (left int) {
	r.draining.Store(true)
	addresses, _ := r.all()
	var b peer.Batch
	w := r.work(&b)
	for _, a := range addresses {
		a.mu.Lock()
		a.setAll(&b, 0)
		a.abandon(w) // nobody takes it now, and later is too late
		a.mu.Unlock()
	}
	r.done(w)
	b.Flush()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for left = r.unsettled(); left > 0 && ctx.Err() == nil; left = r.unsettled() {
		select {
		case <-ctx.Done():
		case <-poll.C:
		}
	}
	_, conns := r.all()
	for _, c := range conns {
		c.Close(errStopping)
	}
	return left
}

var errStopping = &amqp.Error{Condition: amqp.CondConnectionForced, Description: "the router is stopping"}

func (r *Router) all() (addresses []*address, conns []*peer.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.addresses)), slices.Collect(maps.Keys(r.conns))
}

// unsettled counts the deliveries that receivers have, and those that wait for one or to be kept.
func (r *Router) unsettled() (n int) {
	addresses, conns := r.all()
	for _, c := range conns {
		c.Lock()
		n += c.Engine().Unsettled()
		c.Unlock()
	}
	for _, a := range addresses {
		a.mu.Lock()
		n += a.surplus.len() + a.kept()
		a.mu.Unlock()
	}
	return n
}
