package forward

import (
	"sync"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

const (
	// SurplusTime is how long an unsettled delivery waits for a receiver's
	// credit before it is released.
	SurplusTime = 100 * time.Millisecond
	// idleTime is how long a sender keeps its share without sending.
	idleTime = time.Second
	// maxHeldBytes is how much surplus one connection may have; beyond it
	// unsettled deliveries are released at once and reading from it stops.
	maxHeldBytes = 1 << 20
)

// address is one address and the links on it.
type address struct {
	router  *Router
	name    string
	kind    Distribution
	service Service // of a Local address
	dynamic bool    // made for a receiver, and known only to whom it tells
	refs    int     // links; guarded by Router.mu

	mu        sync.Mutex
	senders   map[*sender]struct{}
	receivers map[*receiver]struct{}
	ready     ready

	given   int // see credit.go
	granted int
	active  int
	actives []*sender // a superset of the active ones
	waiting []*sender

	surplus queue
	timer   *time.Timer
	armed   bool
}

// work is what one goroutine needs while it forwards a batch; it is pooled.
type work struct {
	b       *peer.Batch
	now     time.Time
	parts   []Parts
	scratch []byte
	placed  []placement
	from    []*sender // of each part
	seen    []*sender
	overrun []*receiver // to be detached
	missed  []*copies   // deliveries that one receiver will not have
	locked  *peer.Conn  // the receiver's connection whose lock is held
}

// placement is what became of an unsettled delivery: sent on (to), answered
// (state), or held (neither).
type placement struct {
	link  *peer.Link
	id    uint32
	to    peer.Token
	state amqp.Raw
}

func (w *work) lock(c *peer.Conn) {
	if w.locked == c {
		return
	}
	w.unlock()
	c.Lock()
	w.locked = c
}

func (w *work) unlock() {
	if w.locked != nil {
		w.locked.Unlock()
		w.locked = nil
	}
}

// deliver forwards deliveries that came in one batch on connection c, all for
// this address; w.parts says what each is to become.
func (a *address) deliver(w *work, c *peer.Conn, events []peer.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range events {
		ev := &events[i]
		s := w.from[i]
		if s.gone {
			continue
		}
		a.used(s, w.now)
		if !s.seen {
			s.seen = true
			w.seen = append(w.seen, s)
		}
		p := a.place(w, s, ev, &w.parts[i])
		if !ev.Settled && (p.state != nil || p.to.Ref != nil) {
			p.link, p.id = ev.Link, ev.ID
			w.placed = append(w.placed, p)
		}
	}
	w.unlock()
	c.Lock()
	for _, p := range w.placed {
		if p.state != nil {
			p.link.Settle(p.id, p.state, true)
		} else {
			p.link.SetToken(p.id, p.to)
		}
	}
	for _, s := range w.seen {
		s.seen = false
		a.grant(w.b, s)
	}
	w.b.Touch(c)
	c.Unlock()
	clear(w.placed)
	clear(w.seen)
	w.placed, w.seen = w.placed[:0], w.seen[:0]
	a.arm()
}

// place sends one delivery on, or holds it behind those that wait.
func (a *address) place(w *work, s *sender, ev *peer.Event, parts *Parts) placement {
	if ev.State != nil {
		return placement{state: ev.State} // refused by the gate
	}
	switch a.kind {
	case Multicast:
		return a.multicast(w, s, ev, parts)
	case Closed:
		a.router.stats.Released.Add(1)
		return placement{state: amqp.StateReleased}
	}
	if a.surplus.len() == 0 {
		out := peer.Outgoing{Tag: nil, Format: ev.Format, Settled: ev.Settled,
			Token: peer.Token{Ref: ev.Link, ID: ev.ID}, Head: parts.Head, Mid: parts.Mid, Tail: parts.Tail}
		if r, res := a.send(w, &out); res == peer.Sent {
			return placement{to: peer.Token{Ref: r.l, ID: r.l.LastID()}}
		} else if res == peer.TooLarge {
			return placement{state: amqp.AppendRejected(nil, &amqp.Error{Condition: amqp.CondMessageSizeExceeded,
				Description: "larger than the receiver takes"})}
		}
	}
	return a.hold(w, s, ev, parts)
}

// send offers a delivery to the ready receivers in turn. On Sent the
// connection of the receiver stays locked in w.
func (a *address) send(w *work, out *peer.Outgoing) (*receiver, peer.SendResult) {
	result := peer.NoCredit
	for r := a.ready.head(); r != nil; r = a.ready.head() {
		w.lock(r.c)
		switch res := r.l.Send(out); res {
		case peer.Sent:
			w.b.Touch(r.c)
			a.ready.sent(r, out.Settled)
			a.setGiven(r, int(r.l.Credit()))
			a.router.stats.Forwarded.Add(1)
			return r, res
		case peer.NotNow:
			r.blocked = true
			a.setGiven(r, 0)
		case peer.TooLarge:
			return r, res
		default:
			a.setGiven(r, 0)
		}
	}
	return nil, result
}

// hold keeps a delivery that nobody takes now. Without any receiver there is
// nothing to wait for.
func (a *address) hold(w *work, s *sender, ev *peer.Event, parts *Parts) placement {
	if len(a.receivers) == 0 || !ev.Settled && s.c.Held() > maxHeldBytes {
		if ev.Settled {
			a.router.stats.Dropped.Add(1)
			return placement{}
		}
		a.router.stats.Released.Add(1)
		return placement{state: amqp.StateReleased}
	}
	m := parts.join()
	s.held++
	s.c.Hold(len(m))
	a.surplus.push(held{s: s, id: ev.ID, settled: ev.Settled, format: ev.Format, priority: priority(m), message: m,
		deadline: w.now.Add(SurplusTime)})
	return placement{}
}

// pump sends surplus on while receivers take it. No connection is locked.
func (a *address) pump(w *work) {
	for a.surplus.len() > 0 && a.ready.head() != nil {
		h := a.surplus.peek()
		out := peer.Outgoing{Format: h.format, Settled: h.settled, Tail: h.message}
		if !h.settled {
			out.Token = peer.Token{Ref: h.s.l, ID: h.id}
		}
		r, res := a.send(w, &out)
		var to peer.Token
		if res == peer.Sent {
			to = peer.Token{Ref: r.l, ID: r.l.LastID()}
		}
		w.unlock()
		switch res {
		case peer.Sent:
			a.answer(w, h, to, nil)
		case peer.TooLarge:
			a.answer(w, h, to, amqp.AppendRejected(nil, &amqp.Error{Condition: amqp.CondMessageSizeExceeded}))
		default:
			return
		}
		a.surplus.pop()
	}
	w.unlock()
}

// answer tells the sender what became of a surplus delivery, and gives it
// credit again when that was its last.
func (a *address) answer(w *work, h *held, to peer.Token, state amqp.Raw) {
	s := h.s
	s.held--
	s.c.Hold(-len(h.message))
	if s.gone {
		return
	}
	s.c.Lock()
	if !h.settled {
		if state != nil {
			s.l.Settle(h.id, state, true)
		} else {
			s.l.SetToken(h.id, to)
		}
	}
	if s.held == 0 {
		a.grant(w.b, s)
	}
	w.b.Touch(s.c)
	s.c.Unlock()
}

// expire releases the unsettled surplus that has waited long enough.
func (a *address) expire(w *work) {
	due := func(h *held) bool { return !h.settled && !h.deadline.After(w.now) }
	var out []held
	a.surplus.filter(func(h *held) bool {
		if due(h) {
			out = append(out, *h)
			return false
		}
		return true
	})
	for i := range out {
		a.router.stats.Released.Add(1)
		a.answer(w, &out[i], peer.Token{}, amqp.StateReleased)
	}
}

// abandon gives up all surplus: the last receiver has left.
func (a *address) abandon(w *work) {
	for a.surplus.len() > 0 {
		h := *a.surplus.peek()
		a.surplus.pop()
		if h.settled {
			a.router.stats.Dropped.Add(1)
			a.answer(w, &h, peer.Token{}, nil)
			continue
		}
		a.router.stats.Released.Add(1)
		a.answer(w, &h, peer.Token{}, amqp.StateReleased)
	}
}

// arm sets the timer for the next thing that time brings: surplus to release,
// senders to rest.
func (a *address) arm() {
	if a.armed || a.surplus.len() == 0 && len(a.actives) == 0 {
		return
	}
	wait := idleTime
	if a.surplus.len() > 0 {
		wait = SurplusTime / 4
	}
	a.armed = true
	if a.timer == nil {
		a.timer = time.AfterFunc(wait, a.tick)
	} else {
		a.timer.Reset(wait)
	}
}

func (a *address) tick() {
	var b peer.Batch
	w := a.router.work(&b)
	a.mu.Lock()
	a.armed = false
	a.expire(w)
	a.rest(w.b, w.now)
	a.serveWaiting(w.b)
	a.arm()
	a.mu.Unlock()
	a.router.done(w)
	b.Flush()
}

// addReceiver attaches a receiver; its connection is not locked.
func (a *address) addReceiver(w *work, r *receiver) {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := len(a.receivers) == 0
	a.receivers[r] = struct{}{}
	if first && a.kind != Closed {
		a.setAll(w.b, a.firstCredit())
	}
}

// removeReceiver detaches a receiver.
func (a *address) removeReceiver(w *work, r *receiver) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.gone {
		return
	}
	a.setGiven(r, 0)
	r.gone = true
	a.dropBacklog(w, r)
	delete(a.receivers, r)
	if len(a.receivers) == 0 {
		a.abandon(w)
		a.setAll(w.b, 0)
	}
}

// addSender attaches a sender and returns its first credit.
func (a *address) addSender(s *sender) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.senders[s] = struct{}{}
	if !s.virtual {
		s.out = a.firstCredit()
	}
	return s.out
}

// removeSender detaches a sender. Its unsettled surplus goes with it; what it
// sent pre-settled is the receivers' all the same.
func (a *address) removeSender(w *work, s *sender) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.gone {
		return
	}
	a.deactivate(s)
	s.gone = true
	delete(a.senders, s)
	a.surplus.filter(func(h *held) bool {
		if h.s != s || h.settled {
			return true
		}
		s.held--
		s.c.Hold(-len(h.message))
		return false
	})
	a.serveWaiting(w.b)
}

// refresh looks at a receiver's credit again after a flow, or when its
// connection takes more.
func (a *address) refresh(w *work, r *receiver, unblock bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.gone {
		return
	}
	if unblock {
		r.blocked = false
	}
	r.c.Lock()
	credit, drain := int(r.l.Credit()), r.l.Drain()
	r.c.Unlock()
	if a.kind == Multicast {
		a.flushBacklog(w, r)
	} else {
		a.setGiven(r, credit)
		a.pump(w)
	}
	if drain {
		r.c.Lock()
		r.l.Drained()
		credit = int(r.l.Credit())
		w.b.Touch(r.c)
		r.c.Unlock()
		if a.kind != Multicast {
			a.setGiven(r, credit)
		}
	}
	a.serveWaiting(w.b)
	a.arm()
}

// settled notes that n deliveries to r are settled.
func (a *address) settled(r *receiver, n int) {
	if a.kind != Balanced {
		return
	}
	a.mu.Lock()
	a.ready.done(r, n)
	a.mu.Unlock()
}

// forget drops a surplus delivery that its sender settled itself.
func (a *address) forget(s *sender, id uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.surplus.filter(func(h *held) bool {
		if h.s != s || h.id != id || h.settled {
			return true
		}
		s.held--
		s.c.Hold(-len(h.message))
		return false
	})
}

// defaultPriority is that of a message whose header names none.
const defaultPriority = 4

// priority returns the message's priority, 0 to 9 by the specification.
func priority(message []byte) uint8 {
	if len(message) < 3 || message[2] != byte(amqp.DescHeader) {
		return defaultPriority // the usual case needs no scan
	}
	p, ok := amqp.HeaderPriority(message)
	if !ok {
		return defaultPriority
	}
	return p
}
