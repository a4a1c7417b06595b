package forward

import (
	"crypto/rand"
	"strings"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// dynamicPrefix begins every address that is made for a receiver. The rest is
// random: to know it is to be allowed to send to it.
const dynamicPrefix = "_dynamic/"

// maxAddress is the longest address, in bytes: tenant and device ids have 256 at most.
const maxAddress = 1024

var errLongAddress = &amqp.Error{Condition: amqp.CondInvalidField, Description: "the address has more than 1024 bytes"}

// attach answers a peer's attach.
func (r *Router) attach(w *work, c *peer.Conn, ev *peer.Event) {
	err := supported(ev.Attach)
	if err == nil {
		if ev.Link.Role() == amqp.RoleReceiver {
			err = r.attachSender(w, c, ev)
		} else {
			err = r.attachReceiver(w, c, ev)
		}
	}
	if err != nil {
		c.Lock()
		ev.Link.Refuse(err)
		w.b.Touch(c)
		c.Unlock()
	}
}

// supported refuses what no address has.
func supported(p *amqp.Attach) *amqp.Error {
	switch {
	case p.Role == amqp.RoleSender && p.Coordinator:
		return &amqp.Error{Condition: amqp.CondNotImplemented, Description: "there are no transactions here"}
	case len(p.Unsettled) > 0 && !emptyMap(p.Unsettled):
		return &amqp.Error{Condition: amqp.CondNotImplemented, Description: "links are not resumed here"}
	case p.Role == amqp.RoleSender && p.Target != nil && p.Target.Dynamic:
		return &amqp.Error{Condition: amqp.CondNotImplemented, Description: "a target cannot be dynamic here"}
	}
	return nil
}

// senderAttach asks whether the peer of c may send to an address.
func (r *Router) senderAttach(c *peer.Conn, name string) (Access, *amqp.Error) {
	if len(name) > maxAddress {
		return Access{}, errLongAddress
	}
	if strings.HasPrefix(name, dynamicPrefix) {
		r.mu.Lock()
		a := r.addresses[name]
		r.mu.Unlock()
		if a == nil || !a.dynamic {
			return Access{}, &amqp.Error{Condition: amqp.CondNotFound, Description: "no such dynamic address"}
		}
		return Access{Distribution: a.kind}, nil
	}
	return r.policy.Sender(c, name)
}

// attachSender attaches a link over which the peer sends.
func (r *Router) attachSender(w *work, c *peer.Conn, ev *peer.Event) *amqp.Error {
	if ev.Attach.Target == nil || ev.Attach.Target.Address == "" {
		return r.attachAnonymous(w, c, ev)
	}
	name := ev.Attach.Target.Address
	d, err := r.senderAttach(c, name)
	if err == nil {
		err = d.modes(ev.Attach)
	}
	if err != nil {
		return err
	}
	s := &sender{a: r.acquire(name, d), l: ev.Link, c: c, gate: d.Gate}
	c.Lock()
	ev.Link.Data = s
	ev.Link.Accept(peer.Attachment{Capabilities: d.Offered, MaxMessageSize: d.MaxMessage, CutThrough: s.a.anycast()})
	w.b.Touch(c)
	c.Unlock()
	s.a.addSender(w, s)
	return nil
}

func (r *Router) attachAnonymous(w *work, c *peer.Conn, ev *peer.Event) *amqp.Error {
	if err := r.policy.Anonymous(c); err != nil {
		return err
	}
	r.mu.Lock()
	k := r.conns[c]
	r.mu.Unlock()
	if k == nil {
		return &amqp.Error{Condition: amqp.CondIllegalState, Description: "the connection is not open"}
	}
	c.Lock()
	ev.Link.Data = &anonymous{l: ev.Link, c: c, senders: map[string]*sender{}, used: &k.anonymous}
	a := peer.Attachment{Credit: anonymousCredit}
	if ev.Attach.Target == nil {
		a.Target = &amqp.Target{}
	}
	ev.Link.Accept(a)
	w.b.Touch(c)
	c.Unlock()
	return nil
}

// attachReceiver attaches a link over which the peer receives.
func (r *Router) attachReceiver(w *work, c *peer.Conn, ev *peer.Event) *amqp.Error {
	src := ev.Attach.Source
	if src == nil || src.Address == "" && !src.Dynamic {
		return &amqp.Error{Condition: amqp.CondInvalidField, Description: "source.address is missing"}
	}
	name := src.Address
	if len(name) > maxAddress {
		return errLongAddress
	}
	if src.Dynamic {
		name = ""
	}
	d, err := r.policy.Receiver(c, name)
	if err == nil {
		err = d.modes(ev.Attach)
	}
	if err != nil {
		return err
	}
	if d.Handout != nil {
		r.attachHandout(w, c, ev, d.Handout)
		return nil
	}
	answer := peer.Attachment{}
	if src.Dynamic {
		name = dynamicPrefix + rand.Text()
		named := *src
		named.Address, named.HasAddress = name, true
		answer.Source = &named
		d.Distribution, d.Dynamic = Balanced, true
	}
	a := r.acquire(name, d)
	if a == nil {
		return &amqp.Error{Condition: amqp.CondIllegalState, Description: "the address has its receiver: each needs one of its own"}
	}
	x := &receiver{a: a, l: ev.Link, c: c}
	c.Lock()
	ev.Link.Data = x
	ev.Link.Accept(answer)
	w.b.Touch(c)
	c.Unlock()
	r.own(c, x, true)
	x.a.addReceiver(w, x)
	x.a.refresh(w, x, false)
	return nil
}

func emptyMap(m amqp.Raw) bool {
	v, _, err := amqp.DecodeValue(m)
	x, ok := v.(amqp.Map)
	return err == nil && ok && len(x) == 0
}

// modes refuses a link of which the settle modes are none that the address has.
func (d *Access) modes(p *amqp.Attach) *amqp.Error {
	switch {
	case p.SenderSettleMode == amqp.SenderSettled && d.Presettled != nil:
		return d.Presettled
	case p.ReceiverSettleMode == amqp.ReceiverSecond:
		return d.Second
	}
	return nil
}

// acquire returns the address of that name, made if need be, and counts a link on
// it; nil when the address is exclusive and there already.
func (r *Router) acquire(name string, d Access) *address {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.addresses[name]
	if a == nil {
		a = &address{router: r, name: name, kind: d.Distribution, service: d.Service, credit: d.Credit, shelf: d.Shelf, dynamic: d.Dynamic}
		a.ready.turns = a.kind == Closest
		r.addresses[name] = a
	} else if d.Exclusive {
		return nil
	}
	a.refs++
	return a
}
