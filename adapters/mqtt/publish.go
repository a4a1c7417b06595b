package mqtt

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

var (
	errQoS       = iot.Errorf(iot.ErrInvalid, "unsupported quality of service: want 0 or 1")
	errTooLarge  = iot.Errorf(iot.ErrTooLarge, "payload is too large")
	packetBuffer = sync.Pool{New: func() any { return new(packets.Packet) }}
	ops          sync.Pool
)

// maxRemembered bounds the topic in bytes that a connection keeps for its next PUBLISH.
const maxRemembered = 256

// op is one PUBLISH on its way. It is answered in the order of the PUBLISHes.
type op struct {
	c       *conn
	pub     *publication
	up      adapters.Upload
	payload []byte // memory of up.Payload
	qos     byte
	id      uint16
	done    func(error) // finish

	// Guarded by c.mu.
	next     *op
	settled  bool
	terminal bool
	err      error
}

func newOp() *op {
	if o, ok := ops.Get().(*op); ok {
		return o
	}
	o := new(op)
	o.done = o.finish
	return o
}

// flight is what is on its way, in the order in which it came. Guarded by conn.mu.
type flight struct {
	first, last *op
	n           int
}

// publish takes a PUBLISH and sends it on. Its outcome is told later.
func (c *conn) publish(h header, body []byte) error {
	if free, err := c.place(); !free {
		return err
	}
	pk := packetBuffer.Get().(*packets.Packet)
	defer packetBuffer.Put(pk)
	*pk = packets.Packet{FixedHeader: h.FixedHeader, ProtocolVersion: c.version}
	if err := c.decode(pk, body); err != nil {
		return err
	}
	if err := checkPublish(pk); err != nil {
		return err
	}
	o := newOp()
	o.c, o.qos, o.id = c, h.Qos, pk.PacketID
	pub, err := c.read(pk)
	o.pub = pub
	c.board(o)
	if err == nil && len(pk.Payload) > c.a.o.Pipeline.MaxPayload() {
		err = errTooLarge
	}
	if err == nil && o.qos > 1 {
		err = errQoS
	}
	if err != nil {
		o.finish(err)
		return nil
	}
	o.payload = append(o.payload[:0], pk.Payload...)
	o.up = *pub.upload(h.Qos, h.Retain, o.payload)
	if err := pub.respond(&o.up, c.who); err != nil {
		o.finish(err)
		return nil
	}
	who, err := c.admit(pub.tenant, pub.device)
	if err != nil {
		o.finish(err)
		return nil
	}
	c.a.o.Pipeline.Submit(who, &o.up, o.done)
	return nil
}

// checkPublish finds what breaks the rules of MQTT.
func checkPublish(pk *packets.Packet) error {
	switch {
	case pk.FixedHeader.Qos > 0 && pk.PacketID == 0:
		return &fault{packets.ErrProtocolViolation.Code, "packet identifier is 0"}
	case pk.Properties.TopicAliasFlag:
		return &fault{packets.ErrTopicAliasInvalid.Code, "topic aliases are not available"}
	case len(pk.Properties.SubscriptionIdentifier) > 0:
		return &fault{packets.ErrProtocolViolation.Code, "a client sends no subscription identifier"}
	case strings.ContainsAny(pk.TopicName, "+#"):
		return &fault{packets.ErrTopicNameInvalid.Code, "topic has a wildcard"}
	}
	return nil
}

// read finds out what a PUBLISH says. With an error the publication holds what
// was understood. It is not changed any more.
func (c *conn) read(pk *packets.Packet) (*publication, error) {
	p := &pk.Properties
	plain := p.ContentType == "" && p.MessageExpiryInterval == 0 && len(p.User) == 0
	if plain && c.last != nil && c.last.address == pk.TopicName {
		return c.last, nil
	}
	p.ContentType = strings.Clone(p.ContentType)
	for i := range p.User {
		p.User[i].Key, p.User[i].Val = strings.Clone(p.User[i].Key), strings.Clone(p.User[i].Val)
	}
	pub, err := readPublication(strings.Clone(pk.TopicName), p)
	if plain && err == nil && len(pub.address) <= maxRemembered && pub.endpoint != iot.CommandResponse {
		c.last = &pub
	}
	return &pub, err
}

// admit lets the device in whose message it is. What it cannot tell at once it
// waits for, and the messages behind it do.
func (c *conn) admit(tenant iot.TenantID, device iot.DeviceID) (adapters.Admission, error) {
	who, ok, err := c.session.TryAdmit(tenant, device)
	if ok {
		return who, err
	}
	c.uncork()
	return c.session.Admit(c.a.ctx, tenant, device)
}

// place waits until there is a place in flight; false when nothing more is taken. Of a
// connection that leaves while its client has commands to acknowledge, messages are dropped:
// acknowledgements come behind them.
func (c *conn) place() (free bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.flight.n >= c.a.o.MaxInFlight && !c.ended && !c.leaving {
		c.out.corked = false
		c.kick()
		c.cond.Wait()
	}
	for c.leaving && !c.ended { // what is in flight is still answered
		if c.commands.waited() {
			return false, nil
		}
		c.out.corked = false
		c.kick()
		c.cond.Wait()
	}
	if c.ended {
		return false, errConnEnded
	}
	return true, nil
}

// board puts o at the end of what is in flight.
func (c *conn) board(o *op) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flight.last == nil {
		c.flight.first = o
	} else {
		c.flight.last.next = o
	}
	c.flight.last = o
	c.flight.n++
}

// finish takes the outcome of o and answers whatever may be answered by now.
func (o *op) finish(err error) {
	c := o.c
	terminal := err != nil && c.session.Terminal(o.pub.device, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	o.settled, o.err, o.terminal = true, err, terminal
	for first := c.flight.first; first != nil && first.settled; first = c.flight.first {
		if first.err == nil {
			c.acknowledge(first)
		} else {
			c.answer(first)
		}
		if c.flight.first = first.next; c.flight.first == nil {
			c.flight.last = nil
		}
		c.flight.n--
		first.recycle()
	}
	c.left()
	c.kick()
	c.cond.Broadcast()
}

func (o *op) recycle() {
	payload, done := o.payload, o.done
	if cap(payload) > maxKept {
		payload = nil
	}
	*o = op{payload: payload, done: done}
	ops.Put(o)
}

// acknowledge tells the client that its PUBLISH went well. c.mu is held.
func (c *conn) acknowledge(o *op) {
	if o.qos == 1 {
		c.puback(o.id)
	}
}

// answer tells the client that its PUBLISH failed (contract: adapters 8.7).
// c.mu is held, by a goroutine that must not end because of what the client
// wrote into its topic.
func (c *conn) answer(o *op) {
	defer func() {
		if p := recover(); p != nil {
			c.log().Error("report of an error panicked", "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.end(packets.ErrUnspecifiedError.Code, "internal error")
		}
	}()
	f := failure{publication: o.pub, who: c.who, packetID: o.id, err: o.err, at: time.Now()}
	sub := c.subs.errorsOf(o.pub.tenant, o.pub.device, c.who)
	r := react(o.pub.onError, o.qos, sub != nil, o.terminal)
	c.debug("message refused", "endpoint", o.pub.endpoint, "for", o.pub.device, "close", r.close, "err", o.err)
	if errors.Is(o.err, iot.ErrTooLarge) {
		c.end(packets.ErrPacketTooLarge.Code, shown(o.err))
		return
	}
	if r.report {
		topic, payload := f.report(sub)
		c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: topic, Payload: payload})
	}
	switch {
	case r.close:
		c.end(disconnectOf(o.err, o.qos), shown(o.err))
	case r.puback:
		c.refuseUpload(o)
	}
}

// refuseUpload acknowledges a PUBLISH that failed: MQTT 3.1.1 cannot say so.
func (c *conn) refuseUpload(o *op) {
	if c.version < 5 {
		c.puback(o.id)
		return
	}
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: o.id, ReasonCode: pubackFailed}
	if !c.quiet {
		pk.Properties.ReasonString = reasonString(shown(o.err))
	}
	c.send(&pk)
}
