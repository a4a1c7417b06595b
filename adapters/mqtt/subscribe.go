package mqtt

import (
	"errors"

	"github.com/mochi-mqtt/server/v2/packets"
)

// subscribe grants filters of error topics (contract: adapters 8.8) and answers
// all of them in the order in which they came.
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
	for i := len(wishes) - 1; i >= 0; i-- {
		c.grant(&wishes[i])
	}
	ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Suback}, PacketID: pk.PacketID}
	var why string
	for i := range wishes {
		w := &wishes[i]
		if w.like >= 0 {
			w.err = wishes[w.like].err
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

// grant tries one filter. Whether a gateway may act for the device that it names
// is asked as for a message of this device.
func (c *conn) grant(w *wish) {
	if w.err != nil || w.like >= 0 {
		return
	}
	if w.behalf(c.who) {
		if _, err := c.admit(w.key.tenant, w.key.device); err != nil {
			w.err = err
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w.err = c.subs.add(w.subscription)
}

// subackOf is the code of a filter, and why it is not granted.
func (c *conn) subackOf(w *wish) (byte, string) {
	if w.err == nil {
		return w.qos, ""
	}
	c.debug("subscription refused", "err", w.err)
	code, text := byte(subackNotAuthorized), ""
	var r *refusal
	if errors.As(w.err, &r) {
		code, text = r.code, r.text
	} else {
		text = shown(w.err)
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
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range filters {
		codes = append(codes, c.subs.remove(f.Filter, c.who))
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
