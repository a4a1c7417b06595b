package forward

import (
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// stallTime is how long a receiver may take nothing of a large delivery before
// it is aborted.
const stallTime = 10 * time.Second

// stream is a large delivery that leaves before it has come whole. What the
// receiver does not take at once waits here, and the sender's session window is
// withheld meanwhile, so that what waits is bounded by the window.
type stream struct {
	s        *sender
	r        *receiver // nil = the first part is surplus
	id       uint32
	settled  bool
	queue    [][]byte
	complete bool // its last part has come
	withheld bool
	dead     bool      // the rest is thrown away
	accept   bool      // the receiver will say nothing: accepted when it has all
	since    time.Time // when the receiver took something last
}

// begin makes a stream of a delivery whose first part was placed.
func (s *sender) begin(ev *peer.Event, r *receiver) *stream {
	s.stream = &stream{s: s, r: r, id: ev.ID, settled: ev.Settled}
	if r != nil {
		r.stream = s.stream
	}
	return s.stream
}

// placed is the placement of the delivery whose first part was placed as p: a
// receiver that wants it settled must have all of it first.
func (st *stream) placed(p placement) placement {
	if p.state == nil {
		return p
	}
	st.accept = true
	return placement{}
}

// part takes a further part of a large delivery.
func (a *address) part(w *work, s *sender, ev *peer.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	st := s.stream
	if st == nil {
		return
	}
	s.lastSend = w.now
	if !ev.More {
		st.complete, s.stream = true, nil
	}
	if st.dead {
		return
	}
	if st.r != nil && len(st.queue) == 0 && a.offer(w, st, ev.Payload, ev.More) != peer.NotNow {
		return
	}
	if len(st.queue) == 0 {
		st.since = w.now
		put(&a.stalled, st)
	}
	st.queue = append(st.queue, append([]byte(nil), ev.Payload...))
	a.withhold(w, st, true)
	a.arm(w.now)
}

// offer gives a part to the receiver and does what follows from its answer.
func (a *address) offer(w *work, st *stream, payload []byte, more bool) peer.SendResult {
	r := st.r
	w.lock(r.c)
	res := r.l.Continue(payload, more)
	w.b.Touch(r.c)
	w.unlock()
	switch {
	case res == peer.Sent && !more:
		if st.accept {
			a.tell(w, st, amqp.StateAccepted)
		}
		a.free(w, st)
	case res == peer.TooLarge:
		a.abort(w, st, amqp.AppendRejected(nil, &amqp.Error{Condition: amqp.CondMessageSizeExceeded,
			Description: "larger than the receiver takes"}))
	case res == peer.Gone:
		a.kill(w, st) // the sender hears of it when the receiver's deliveries are lost
	}
	return res
}

// flow sends what waits for the receiver while it takes it.
func (a *address) flow(w *work, st *stream) {
	for len(st.queue) > 0 && !st.dead {
		if a.offer(w, st, st.queue[0], !st.complete || len(st.queue) > 1) == peer.NotNow {
			return
		}
		if st.dead {
			return
		}
		st.since = w.now
		st.queue[0] = nil
		st.queue = st.queue[1:]
	}
	st.queue = nil
	delete(a.stalled, st)
	a.withhold(w, st, false)
}

// withhold keeps the sender from being given more window, or lifts that.
func (a *address) withhold(w *work, st *stream, on bool) {
	if st.withheld == on {
		return
	}
	st.withheld = on
	c := st.s.c
	c.Lock()
	st.s.l.Session().Withhold(on)
	w.b.Touch(c)
	c.Unlock()
}

// kill throws away what is left of a stream.
func (a *address) kill(w *work, st *stream) {
	st.dead, st.queue = true, nil
	delete(a.stalled, st)
	a.withhold(w, st, false)
}

// free gives the receiver back to the address after a stream.
func (a *address) free(w *work, st *stream) {
	r := st.r
	st.r = nil
	if r == nil || r.stream != st {
		return
	}
	r.stream = nil
	r.c.Lock()
	credit := int(r.l.Credit())
	r.c.Unlock()
	a.setGiven(r, credit)
	a.pump(w)
}

// abort ends a stream at its receiver without the rest, and tells the sender
// the state, if any.
func (a *address) abort(w *work, st *stream, state amqp.Raw) {
	a.kill(w, st)
	if r := st.r; r != nil {
		r.c.Lock()
		r.l.Abort()
		w.b.Touch(r.c)
		r.c.Unlock()
		a.free(w, st)
	}
	if state != nil {
		a.tell(w, st, state)
	}
}

// tell gives the sender of a stream its outcome. No connection is locked.
func (a *address) tell(w *work, st *stream, state amqp.Raw) {
	if st.settled || st.s.gone {
		return
	}
	c := st.s.c
	c.Lock()
	st.s.l.Settle(st.id, state, true)
	w.b.Touch(c)
	c.Unlock()
}

// aborted follows a sender that gave up a delivery, or went, before its end.
func (a *address) aborted(w *work, s *sender) {
	st := s.stream
	if st == nil {
		return
	}
	s.stream = nil
	if st.dead {
		return
	}
	if st.r != nil {
		a.abort(w, st, nil)
		return
	}
	a.kill(w, st)
	a.surplus.filter(func(h *held) bool {
		if h.stream != st {
			return true
		}
		h.uncharge()
		return false
	})
}

// expireStreams aborts the deliveries whose receivers have stalled.
func (a *address) expireStreams(w *work) {
	for st := range a.stalled {
		if st.r != nil && w.now.Sub(st.since) >= stallTime {
			a.counts.Released++
			a.abort(w, st, amqp.StateReleased)
		}
	}
}
