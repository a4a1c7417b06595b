package forward

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// Stats counts what became of deliveries since the start.
type Stats struct {
	Forwarded atomic.Int64 // sent on to a receiver
	Rejected  atomic.Int64 // refused by a gate
	Released  atomic.Int64 // nobody took them in time
	Dropped   atomic.Int64 // pre-settled, and the last receiver left
}

// Router connects senders and receivers by address. It is a [peer.Handler].
type Router struct {
	policy   Policy
	stats    Stats
	pool     sync.Pool
	draining atomic.Bool

	mu        sync.Mutex
	addresses map[string]*address
	conns     map[*peer.Conn]*conn
}

// conn is what the router keeps of a connection.
type conn struct {
	mu        sync.Mutex
	receivers map[*receiver]struct{}
}

// New returns a router that asks policy.
func New(policy Policy) *Router {
	r := &Router{policy: policy, addresses: map[string]*address{}, conns: map[*peer.Conn]*conn{}}
	r.pool.New = func() any { return &work{} }
	return r
}

// Stats returns the counters.
func (r *Router) Stats() *Stats { return &r.stats }

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
	w.parts = w.parts[:0]
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
	}
	r.done(w)
}

func (r *Router) event(w *work, c *peer.Conn, ev *peer.Event) {
	switch ev.Kind {
	case peer.EventOpen:
		r.mu.Lock()
		r.conns[c] = &conn{receivers: map[*receiver]struct{}{}}
		r.mu.Unlock()
	case peer.EventAttach:
		r.attach(w, c, ev)
	case peer.EventCredit:
		if x, ok := ev.Link.Data.(*receiver); ok {
			x.a.refresh(w, x, false)
		}
	case peer.EventSenderState:
		r.senderState(w, ev)
	case peer.EventLost:
		r.settle(w, ev.Token, amqp.StateDeliveryFailed)
	case peer.EventDetach:
		r.detached(w, ev.Link)
	case peer.EventWritable:
		r.Writable(w.b, c)
	}
}

// deliveries forwards the run of deliveries at the head of events that go to
// one address, and returns its length.
func (r *Router) deliveries(w *work, c *peer.Conn, events []peer.Event) int {
	first, _ := events[0].Link.Data.(*sender)
	if first == nil {
		return 1 // of a link that was refused
	}
	n := 0
	w.parts = w.parts[:0]
	for ; n < len(events) && events[n].Kind == peer.EventDelivery; n++ {
		ev := &events[n]
		s, _ := ev.Link.Data.(*sender)
		if s == nil || s.a != first.a {
			break
		}
		parts := Parts{Tail: ev.Payload}
		ev.State = nil
		if s.gate != nil {
			var err *amqp.Error
			parts, w.scratch, err = s.gate.Admit(ev.Payload, w.scratch)
			if err != nil {
				r.stats.Rejected.Add(1)
				parts = Parts{}
				ev.State = amqp.AppendRejected(nil, err)
			}
		}
		w.parts = append(w.parts, parts)
	}
	first.a.deliver(w, c, events[:n])
	return n
}

// outcomes carries a run of outcomes back to one sending connection.
func (r *Router) outcomes(w *work, c *peer.Conn, events []peer.Event) int {
	from, _ := events[0].Token.Ref.(*peer.Link)
	if from == nil {
		return 1
	}
	src := from.Conn()
	n, confirm := 0, 0
	src.Lock()
	for ; n < len(events) && events[n].Kind == peer.EventOutcome; n++ {
		ev := &events[n]
		l, _ := ev.Token.Ref.(*peer.Link)
		if l == nil || l.Conn() != src {
			break
		}
		switch {
		case ev.Settled:
			l.Settle(ev.Token.ID, ev.State, true)
		case l.ReceiverSettleMode() == amqp.ReceiverSecond:
			l.Settle(ev.Token.ID, ev.State, false)
		case ev.State.Terminal():
			// The receiver awaits a settlement that this sender does not give:
			// it has the outcome, and we settle in its place.
			l.Settle(ev.Token.ID, ev.State, true)
			ev.Closed = true
			confirm++
		}
	}
	w.b.Touch(src)
	src.Unlock()
	if confirm > 0 {
		c.Lock()
		for i := range events[:n] {
			if ev := &events[i]; ev.Closed {
				ev.Link.SettleSent(ev.ID, ev.State)
			}
		}
		w.b.Touch(c)
		c.Unlock()
	}
	return n
}

// senderState carries a sender's own word to the receiver that has the delivery.
func (r *Router) senderState(w *work, ev *peer.Event) {
	if !ev.Settled {
		return
	}
	to, _ := ev.Token.Ref.(*peer.Link)
	if to == nil {
		if s, ok := ev.Link.Data.(*sender); ok {
			s.a.forget(s, ev.ID)
		}
		return
	}
	c := to.Conn()
	c.Lock()
	to.SettleSent(ev.Token.ID, ev.State)
	w.b.Touch(c)
	c.Unlock()
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

// attach answers a peer's attach.
func (r *Router) attach(w *work, c *peer.Conn, ev *peer.Event) {
	refuse := func(err *amqp.Error) {
		c.Lock()
		ev.Link.Refuse(err)
		w.b.Touch(c)
		c.Unlock()
	}
	name, err := addressOf(ev.Attach)
	if err != nil {
		refuse(err)
		return
	}
	if ev.Link.Role() == amqp.RoleReceiver {
		kind, gate, err := r.policy.Sender(c, name)
		if err != nil {
			refuse(err)
			return
		}
		a := r.acquire(name, kind)
		s := &sender{a: a, l: ev.Link, c: c, gate: gate}
		c.Lock()
		ev.Link.Data = s
		ev.Link.Accept(peer.Attachment{})
		w.b.Touch(c)
		c.Unlock()
		if credit := a.addSender(s); credit > 0 {
			c.Lock()
			ev.Link.SetCredit(uint32(credit))
			c.Unlock()
		}
		return
	}
	kind, err := r.policy.Receiver(c, name)
	if err != nil {
		refuse(err)
		return
	}
	a := r.acquire(name, kind)
	x := &receiver{a: a, l: ev.Link, c: c}
	c.Lock()
	ev.Link.Data = x
	ev.Link.Accept(peer.Attachment{})
	w.b.Touch(c)
	c.Unlock()
	r.own(c, x, true)
	a.addReceiver(w, x)
	a.refresh(w, x, false)
}

// addressOf returns the address that an attach is about.
func addressOf(p *amqp.Attach) (string, *amqp.Error) {
	switch {
	case p.Role == amqp.RoleSender && p.Coordinator:
		return "", &amqp.Error{Condition: amqp.CondNotImplemented, Description: "there are no transactions here"}
	case len(p.Unsettled) > 0 && p.Unsettled[0] != 0x40 && !emptyMap(p.Unsettled):
		return "", &amqp.Error{Condition: amqp.CondNotImplemented, Description: "links are not resumed here"}
	case p.Role == amqp.RoleSender && p.Target != nil && p.Target.Address != "":
		return p.Target.Address, nil
	case p.Role == amqp.RoleSender && p.Target != nil && p.Target.Dynamic:
		return "", &amqp.Error{Condition: amqp.CondNotImplemented, Description: "a target cannot be dynamic here"}
	case p.Role == amqp.RoleSender:
		return "", &amqp.Error{Condition: amqp.CondNotAllowed, Description: "target.address is missing: the anonymous terminus is not offered"}
	case p.Source != nil && p.Source.Address != "":
		return p.Source.Address, nil
	case p.Source != nil && p.Source.Dynamic:
		return "", &amqp.Error{Condition: amqp.CondNotImplemented, Description: "dynamic sources are not offered"}
	}
	return "", &amqp.Error{Condition: amqp.CondInvalidField, Description: "source.address is missing"}
}

func emptyMap(m amqp.Raw) bool {
	v, _, err := amqp.DecodeValue(m)
	x, ok := v.(amqp.Map)
	return err == nil && ok && len(x) == 0
}

func (r *Router) acquire(name string, kind Distribution) *address {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.addresses[name]
	if a == nil {
		a = &address{router: r, name: name, kind: kind,
			senders: map[*sender]struct{}{}, receivers: map[*receiver]struct{}{}}
		r.addresses[name] = a
	}
	a.refs++
	return a
}

func (r *Router) release(a *address) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.refs--; a.refs == 0 {
		delete(r.addresses, a.name)
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
		k.receivers[x] = struct{}{}
	} else {
		delete(k.receivers, x)
	}
	k.mu.Unlock()
}

// detached takes a link off its address. The link's owner data goes with it,
// so that nothing arrives twice.
func (r *Router) detached(w *work, l *peer.Link) {
	switch x := l.Data.(type) {
	case *sender:
		x.a.removeSender(w, x)
		r.release(x.a)
	case *receiver:
		r.own(x.c, x, false)
		x.a.removeReceiver(w, x)
		r.release(x.a)
	}
	l.Data = nil
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
	k.mu.Unlock()
	w := r.work(b)
	for _, x := range list {
		x.a.refresh(w, x, true)
	}
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
	r.mu.Lock()
	addresses := make([]*address, 0, len(r.addresses))
	for _, a := range r.addresses {
		addresses = append(addresses, a)
	}
	conns := make([]*peer.Conn, 0, len(r.conns))
	for c := range r.conns {
		conns = append(conns, c)
	}
	r.mu.Unlock()
	var b peer.Batch
	for _, a := range addresses {
		a.mu.Lock()
		a.setAll(&b, 0)
		a.mu.Unlock()
	}
	b.Flush()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for left = unsettled(conns); left > 0 && ctx.Err() == nil; left = unsettled(conns) {
		select {
		case <-ctx.Done():
		case <-poll.C:
		}
	}
	for _, c := range conns {
		c.Close(&amqp.Error{Condition: amqp.CondConnectionForced, Description: "the router is stopping"})
	}
	return left
}

func unsettled(conns []*peer.Conn) (n int) {
	for _, c := range conns {
		c.Lock()
		n += c.Engine().Unsettled()
		c.Unlock()
	}
	return n
}
