package mqtt

import (
	"errors"
	"slices"
	"sync"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// maxOpening bounds how many subscriptions of one SUBSCRIBE wait at the same time
// until routers know of them.
const maxOpening = 16

// subscribe grants filters of errors and commands (contract: adapters 8.8, 8.9)
// and answers all of them in the order in which they came.
func (c *conn) subscribe(h header, body []byte) error {
	if err := c.unexpired(); err != nil {
		return err
	}
	pk := packets.Packet{FixedHeader: h.FixedHeader, ProtocolVersion: c.version}
	if err := c.decode(&pk, body); err != nil {
		return err
	}
	switch {
	case pk.PacketID == 0 || len(pk.Filters) == 0:
		return &fault{packets.ErrProtocolViolation.Code, "SUBSCRIBE without packet identifier or filter"}
	case len(pk.Properties.SubscriptionIdentifier) > 0:
		return &fault{packets.ErrSubscriptionIdentifiersNotSupported.Code, "subscription identifiers are not available"}
	}
	wishes := readSubscribe(pk.Filters, c.who)
	c.grant(wishes)
	ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Suback}, PacketID: pk.PacketID}
	var why string
	for i := range wishes {
		w := &wishes[i]
		if w.like >= 0 {
			w.err, w.qos = wishes[w.like].err, wishes[w.like].qos
		}
		code, text := c.subackOf(w)
		if why == "" {
			why = text
		}
		ack.ReasonCodes = append(ack.ReasonCodes, code)
	}
	c.reply(&ack, why)
	return nil
}

// grant tries the filters from the last to the first. Those of commands wait
// together until applications and routers know that the client takes commands.
func (c *conn) grant(wishes []wish) {
	var opening []*wish
	added := 0
	for i := range slices.Backward(wishes) {
		w := &wishes[i]
		if w.err != nil || w.like >= 0 {
			continue
		}
		if w.err = c.mayHave(w, added); w.err != nil {
			continue
		}
		w.granted = new(w.subscription)
		if w.key.purpose == forErrors {
			c.keep(w.granted)
			continue
		}
		opening = append(opening, w)
		if c.subs.index(w.key) < 0 {
			added++
		}
	}
	c.openCommands(opening)
}

// mayHave finds what stands against a filter. Whether a gateway may act for the
// device that it names is asked as for a message of this device.
func (c *conn) mayHave(w *wish, others int) (err error) {
	if err := c.subs.room(w.key, others); err != nil {
		return err
	}
	if w.key.purpose == forCommands || w.behalf(c.who) {
		w.who, err = c.admit(w.key.tenant, w.key.device)
	}
	return err
}

// openCommands opens subscriptions for commands. The client may get commands before it is
// told that it has subscribed.
func (c *conn) openCommands(wishes []*wish) {
	if len(wishes) == 0 {
		return
	}
	c.uncork()
	if len(wishes) == 1 {
		c.openOne(wishes[0])
	} else {
		var wg sync.WaitGroup
		places := make(chan struct{}, maxOpening)
		for _, w := range wishes {
			places <- struct{}{}
			wg.Go(func() {
				c.openOne(w)
				<-places
			})
		}
		wg.Wait()
	}
	for _, w := range wishes {
		if w.err == nil {
			c.keep(w.granted)
		}
	}
}

func (c *conn) openOne(w *wish) {
	sub := w.granted
	sub.c = c
	sub.handle, w.err = c.a.o.Pipeline.Subscribe(c.a.ctx, adapters.Subscribe{
		Who: w.who, All: sub.device == "+", Notify: true, Address: w.filter, Deliver: sub.deliver,
	})
}

// keep lets sub count from now on, in the place of one with the same key.
func (c *conn) keep(sub *subscription) {
	c.mu.Lock()
	old := c.subs.add(sub)
	c.mu.Unlock()
	old.close(false)
}

// close ends the subscription where it is for commands; see
// [adapters.CommandSubscription.Close].
func (s *subscription) close(quiet bool) {
	if s != nil && s.handle != nil {
		s.handle.Close(quiet)
	}
}

// closeSubscriptions ends all subscriptions of a client that is gone. c.mu is held,
// but not while they are closed.
func (c *conn) closeSubscriptions() {
	list, quiet := c.subs.list, c.untold || c.a.ctx.Err() != nil
	c.subs.list = nil
	c.mu.Unlock()
	defer c.mu.Lock()
	if !quiet && slices.ContainsFunc(list, func(s *subscription) bool { return s.handle != nil }) {
		c.freshen() // applications are told by the device's own assertion
	}
	for _, s := range list {
		s.close(quiet)
	}
}

// subackOf is the code of a filter, and why it is not granted.
func (c *conn) subackOf(w *wish) (byte, string) {
	if w.err == nil {
		return w.qos, ""
	}
	c.debug("subscription refused", "err", w.err)
	code, text := byte(subackOther), ""
	var r *refusal
	if errors.As(w.err, &r) {
		code, text = r.code, r.text
	} else {
		text = shown(w.err)
		switch status.Sentinel(w.err) {
		case iot.ErrUnauthenticated, iot.ErrForbidden, iot.ErrNotFound, iot.ErrInvalid:
			code = subackNotAuthorized
		case iot.ErrQuota:
			code = subackQuota
		}
	}
	if c.version < 5 {
		code = subackFailure
	}
	return code, text
}

// unsubscribe ends subscriptions. It is always acknowledged.
func (c *conn) unsubscribe(h header, body []byte) error {
	if err := c.unexpired(); err != nil {
		return err
	}
	pk := packets.Packet{FixedHeader: h.FixedHeader, ProtocolVersion: c.version}
	if err := c.decode(&pk, body); err != nil {
		return err
	}
	if pk.PacketID == 0 || len(pk.Filters) == 0 {
		return &fault{packets.ErrProtocolViolation.Code, "UNSUBSCRIBE without packet identifier or filter"}
	}
	ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsuback}, PacketID: pk.PacketID}
	ack.ReasonCodes = c.remove(pk.Filters)
	c.reply(&ack, "")
	return nil
}

func (c *conn) remove(filters packets.Subscriptions) (codes []byte) {
	for _, f := range filters {
		c.mu.Lock()
		old, code := c.subs.remove(f.Filter, c.who)
		c.mu.Unlock()
		old.close(false)
		codes = append(codes, code)
	}
	return codes
}

// reply sends an acknowledgement with a reason where the client wants one.
func (c *conn) reply(ack *packets.Packet, why string) {
	if !c.quiet {
		ack.Properties.ReasonString = reasonString(why)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.send(ack)
	c.kick()
}
