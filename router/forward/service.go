package forward

import (
	"sync"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// serviceCredit is what a sender to a service has unless [Access.Credit] says
// otherwise; it gets one back for every request that is finished.
const serviceCredit = 100

// Service answers the messages sent to an address in this process.
type Service interface {
	// Request gets one message. It must not wait: what takes time is done in a
	// goroutine, at most as many at a time as there is credit. q is the
	// service's until it calls q.Done.
	Request(q *Request)
}

// LinkService is a [Service] that is told when a link with its address, over which
// requests came or may have come, goes.
type LinkService interface {
	Service
	// Gone is called after the last request of the link, by the goroutine that
	// called Request, or would have.
	Gone(l *peer.Link)
}

// Request is one message to a [Service]. The service settles it, replies or
// does not, and calls Done.
type Request struct {
	Conn    *peer.Conn
	Address string
	Message []byte
	Settled bool // by its sender
	// Unsettled is for the service to set: replies go out unsettled to all but
	// receivers that asked for pre-settled ones, though nobody awaits their word.
	Unsettled bool

	router    *Router
	link      *peer.Link
	anonymous bool // the link has no address of its own
	credit    uint32
	id        uint32
	once      sync.Once
}

// Link is that over which the message came; nil for one without an address of its own.
func (q *Request) Link() *peer.Link {
	if q.anonymous {
		return nil
	}
	return q.link
}

// Settle tells the sender the outcome; without effect when it was pre-settled.
func (q *Request) Settle(state amqp.Raw) {
	if q.Settled {
		return
	}
	q.Settled = true
	var b peer.Batch
	q.Conn.Lock()
	q.link.Settle(q.id, state, true)
	b.Touch(q.Conn)
	q.Conn.Unlock()
	b.Flush()
}

// Finish is Settle and Done in one.
func (q *Request) Finish(state amqp.Raw) {
	var b peer.Batch
	q.Conn.Lock()
	if !q.Settled {
		q.Settled = true
		q.link.Settle(q.id, state, true)
		b.Touch(q.Conn)
	}
	q.once.Do(func() { q.replenish(&b) })
	q.Conn.Unlock()
	b.Flush()
}

// replenish returns the request's credit. Its connection is locked.
func (q *Request) replenish(b *peer.Batch) {
	if q.anonymous || !q.link.Attached() || q.router.draining.Load() {
		return // the link without an address gets credit as it uses it
	}
	q.link.SetCredit(min(q.link.Credit()+1, q.credit))
	b.Touch(q.Conn)
}

// Reachable reports whether the request's own connection has a receiver on
// address, so that [Request.Reply] would reach somebody.
func (q *Request) Reachable(address string) bool { return q.router.receiverOf(q.Conn, address) != nil }

// Reply sends an encoded message to the receiver of address on the request's
// own connection; it waits for that receiver's credit. It reports false when there
// is no such receiver, or it takes no message of this size.
func (q *Request) Reply(address string, message []byte) bool {
	return q.router.sendTo(q.Conn, address, delayed{message: message, unsettled: q.Unsettled})
}

// Done returns the request's credit.
func (q *Request) Done() {
	q.once.Do(func() {
		var b peer.Batch
		q.Conn.Lock()
		q.replenish(&b)
		q.Conn.Unlock()
		b.Flush()
	})
}

// serve hands a delivery to the service of its address.
func (r *Router) serve(w *work, s *sender, ev *peer.Event) {
	if ev.State != nil { // refused by the gate
		s.c.Lock()
		ev.Link.Settle(ev.ID, ev.State, true)
		if !s.virtual {
			ev.Link.SetCredit(min(ev.Link.Credit()+1, uint32(s.a.serviceCredit())))
		}
		w.b.Touch(s.c)
		s.c.Unlock()
		return
	}
	q := &Request{Conn: s.c, Address: s.a.name, Message: append([]byte{}, ev.Payload...), Settled: ev.Settled,
		router: r, link: ev.Link, anonymous: s.virtual, credit: uint32(s.a.serviceCredit()), id: ev.ID}
	s.a.service.Request(q)
}

// serviceCredit is what a sender to the service of the address has.
func (a *address) serviceCredit() int {
	if a.credit > 0 {
		return a.credit
	}
	return serviceCredit
}

// Present reports whether an address has a receiver.
func (r *Router) Present(address string) bool {
	r.mu.Lock()
	a := r.addresses[address]
	r.mu.Unlock()
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.receivers) > 0
}

// receiverOf returns a receiver that one connection has on an address, or nil.
func (r *Router) receiverOf(c *peer.Conn, name string) *receiver {
	r.mu.Lock()
	k := r.conns[c]
	r.mu.Unlock()
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for x := range k.receivers {
		if x.a.name == name {
			return x
		}
	}
	return nil
}

// sendTo sends a message to a receiver that one connection has on an address.
func (r *Router) sendTo(c *peer.Conn, name string, d delayed) bool {
	found := r.receiverOf(c, name)
	if found == nil {
		return false
	}
	var b peer.Batch
	w := r.work(&b)
	sent := found.a.reply(w, found, d)
	r.done(w)
	b.Flush()
	return sent
}

// reply sends a message of this process to one receiver. A client's first
// credit may come after its request, so a reply waits for it as a copy does; see [delayed].
func (a *address) reply(w *work, x *receiver, d delayed) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer w.unlock()
	if x.gone {
		return false
	}
	if len(x.backlogged) == 0 {
		w.lock(x.c)
		switch x.l.Send(&peer.Outgoing{Settled: d.settled(x), Tail: d.message}) {
		case peer.Sent:
			w.b.Touch(x.c)
			return true
		case peer.TooLarge, peer.Gone:
			return false
		}
	}
	if len(x.backlogged) >= maxBacklogDeliveries || x.backlogBytes+len(d.message) > maxBacklogBytes {
		return false
	}
	x.backlogged = append(x.backlogged, d)
	x.backlogBytes += len(d.message)
	return true
}
