package forward

import (
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// Publish sends an encoded message of this process to an address. On a multicast
// address every receiver gets a copy, on others one receiver that has credit
// now. done is called exactly once, with the outcome that a sender would hear:
// released where nobody takes it. It may be called before Publish returns, and
// from any goroutine; it must not wait. state is valid during the call only.
//
// A receiver of a multicast address that does not follow is detached, as it is
// with every other sender; whoever publishes much waits for outcomes in between.
func (r *Router) Publish(name string, message []byte, done func(state amqp.Raw)) {
	a := r.existing(name)
	if a == nil {
		done(amqp.StateReleased)
		return
	}
	defer r.release(a)
	var b peer.Batch
	w := r.work(&b)
	m := &copies{done: done, pending: 1}
	a.mu.Lock()
	state := a.publish(w, m, message)
	w.unlock()
	a.arm(w.now)
	a.mu.Unlock()
	if state != nil {
		done(state)
	}
	r.settleUp(w)
	r.done(w)
	b.Flush()
}

// existing returns the address of that name, if there is such, and counts a
// link on it. A router that is stopping has none.
func (r *Router) existing(name string) *address {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.addresses[name]
	if a == nil || r.draining.Load() {
		return nil
	}
	a.refs++
	return a
}

// publish sends a message of this process on. It returns the outcome where
// that is known at once, else m will be told.
func (a *address) publish(w *work, m *copies, message []byte) amqp.Raw {
	switch a.kind {
	case Multicast:
		if len(a.receivers) == 0 {
			a.counts.Released++
			return amqp.StateReleased
		}
		m.pending = len(a.receivers)
		a.spread(w, m, &peer.Outgoing{Token: peer.Token{Ref: m}, Tail: message}, &Parts{Tail: message})
		return nil
	case Balanced, Closest, Closed: // closed is to senders
		if a.surplus.len() > 0 { // those who wait come first
			break
		}
		r, res := a.send(w, &peer.Outgoing{Token: peer.Token{Ref: m}, Tail: message})
		if res == peer.TooLarge {
			a.counts.Rejected++
			return stateTooLarge
		}
		if res == peer.Sent {
			return sentTo(r).state
		}
	}
	a.counts.Released++
	return amqp.StateReleased
}
