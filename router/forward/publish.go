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
	if !r.publish(name, message, done, true) {
		done(amqp.StateReleased)
	}
}

// TryPublish is [Router.Publish] for whoever can wait himself: it reports false, and done is
// not called, where nobody takes the message now.
func (r *Router) TryPublish(name string, message []byte, done func(state amqp.Raw)) (taken bool) {
	return r.publish(name, message, done, false)
}

// publish reports whether somebody took the message; if not it is counted as released
// when that is the last word on it.
func (r *Router) publish(name string, message []byte, done func(state amqp.Raw), last bool) (taken bool) {
	a := r.existing(name)
	if a == nil {
		return false
	}
	defer r.release(a)
	var b peer.Batch
	w := r.work(&b)
	m := &copies{done: done, pending: 1}
	a.mu.Lock()
	state, taken := a.publish(w, m, message)
	w.unlock()
	if !taken && last {
		a.counts.Released++
	}
	a.arm(w.now)
	a.mu.Unlock()
	if state != nil {
		done(state)
	}
	r.settleUp(w)
	r.done(w)
	b.Flush()
	return taken
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

// publish sends a message of this process on, or reports false. It returns the outcome
// where that is known at once, else m will be told.
func (a *address) publish(w *work, m *copies, message []byte) (state amqp.Raw, taken bool) {
	switch a.kind {
	case Multicast:
		if len(a.receivers) == 0 {
			return nil, false
		}
		m.pending = len(a.receivers)
		a.spread(w, m, &peer.Outgoing{Token: peer.Token{Ref: m}, Tail: message}, &Parts{Tail: message})
		return nil, true
	case Balanced, Closest, Closed: // closed is to senders
		if a.surplus.len() > 0 { // those who wait come first
			break
		}
		r, res := a.send(w, &peer.Outgoing{Token: peer.Token{Ref: m}, Tail: message})
		if res == peer.TooLarge {
			a.counts.Rejected++
			return stateTooLarge, true
		}
		if res == peer.Sent {
			return sentTo(r).state, true
		}
	}
	return nil, false
}
