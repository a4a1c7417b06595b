package forward

import (
	"time"

	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// sender is a link over which a peer sends to an address. Its fields are
// guarded by the address.
type sender struct {
	a    *address
	l    *peer.Link
	c    *peer.Conn
	gate Gate
	gone bool

	out      int // credit that the peer still has
	active   bool
	waiting  bool // in address.waiting
	seen     bool // in work.seen
	held     int  // deliveries that are surplus
	lastSend time.Time
}

// receiver is a link over which a peer receives from an address. Its fields
// are guarded by the address.
type receiver struct {
	a       *address
	l       *peer.Link
	c       *peer.Conn
	credit  int  // as last seen
	blocked bool // its connection takes no more for now
	gone    bool

	inRing     bool
	prev, next *receiver
}

// ring holds the receivers with credit; they take turns.
type ring struct{ head *receiver }

func (r *ring) add(x *receiver) {
	if x.inRing {
		return
	}
	x.inRing = true
	if r.head == nil {
		r.head, x.prev, x.next = x, x, x
		return
	}
	x.next, x.prev = r.head, r.head.prev
	x.prev.next, x.next.prev = x, x
}

func (r *ring) remove(x *receiver) {
	if !x.inRing {
		return
	}
	x.inRing = false
	if x.next == x {
		r.head = nil
	} else {
		x.prev.next, x.next.prev = x.next, x.prev
		if r.head == x {
			r.head = x.next
		}
	}
	x.prev, x.next = nil, nil
}

func (r *ring) turn() { r.head = r.head.next }

// held is a surplus delivery: it came beyond the receivers' credit.
type held struct {
	s        *sender
	id       uint32
	settled  bool
	format   uint32
	tag      []byte
	message  []byte
	deadline time.Time // of an unsettled one
}

// queue is a first-in first-out list of surplus.
type queue struct {
	items []held
	first int
}

func (q *queue) len() int { return len(q.items) - q.first }

func (q *queue) push(h held) { q.items = append(q.items, h) }

func (q *queue) peek() *held { return &q.items[q.first] }

func (q *queue) pop() {
	q.items[q.first] = held{}
	q.first++
	switch {
	case q.first == len(q.items):
		q.items, q.first = nil, 0
	case q.first > 64 && q.first*2 > len(q.items):
		q.items = append([]held(nil), q.items[q.first:]...)
		q.first = 0
	}
}

// filter keeps the items for which keep reports true, in order.
func (q *queue) filter(keep func(*held) bool) {
	var kept []held
	for i := q.first; i < len(q.items); i++ {
		if keep(&q.items[i]) {
			kept = append(kept, q.items[i])
		}
	}
	q.items, q.first = kept, 0
}
