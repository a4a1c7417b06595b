package forward

import (
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// storedCredit is what a sender to a stored address may have on its way: what
// was not answered yet counts.
const storedCredit = 250

// Shelf keeps what is sent to stored addresses until receivers take it. But
// for Put its methods are called with the address locked: they must not call
// the router, nor wait.
type Shelf interface {
	// Put takes deliveries to one address, to be answered with [Router.Answer], each
	// once; what finds no room is released. They are the shelf's, and its memory the shelf's to bound: to stop
	// reading from a connection would hold up all that is not stored. It must not wait.
	Put(address string, list []*Deposit)
	// Full reports whether senders are to get no more credit for now; [Router.Resume]
	// ends that.
	Full() bool
	// Receivers is told how many receivers an address has, whenever that changes.
	Receivers(address string, n int)
	// Wanted is told how much credit the receivers of the address have together, whenever one has
	// said something of it. With drain one wants what is there now and no more: the shelf
	// calls [Router.Drained] when it has offered all that.
	Wanted(address string, credit int, drain bool)
}

// Deposit is a delivery that its sender awaits the outcome of, unless it is settled.
type Deposit struct {
	Message []byte // encoded; a copy
	Settled bool   // by its sender, who hears no outcome

	s    *sender
	id   uint32
	done func(amqp.Raw) // of a message of this process
}

// NewDeposit is a delivery of this process; done is called once with its outcome, and must
// not wait. state is valid during the call only.
func NewDeposit(message []byte, done func(state amqp.Raw)) *Deposit {
	return &Deposit{Message: message, done: done}
}

// Answered is the outcome of a deposit.
type Answered struct {
	Deposit *Deposit
	State   amqp.Raw
}

// Taker hears what became of an offered message.
type Taker interface {
	// Outcome is called once for a message that was taken, with the receiver's word, unless
	// Lost is, because it went without one. state is valid during the
	// call only. Neither must wait, nor call the router.
	Outcome(state amqp.Raw)
	Lost()
}

// Offer is a message for a receiver of a stored address: two parts, of which the first may be empty.
type Offer struct {
	Head, Tail []byte
	Taker      Taker // a pointer
}

// deposit hands deliveries to the shelf of their address.
func (r *Router) deposit(w *work, c *peer.Conn, a *address, events []peer.Event) {
	list := make([]*Deposit, 0, len(events))
	a.mu.Lock()
	for i := range events {
		ev, s := &events[i], w.from[i]
		switch {
		case s.gone:
			continue
		case ev.State != nil: // refused by the gate
			a.counts.Rejected++
			w.placed = append(w.placed, placement{s: s, id: ev.ID, state: ev.State})
			continue
		}
		d := &Deposit{Message: w.parts[i].join(), Settled: ev.Settled, s: s, id: ev.ID}
		s.kept++
		list = append(list, d)
	}
	a.counts.Stored += int64(len(list))
	if len(w.placed) > 0 {
		c.Lock()
		for _, p := range w.placed {
			p.s.l.Settle(p.id, p.state, true) // one that its sender has settled is not touched
			a.replenish(w.b, p.s)
		}
		w.b.Touch(c)
		c.Unlock()
		clear(w.placed)
		w.placed = w.placed[:0]
	}
	a.mu.Unlock()
	if len(list) > 0 {
		a.shelf.Put(a.name, list)
	}
}

// replenish gives the sender to a stored address credit again once half of
// it is used. The connection of s is locked.
func (a *address) replenish(b *peer.Batch, s *sender) {
	if s.gone || s.virtual || a.router.draining.Load() || a.shelf.Full() {
		return
	}
	want := storedCredit - s.kept
	if has := int(s.l.Credit()); want-has < storedCredit/2 {
		return
	}
	s.l.SetCredit(uint32(want))
	b.Touch(s.c)
}

// Answer tells senders what became of their deposits. It takes the locks of addresses and connections.
func (r *Router) Answer(list []Answered) {
	var b peer.Batch
	for i := 0; i < len(list); {
		d := list[i].Deposit
		if d.done != nil {
			d.done(list[i].State)
			i++
			continue
		}
		s, a := d.s, d.s.a
		a.mu.Lock()
		s.c.Lock()
		for ; i < len(list) && list[i].Deposit.s == s; i++ {
			d := list[i].Deposit
			s.kept--
			if !d.Settled {
				// A link without an address of its own may have let go of this one: it is there all the same.
				s.l.Settle(d.id, list[i].State, true)
			}
		}
		a.replenish(&b, s)
		b.Touch(s.c)
		s.c.Unlock()
		a.mu.Unlock()
	}
	b.Flush()
}

// Resume gives senders to stored addresses their credit after [Shelf.Full] reported false again.
func (r *Router) Resume() {
	all, _ := r.all()
	var b peer.Batch
	for _, a := range all {
		if a.kind != Stored {
			continue
		}
		a.mu.Lock()
		for s := range a.senders {
			if s.virtual || s.gone {
				continue
			}
			s.c.Lock()
			a.replenish(&b, s)
			s.c.Unlock()
		}
		a.mu.Unlock()
	}
	b.Flush()
}

// Offer sends messages of a stored address, in order, to its receivers while they
// have credit. It returns how many were taken, and how much credit is left.
func (r *Router) Offer(name string, list []Offer) (taken, left int) {
	a := r.existing(name)
	if a == nil {
		return 0, 0
	}
	defer r.release(a)
	var b peer.Batch
	w := r.work(&b)
	type told struct {
		taker Taker
		state amqp.Raw
	}
	var known []told // outcomes that no receiver will tell
	a.mu.Lock()
	for i := range list {
		x := &list[i]
		to, res := a.send(w, &peer.Outgoing{Token: peer.Token{Ref: x.Taker}, Head: x.Head, Tail: x.Tail})
		if res == peer.TooLarge {
			// Another receiver may take it, later: nobody has failed at it.
			a.counts.Released++
			known = append(known, told{x.Taker, amqp.StateReleased})
			taken++
			continue
		}
		if res != peer.Sent {
			break
		}
		taken++
		if to.l.Drain() && to.l.Credit() == 0 {
			to.l.Drained() // it has got all it asked for
		}
		if p := sentTo(to); p.state != nil {
			known = append(known, told{x.Taker, p.state})
		}
	}
	w.unlock()
	left = a.given
	a.mu.Unlock()
	for _, k := range known {
		k.taker.Outcome(k.state)
	}
	r.done(w)
	b.Flush()
	return taken, left
}

// Drained tells receivers of a stored address that asked for what is there now that
// it was all.
func (r *Router) Drained(name string) {
	a := r.existing(name)
	if a == nil {
		return
	}
	defer r.release(a)
	var b peer.Batch
	a.mu.Lock()
	for x := range a.receivers {
		x.c.Lock()
		if x.l.Drain() {
			x.l.Drained()
			b.Touch(x.c)
		}
		credit := int(x.l.Credit())
		x.c.Unlock()
		a.setGiven(x, credit)
	}
	a.tellShelf(false)
	a.mu.Unlock()
	b.Flush()
}

// tellShelf tells what credit receivers have.
func (a *address) tellShelf(drain bool) { a.shelf.Wanted(a.name, a.given, drain) }

// credited looks at what a receiver of a stored address has said of its credit.
func (a *address) credited(w *work, r *receiver, credit int, drain bool) {
	a.setGiven(r, credit)
	if drain && credit == 0 {
		r.c.Lock()
		r.l.Drained()
		w.b.Touch(r.c)
		r.c.Unlock()
		drain = false
	}
	a.tellShelf(drain)
}

// taken tells takers the outcomes at the head of events, and returns how many that were.
func (r *Router) taken(w *work, c *peer.Conn, events []peer.Event) int {
	n, confirm := 0, false
	for ; n < len(events) && events[n].Kind == peer.EventOutcome && events[n].Link == events[0].Link; n++ {
		t, ok := events[n].Token.Ref.(Taker)
		if !ok {
			break
		}
		t.Outcome(events[n].State)
		confirm = confirm || !events[n].Settled
	}
	if confirm {
		r.confirm(w, c, events[:n])
	}
	if x, ok := events[0].Link.Data.(*receiver); ok {
		x.a.settled(x, n)
	}
	return n
}

// kept counts the deposits that are not answered.
func (a *address) kept() (n int) {
	for s := range a.senders {
		n += s.kept
	}
	return n
}
