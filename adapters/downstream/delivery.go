package downstream

import (
	"runtime/debug"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// maxKept is the largest buffer that is kept for the next message.
const maxKept = 64 * 1024

// delivery is one message on its way. It is guarded by its target until it has
// ended; then it belongs to whoever ended it, and after the signal to the Send
// that waits for it.
type delivery struct {
	t    *target
	done func(error)   // nil: a Send waits for the signal
	sig  chan struct{} // room for one; made for the first Send

	in         *queue // of the target; nil = in none
	prev, next *delivery
	due        time.Duration // when its wait in that queue is over, by Set.now
	buf        []byte        // the encoded message, while it waits for credit
	settled    bool          // at most once: no outcome is awaited
	link       *link
	id         uint32

	err   error
	final bool // nobody will speak of it again: it may be used anew
}

// scratch is what making a message needs, kept from one to the next.
type scratch struct {
	buf     []byte
	keys    []string
	address []byte
	batch   peer.Batch
}

func (s *Set) takeScratch() *scratch {
	if x, ok := s.scratches.Get().(*scratch); ok {
		return x
	}
	return &scratch{}
}

func (s *Set) putScratch(x *scratch) {
	if cap(x.buf) > maxKept {
		x.buf = nil
	}
	clear(x.keys)
	s.scratches.Put(x)
}

func (s *Set) take(done func(error)) *delivery {
	d, ok := s.deliveries.Get().(*delivery)
	if !ok {
		d = &delivery{}
	}
	if d.done = done; done == nil && d.sig == nil {
		d.sig = make(chan struct{}, 1)
	}
	return d
}

// recycle keeps d for another message. Nobody else knows of it any more.
func (s *Set) recycle(d *delivery) {
	if cap(d.buf) > maxKept {
		d.buf = nil
	}
	d.t, d.done, d.link, d.err = nil, nil, nil, nil
	s.deliveries.Put(d)
}

// ended are deliveries whose end is to be told once no lock is held, in order.
type ended struct{ first, last *delivery }

// add notes the end of a delivery that is in no queue any more.
func (e *ended) add(d *delivery, err error, final bool) {
	d.err, d.final, d.next = err, final, nil
	if e.last != nil {
		e.last.next = d
	} else {
		e.first = d
	}
	e.last = d
}

// conclude tells of the ends. No lock is held.
func (s *Set) conclude(e *ended) {
	for d := e.first; d != nil; {
		next := d.next
		d.next = nil
		s.report(d)
		d = next
	}
}

func (s *Set) report(d *delivery) {
	if d.done == nil {
		d.sig <- struct{}{}
		return
	}
	done, err := d.done, d.err
	if d.final {
		s.recycle(d)
	}
	s.tell(done, err)
	s.leave()
}

// tell calls done. Whoever tells has other messages to tell of, so a panic goes
// no further.
func (s *Set) tell(done func(error), err error) {
	defer func() {
		if v := recover(); v != nil {
			s.panicked("the end of a message was told", v)
		}
	}()
	done(err)
}

// panicked tells of a panic that was caught.
func (s *Set) panicked(what string, v any) {
	if s.o.OnPanic != nil {
		s.o.OnPanic(v, debug.Stack())
		return
	}
	s.log.Error("panic while "+what, "panic", v, "stack", string(debug.Stack()))
}

// queue is a list of deliveries, in the order in which their waits are over:
// whatever is pushed waits as long as what is there.
type queue struct{ first, last *delivery }

func (q *queue) push(d *delivery) {
	d.in, d.prev, d.next = q, q.last, nil
	if q.last != nil {
		q.last.next = d
	} else {
		q.first = d
	}
	q.last = d
}

func (q *queue) remove(d *delivery) {
	if d.prev != nil {
		d.prev.next = d.next
	} else {
		q.first = d.next
	}
	if d.next != nil {
		d.next.prev = d.prev
	} else {
		q.last = d.prev
	}
	d.in, d.prev, d.next = nil, nil, nil
}
