package forward

import (
	"slices"
	"sync/atomic"
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
	// virtual is an address of a link to the anonymous terminus: the link's
	// credit is not its own.
	virtual bool

	out      int // credit that the peer still has
	active   bool
	waiting  bool // in address.waiting
	seen     bool // in work.seen
	held     int  // deliveries that are surplus
	kept     int  // deposits that are not answered
	lastSend time.Time
	stream   *stream // the large delivery that is coming in
	early    []early

	left atomic.Bool // the link was taken off the address; not guarded by it
}

// early is a delivery that was settled before it was known where it went: by a
// sender that sent and settled it in one breath, or by a quick receiver.
type early struct {
	id uint32
	to peer.Token
	at time.Time
}

const (
	maxEarly  = 4096 // more than one batch of input can bring
	earlyTime = time.Second
)

// settledEarly notes where a delivery went, for the sender's word that is on
// its way to us. After a quick receiver none comes, so notes do not stay.
func (s *sender) settledEarly(id uint32, to peer.Token, now time.Time) {
	if len(s.early) >= 64 {
		s.early = slices.DeleteFunc(s.early, func(e early) bool { return now.Sub(e.at) > earlyTime })
	}
	if len(s.early) < maxEarly {
		s.early = append(s.early, early{id, to, now})
	}
}

func (s *sender) takeEarly(id uint32) (peer.Token, bool) {
	i := slices.IndexFunc(s.early, func(e early) bool { return e.id == id })
	if i < 0 {
		return peer.Token{}, false
	}
	to := s.early[i].to
	s.early = slices.Delete(s.early, i, i+1)
	return to, true
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

	backlog int    // unsettled deliveries; see ready
	turn    uint64 // when it was served last
	place   int    // in ready.list, counted from 1; 0 = not there

	stream *stream // the large delivery that is going out: nothing else can meanwhile

	backlogged   []delayed // multicast: copies that await credit
	backlogBytes int

	left atomic.Bool // the link was taken off the address; not guarded by it
}

// held is a surplus delivery: it came beyond the receivers' credit.
type held struct {
	s        *sender
	id       uint32
	settled  bool
	format   uint32
	priority uint8
	message  []byte
	stream   *stream   // of a large delivery: message is its first part
	deadline time.Time // of an unsettled one
}

// uncharge takes the charge for the delivery back.
func (h *held) uncharge() {
	h.s.held--
	h.s.c.Hold(-len(h.message))
}

// queue is a list of surplus: higher priorities first, each first in first out.
type queue struct {
	items []held
	first int
}

func (q *queue) len() int { return len(q.items) - q.first }

// push puts h behind everything of its priority and above.
func (q *queue) push(h held) {
	q.items = append(q.items, h)
	for i := len(q.items) - 1; i > q.first && q.items[i-1].priority < h.priority; i-- {
		q.items[i], q.items[i-1] = q.items[i-1], q.items[i]
	}
}

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
