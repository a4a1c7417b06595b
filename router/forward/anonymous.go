package forward

import (
	"fmt"
	"sync/atomic"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

const (
	// anonymousCredit is what a sender without an address of its own has: it
	// cannot follow the receivers of one address.
	anonymousCredit = 100
	// maxAnonymousAddresses bounds how many addresses such a link is known to use.
	maxAnonymousAddresses = 256
	// maxConnAddresses bounds the same for all such links of a connection.
	maxConnAddresses = 2048
)

// anonymous is a link to the anonymous terminus: every message names its own
// address (AMQP anonymous terminus for message routing, 1.0).
type anonymous struct {
	l       *peer.Link
	c       *peer.Conn
	senders map[string]*sender
	used    *atomic.Int64 // addresses of all such links of the connection
	version uint64        // of the policy that granted them
}

// target returns the sender that stands for the message's address, or the
// error with which the message is rejected.
func (r *Router) target(w *work, n *anonymous, ev *peer.Event) (*sender, *amqp.Error) {
	s, err := amqp.ScanSections(ev.Payload)
	if err != nil {
		return nil, &amqp.Error{Condition: amqp.CondDecodeError, Description: err.Error()}
	}
	to, err := amqp.PropertiesTo(s.Properties.Of(ev.Payload))
	if err != nil {
		return nil, &amqp.Error{Condition: amqp.CondDecodeError, Description: err.Error()}
	}
	if len(to) == 0 {
		return nil, &amqp.Error{Condition: amqp.CondInvalidField, Description: "properties.to is missing: the link has no address of its own"}
	}
	if p, ok := r.policy.(interface{ Version() uint64 }); ok {
		if v := p.Version(); v != n.version {
			r.forgetTargets(w, n)
			n.version = v
		}
	}
	if x := n.senders[string(to)]; x != nil {
		return x, nil
	}
	name := string(to)
	d, refused := r.senderAttach(n.c, name)
	if refused != nil {
		return nil, refused
	}
	if len(n.senders) >= maxAnonymousAddresses {
		r.forgetTargets(w, n)
	}
	if n.used.Add(1) > maxConnAddresses {
		n.used.Add(-1)
		return nil, &amqp.Error{Condition: amqp.CondResourceLimitExceeded, Description: fmt.Sprintf(
			"the links of this connection without an address use %d addresses", maxConnAddresses)}
	}
	x := &sender{a: r.acquire(name, d), l: n.l, c: n.c, gate: d.Gate, virtual: true}
	n.senders[name] = x
	x.a.addSender(w, x)
	return x, nil
}

// forget is [address.forget] for a delivery of which only the link is known.
func (n *anonymous) forget(w *work, id uint32) peer.Token {
	for _, s := range n.senders {
		if to := s.a.forget(w, s, id); to.Ref != nil {
			return to
		}
	}
	return peer.Token{}
}

// forgetTargets lets go of every address of the link.
func (r *Router) forgetTargets(w *work, n *anonymous) {
	for name, x := range n.senders {
		x.a.removeSender(w, x)
		r.release(x.a)
		delete(n.senders, name)
		n.used.Add(-1)
	}
}

// replenish gives the link its credit again. Its connection is locked.
func (n *anonymous) replenish() {
	if n.l.Credit() < anonymousCredit/2 {
		n.l.SetCredit(anonymousCredit)
	}
}
