package forward

import (
	"sync"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// A receiver of a multicast address that does not keep up has this much room
// before it is detached, so that its loss is visible.
const (
	maxBacklogDeliveries = 1000
	maxBacklogBytes      = 1 << 20
)

// copies is an unsettled delivery on its way to several receivers. Its outcome
// is told when the last of them has settled: rejected if any rejected it, else accepted if
// any accepted it, else modified, else released.
type copies struct {
	from *peer.Link
	id   uint32
	done func(amqp.Raw) // of a message of this process, which came on no link

	mu      sync.Mutex
	pending int
	state   amqp.Raw
}

// rank orders the outcomes by which of them the sender hears.
func rank(state amqp.Raw) int {
	switch state.StateKind() {
	case amqp.DescRejected:
		return 4
	case amqp.DescAccepted:
		return 3
	case amqp.DescModified:
		return 2
	case amqp.DescReleased:
		return 1
	}
	return 0
}

// outcome notes one receiver's word and reports whether it was the last.
func (m *copies) outcome(state amqp.Raw) (amqp.Raw, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pending--
	if m.state == nil || rank(state) > rank(m.state) {
		m.state = append(amqp.Raw{}, state...)
	}
	return m.state, m.pending == 0
}

// multicast gives every receiver a copy. The address is locked, no connection is.
func (a *address) multicast(w *work, s *sender, ev *peer.Event, parts *Parts) placement {
	if len(a.receivers) == 0 {
		if ev.Settled {
			a.counts.Dropped++
			return placement{}
		}
		a.counts.Released++
		return placement{state: amqp.StateReleased}
	}
	var m *copies
	out := peer.Outgoing{Format: ev.Format, Settled: ev.Settled, Head: parts.Head, Mid: parts.Mid, Tail: parts.Tail}
	if !ev.Settled {
		m = &copies{from: ev.Link, id: ev.ID, pending: len(a.receivers)}
		out.Token = peer.Token{Ref: m}
	}
	a.spread(w, m, &out, parts)
	return placement{to: peer.Token{Ref: m}}
}

// spread sends a copy to every receiver, of which there is one at least.
func (a *address) spread(w *work, m *copies, out *peer.Outgoing, parts *Parts) {
	var joined []byte
	for r := range a.receivers {
		if len(r.backlogged) == 0 {
			w.lock(r.c)
			switch r.l.Send(out) {
			case peer.Sent:
				a.counts.Forwarded++
				w.b.Touch(r.c)
				a.sentCopy(w, r, m)
				continue
			case peer.TooLarge, peer.Gone:
				a.missed(w, m, amqp.StateReleased)
				continue
			}
		}
		if joined == nil {
			joined = parts.join()
		}
		a.delay(w, r, m, out, joined)
	}
}

// delayed is a copy that awaits its receiver's credit.
type delayed struct {
	message   []byte
	format    uint32
	copies    *copies // nil = nobody awaits its outcome
	unsettled bool    // all the same
}

// settled reports whether the copy goes out pre-settled.
func (d *delayed) settled(x *receiver) bool {
	return d.copies == nil && (!d.unsettled || x.l.SenderSettleMode() == amqp.SenderSettled)
}

// delay keeps a copy for a receiver that takes none now, or detaches it when
// it has fallen too far behind.
func (a *address) delay(w *work, r *receiver, m *copies, out *peer.Outgoing, message []byte) {
	if len(r.backlogged) < maxBacklogDeliveries && r.backlogBytes+len(message) <= maxBacklogBytes {
		r.backlogged = append(r.backlogged, delayed{message: message, format: out.Format, copies: m})
		r.backlogBytes += len(message)
		return
	}
	a.missed(w, m, amqp.StateReleased)
	a.counts.Overrun++
	w.overrun = append(w.overrun, r)
}

// copyState is the word that stands for one receiver's of its copy.
type copyState struct {
	copies *copies
	state  amqp.Raw
}

// missed notes the outcome of a copy of which its receiver will say nothing.
func (a *address) missed(w *work, m *copies, state amqp.Raw) {
	if m != nil {
		w.missed = append(w.missed, copyState{m, state})
	}
}

// sentCopy notes a copy that was just sent to r, whose connection is locked.
func (a *address) sentCopy(w *work, r *receiver, m *copies) {
	if r.l.SenderSettleMode() == amqp.SenderSettled {
		a.missed(w, m, amqp.StateAccepted)
	}
}

// flushBacklog sends what waited for r's credit, in order.
func (a *address) flushBacklog(w *work, r *receiver) {
	for len(r.backlogged) > 0 {
		d := &r.backlogged[0]
		out := peer.Outgoing{Format: d.format, Settled: d.settled(r), Tail: d.message}
		if d.copies != nil {
			out.Token = peer.Token{Ref: d.copies}
		}
		w.lock(r.c)
		if r.l.Send(&out) != peer.Sent {
			break
		}
		w.b.Touch(r.c)
		a.counts.Forwarded++
		a.sentCopy(w, r, d.copies)
		r.backlogBytes -= len(d.message)
		r.backlogged = r.backlogged[1:]
	}
	if len(r.backlogged) == 0 {
		r.backlogged = nil
	}
	w.unlock()
}

// dropBacklog gives up what a receiver that leaves has not got.
func (a *address) dropBacklog(w *work, r *receiver) {
	for i := range r.backlogged {
		a.missed(w, r.backlogged[i].copies, amqp.StateReleased)
	}
	r.backlogged, r.backlogBytes = nil, 0
}

// settleUp does what had to wait until no address was locked: receivers that
// fell behind are detached, and senders hear the outcome of copies that nobody has.
func (r *Router) settleUp(w *work) {
	for len(w.overrun) > 0 {
		x := w.overrun[len(w.overrun)-1]
		w.overrun = w.overrun[:len(w.overrun)-1]
		r.detach(w, x.c, x.l, &amqp.Error{Condition: amqp.CondResourceLimitExceeded,
			Description: "deliveries were lost: the receiver did not keep up"})
	}
	for len(w.missed) > 0 {
		m := w.missed[len(w.missed)-1]
		w.missed = w.missed[:len(w.missed)-1]
		r.copyOutcome(w, m.copies, m.state)
	}
}

// copyOutcome notes a receiver's word on its copy.
func (r *Router) copyOutcome(w *work, m *copies, state amqp.Raw) {
	if state, last := m.outcome(state); last {
		if m.done != nil {
			m.done(state)
			return
		}
		r.settle(w, peer.Token{Ref: m.from, ID: m.id}, state)
	}
}

// detach detaches a link that is ours to end and takes it off its address.
func (r *Router) detach(w *work, c *peer.Conn, l *peer.Link, err *amqp.Error) {
	var fx peer.Effects
	c.Lock()
	l.DetachLost(err, &fx)
	w.b.Touch(c)
	c.Unlock()
	r.detached(w, l)
	for i := range fx.Events {
		r.event(w, c, &fx.Events[i])
	}
}
