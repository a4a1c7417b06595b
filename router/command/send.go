package command

import (
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/router/forward"
)

// sendAgain is how often those are offered again who wait for an adapter's credit.
const sendAgain = 2 * time.Millisecond

// outgoing is a command for an adapter process.
type outgoing struct {
	*flight
	message []byte
	since   time.Time // when it began to wait
}

// queue are the commands that wait for one adapter process, in order. An adapter gives
// little credit at a time and gives it back at once; a burst is not to be released for that.
type queue struct {
	waiting []*outgoing
	moved   time.Time // when the adapter took one of them last; only [Server.again] looks
}

// stuck reports whether an adapter process has taken nothing for so long that what waits is given up.
func (q *queue) stuck(o *outgoing) bool {
	now := time.Now()
	return now.Sub(o.since) >= forward.SurplusTime && now.Sub(q.moved) >= forward.SurplusTime
}

// send sends a command to an adapter process, behind those that wait for it.
func (s *Server) send(instance string, o *outgoing) {
	s.mu.Lock()
	q := s.queues[instance]
	if q == nil {
		s.mu.Unlock()
		if s.offer(instance, o) {
			return
		}
		if s.d.o.Present != nil && !s.d.o.Present(internal+instance) {
			s.end(o.flight, amqp.StateReleased)
			return
		}
		s.mu.Lock()
		if q = s.queues[instance]; q == nil {
			q = &queue{}
			s.queues[instance] = q
			time.AfterFunc(sendAgain, func() { s.again(instance, q) })
		}
	}
	o.since = time.Now()
	q.waiting = append(q.waiting, o)
	s.mu.Unlock()
}

// offer reports whether an adapter process took a command.
func (s *Server) offer(instance string, o *outgoing) bool {
	f := o.flight // the message is not kept until it is settled
	f.sent.Store(true)
	taken := s.d.o.Offer(internal+instance, o.message, func(state amqp.Raw) {
		if !state.Terminal() {
			// The adapter let go of it without a word: the device may have it.
			state = amqp.StateDeliveryFailed
		}
		s.end(f, state)
	})
	if !taken {
		f.sent.Store(false)
	}
	return taken
}

// again offers what waits, in order, and lets go of what has waited long enough.
func (s *Server) again(instance string, q *queue) {
	for {
		s.mu.Lock()
		if len(q.waiting) == 0 {
			delete(s.queues, instance)
			s.mu.Unlock()
			return
		}
		o := q.waiting[0]
		s.mu.Unlock()
		switch {
		case o.over.Load():
		case s.offer(instance, o):
			q.moved = time.Now()
		case q.stuck(o):
			s.end(o.flight, amqp.StateReleased)
		default:
			time.AfterFunc(sendAgain, func() { s.again(instance, q) })
			return
		}
		s.mu.Lock()
		q.waiting[0], q.waiting = nil, q.waiting[1:]
		s.mu.Unlock()
	}
}
