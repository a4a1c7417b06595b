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
	credit  int     // of a Local address; 0 = serviceCredit
	shelf   Shelf   // of a Stored address
	dynamic bool    // made for a receiver, and known only to whom it tells
	refs    int     // links; guarded by Router.mu

	mu        sync.Mutex
	counts    Counts
	senders   map[*sender]struct{}
	receivers map[*receiver]struct{}
	ready     ready

	given    int // see credit.go
	granted  int
	draining bool // what is given now will be taken back at once
	active   int
	actives  []*sender // a superset of the active ones
	oldest   time.Time // no active sender's last delivery was before it
	waiting  []*sender

	surplus queue
	expiry  time.Time            // of the unsettled surplus that waits longest; zero = none
	stalled map[*stream]struct{} // large deliveries that wait for their receiver
	timer   *time.Timer
	due     time.Time // when the timer fires; zero = not set
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
	missed  []copyState // of receivers that will say nothing themselves
	locked  *peer.Conn  // the receiver's connection whose lock is held
}

// placement is what became of an unsettled delivery: sent on (to), answered
// (state), or held (neither).
type placement struct {
	s     *sender
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
		if ev.More && s.stream == nil {
			s.begin(ev, nil).dead = true // answered: the rest is not wanted
		}
		if !ev.Settled && (p.state != nil || p.to.Ref != nil) {
			p.s, p.id = s, ev.ID
			w.placed = append(w.placed, p)
		}
	}
	w.unlock()
	c.Lock()
	for _, p := range w.placed {
		if p.state != nil {
			p.s.l.Settle(p.id, p.state, true)
		} else if !p.s.l.SetToken(p.id, p.to) {
			p.s.settledEarly(p.id, p.to, w.now)
		}
	}
	for _, s := range w.seen {
		s.seen = false
		a.sync(s)
		if s.held > 0 {
			a.withdraw(w.b, s)
		} else {
			a.grant(w.b, s)
		}
	}
	w.b.Touch(c)
	c.Unlock()
	clear(w.placed)
	clear(w.seen)
	w.placed, w.seen = w.placed[:0], w.seen[:0]
	a.arm(w.now)
}

// place sends one delivery on, or holds it behind those that wait.
func (a *address) place(w *work, s *sender, ev *peer.Event, parts *Parts) placement {
	if ev.State != nil {
		a.counts.Rejected++
		return placement{state: ev.State} // refused by the gate
	}
	switch a.kind {
	case Multicast:
		return a.multicast(w, s, ev, parts)
	case Closed:
		a.counts.Released++
		return placement{state: amqp.StateReleased}
	}
	if a.surplus.len() == 0 {
		out := peer.Outgoing{Format: ev.Format, Settled: ev.Settled,
			Head: parts.Head, Mid: parts.Mid, Tail: parts.Tail, More: ev.More}
		if !ev.Settled {
			out.Token = peer.Token{Ref: ev.Link, ID: ev.ID}
		}
		switch r, res := a.send(w, &out); res {
		case peer.Sent:
			p := sentTo(r)
			if ev.More {
				p = s.begin(ev, r).placed(p)
				a.setGiven(r, 0)
			}
			return p
		case peer.TooLarge:
			a.counts.Rejected++
			return placement{state: stateTooLarge}
		}
	}
	return a.hold(w, s, ev, parts)
}

var stateTooLarge = amqp.AppendRejected(nil, &amqp.Error{Condition: amqp.CondMessageSizeExceeded,
	Description: "larger than the receiver takes"})

// sentTo is the placement of what was just sent to r, whose connection is locked.
func sentTo(r *receiver) placement {
	if r.l.SenderSettleMode() == amqp.SenderSettled {
		// The receiver asked for deliveries that are settled when they come: it
		// will say no more.
		return placement{state: amqp.StateAccepted}
	}
	return placement{to: peer.Token{Ref: r.l, ID: r.l.LastID()}}
}

// send offers a delivery to the ready receivers in turn. On Sent the
// connection of the receiver stays locked in w. TooLarge is the result when
// none of them takes messages that large.
func (a *address) send(w *work, out *peer.Outgoing) (*receiver, peer.SendResult) {
	result := peer.NoCredit
	var small []*receiver // those for whom it is too large
	defer func() {
		for _, r := range small {
			a.ready.add(r)
		}
	}()
	for r := a.ready.head(); r != nil; r = a.ready.head() {
		w.lock(r.c)
		switch res := r.l.Send(out); res {
		case peer.Sent:
			w.b.Touch(r.c)
			a.ready.sent(r, r.l.Settles(out.Settled))
			a.setGiven(r, int(r.l.Credit()))
			a.counts.Forwarded++
			return r, res
		case peer.NotNow:
			r.blocked = true
			a.setGiven(r, 0)
		case peer.TooLarge:
			result = res
			small = append(small, r)
			a.ready.remove(r)
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
			a.counts.Dropped++
			return placement{}
		}
		a.counts.Released++
		return placement{state: amqp.StateReleased}
	}
	m := parts.join()
	s.held++
	s.c.Hold(len(m))
	var st *stream
	if ev.More {
		st = s.begin(ev, nil)
	}
	h := held{s: s, stream: st, id: ev.ID, settled: ev.Settled, format: ev.Format, priority: priority(m), message: m,
		deadline: w.now.Add(SurplusTime)}
	a.surplus.push(h)
	if !h.settled && a.expiry.IsZero() {
		a.expiry = h.deadline
	}
	return placement{}
}

// pump sends surplus on while receivers take it. No connection is locked.
func (a *address) pump(w *work) {
	for a.surplus.len() > 0 && a.ready.head() != nil {
		h := a.surplus.peek()
		out := peer.Outgoing{Format: h.format, Settled: h.settled, Tail: h.message, More: h.stream != nil}
		if !h.settled {
			out.Token = peer.Token{Ref: h.s.l, ID: h.id}
		}
		r, res := a.send(w, &out)
		var p placement
		switch res {
		case peer.Sent:
			p = sentTo(r)
		case peer.TooLarge:
			a.counts.Rejected++
			p.state = stateTooLarge
		}
		w.unlock()
		if res != peer.Sent && res != peer.TooLarge {
			return
		}
		done := *h
		a.surplus.pop()
		switch st := done.stream; {
		case st == nil:
		case res == peer.TooLarge:
			a.kill(w, st)
		default:
			p = st.placed(p)
		}
		a.answer(w, &done, p)
		if st := done.stream; st != nil && res == peer.Sent {
			st.r, r.stream = r, st
			a.setGiven(r, 0)
			a.flow(w, st)
		}
	}
	w.unlock()
}

// answer tells the sender what became of a surplus delivery, and gives it
// credit again when that was its last.
func (a *address) answer(w *work, h *held, p placement) {
	s := h.s
	h.uncharge()
	if s.gone {
		return
	}
	s.c.Lock()
	if !h.settled {
		if p.state != nil {
			s.l.Settle(h.id, p.state, true)
		} else if !s.l.SetToken(h.id, p.to) {
			s.settledEarly(h.id, p.to, w.now)
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
	if a.expiry.IsZero() || a.expiry.After(w.now) {
		return
	}
	var out []held
	a.expiry = time.Time{}
	a.surplus.filter(func(h *held) bool {
		if !h.settled && !h.deadline.After(w.now) {
			out = append(out, *h)
			return false
		}
		if !h.settled && (a.expiry.IsZero() || h.deadline.Before(a.expiry)) {
			a.expiry = h.deadline
		}
		return true
	})
	for i := range out {
		a.counts.Released++
		a.giveUp(w, &out[i], amqp.StateReleased)
	}
}

// abandon gives up all surplus: the last receiver has left.
func (a *address) abandon(w *work) {
	for a.surplus.len() > 0 {
		h := *a.surplus.peek()
		a.surplus.pop()
		if h.settled {
			a.counts.Dropped++
			a.giveUp(w, &h, nil)
			continue
		}
		a.counts.Released++
		a.giveUp(w, &h, amqp.StateReleased)
	}
}

// giveUp answers a surplus delivery that nobody will have.
func (a *address) giveUp(w *work, h *held, state amqp.Raw) {
	if h.stream != nil {
		a.kill(w, h.stream)
	}
	a.answer(w, h, placement{state: state})
}

// arm sets the timer for the next thing that time brings: surplus to release,
// senders to rest.
func (a *address) arm(now time.Time) {
	due := a.expiry
	earlier := func(t time.Time) {
		if due.IsZero() || t.Before(due) {
			due = t
		}
	}
	if len(a.actives) > 0 {
		earlier(a.restAt())
	}
	if len(a.stalled) > 0 {
		earlier(now.Add(idleTime))
	}
	if due.IsZero() || !a.due.IsZero() && !due.Before(a.due) {
		return // a timer that comes too early sets itself again
	}
	a.due = due
	if wait := due.Sub(now); a.timer == nil {
		a.timer = time.AfterFunc(wait, a.tick)
	} else {
		a.timer.Reset(wait)
	}
}

func (a *address) tick() {
	var b peer.Batch
	w := a.router.work(&b)
	a.mu.Lock()
	a.due = time.Time{}
	a.expire(w)
	a.expireStreams(w)
	a.rest(w.b, w.now)
	a.serveWaiting(w.b)
	a.arm(w.now)
	a.mu.Unlock()
	a.router.done(w)
	b.Flush()
}

// put adds to a set that is made when something is put into it: most addresses
// have links of one kind only.
func put[T comparable](set *map[T]struct{}, x T) {
	if *set == nil {
		*set = map[T]struct{}{}
	}
	(*set)[x] = struct{}{}
}

// addReceiver attaches a receiver; its connection is not locked.
func (a *address) addReceiver(w *work, r *receiver) {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := len(a.receivers) == 0
	put(&a.receivers, r)
	if a.kind == Stored {
		a.shelf.Receivers(a.name, len(a.receivers))
		return
	}
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
	if st := r.stream; st != nil {
		r.stream, st.r = nil, nil
		a.kill(w, st)
		if st.accept {
			a.tell(w, st, amqp.StateDeliveryFailed)
		}
	}
	delete(a.receivers, r)
	if a.kind == Stored {
		a.shelf.Receivers(a.name, len(a.receivers))
		a.tellShelf(false)
		return
	}
	if len(a.receivers) == 0 {
		a.abandon(w)
		a.setAll(w.b, 0)
	}
}

// addSender attaches a sender and gives it its first credit, before anybody
// can take that back. The sender's connection is not locked.
func (a *address) addSender(w *work, s *sender) {
	a.mu.Lock()
	defer a.mu.Unlock()
	put(&a.senders, s)
	if s.virtual {
		return
	}
	s.c.Lock()
	a.setCredit(w.b, s, a.firstCredit())
	s.c.Unlock()
}

// removeSender detaches a sender. Its unsettled surplus goes with it, released
// if there is still a link to say so on; what it sent pre-settled is the
// receivers' all the same.
func (a *address) removeSender(w *work, s *sender) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.gone {
		return
	}
	a.deactivate(s)
	a.aborted(w, s)
	s.gone = true
	delete(a.senders, s)
	if s.held > 0 {
		a.surplus.filter(func(h *held) bool {
			if h.s != s || h.settled {
				return true
			}
			h.uncharge()
			s.c.Lock()
			s.l.Settle(h.id, amqp.StateReleased, true)
			w.b.Touch(s.c)
			s.c.Unlock()
			return false
		})
	}
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
	if r.stream != nil {
		a.flow(w, r.stream) // its end lets others follow, so credit is read after it
	}
	r.c.Lock()
	credit, drain := int(r.l.Credit()), r.l.Drain()
	r.c.Unlock()
	if len(r.backlogged) > 0 {
		a.flushBacklog(w, r)
		r.c.Lock()
		credit = int(r.l.Credit())
		r.c.Unlock()
	}
	if a.kind == Stored {
		a.credited(w, r, credit, drain)
		return
	}
	if a.kind != Multicast {
		a.setGiven(r, credit)
		a.draining = drain
		a.pump(w)
		a.draining = false
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
	a.arm(w.now)
}

// settled notes that n deliveries to r are settled.
func (a *address) settled(r *receiver, n int) {
	if a.kind != Balanced && a.kind != Stored {
		return
	}
	a.mu.Lock()
	a.ready.done(r, n)
	a.mu.Unlock()
}

// forget is told that a sender settled a delivery of which it was not known
// then where it went. It returns where, if it went anywhere; surplus is dropped.
func (a *address) forget(w *work, s *sender, id uint32) peer.Token {
	a.mu.Lock()
	defer a.mu.Unlock()
	if to, ok := s.takeEarly(id); ok {
		return to
	}
	if s.held == 0 {
		return peer.Token{}
	}
	a.surplus.filter(func(h *held) bool {
		if h.s != s || h.id != id || h.settled {
			return true
		}
		h.uncharge()
		return false
	})
	if s.held == 0 {
		s.c.Lock()
		a.grant(w.b, s)
		s.c.Unlock()
	}
	return peer.Token{}
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
