package mqtt

import (
	"bytes"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
)

// Bounds of the wills that wait for their time: what is too much for them is
// published at once. A device whose clients never come back must not take the
// places of others, nor memory for years.
const (
	maxWills        = 10_000
	maxWillsOfOne   = 16 // device
	longestWillWait = 24 * time.Hour
)

// will is what a client wants to be published when it is lost.
type will struct {
	publication
	err     error // of its topic or properties: there will be nothing to publish
	payload []byte
	qos     byte
	retain  bool
	delay   time.Duration
}

// delayedWill is the will of a client that is gone and may come back.
type delayedWill struct{ timer *time.Timer }

// takeWill keeps the will of a CONNECT. Whether its topic leads anywhere shows
// when it is published: devices that use other topics with other brokers have
// to get in.
func (c *conn) takeWill(pk *packets.Packet) error {
	p := &pk.Connect
	switch {
	case !p.WillFlag:
		return nil
	case p.WillTopic == "" || strings.ContainsAny(p.WillTopic, "+#"):
		return &fault{packets.ErrTopicNameInvalid.Code, "topic of the will is empty or has a wildcard"}
	case c.version == 5 && p.WillQos > 1:
		return &fault{packets.ErrQosNotSupported.Code, "quality of service of the will: want 0 or 1"}
	case !c.a.o.Will:
		return nil
	case len(p.WillPayload) > c.a.o.Pipeline.MaxPayload():
		if c.version == 5 {
			return &fault{packets.ErrPacketTooLarge.Code, "payload of the will is too large"}
		}
		return nil // MQTT 3.1.1 has no way to say so, and the device shall get in
	}
	w := &will{payload: bytes.Clone(p.WillPayload), qos: min(p.WillQos, 1), retain: p.WillRetain}
	props := &p.WillProperties
	props.ContentType = strings.Clone(props.ContentType)
	for i := range props.User {
		props.User[i].Key, props.User[i].Val = strings.Clone(props.User[i].Key), strings.Clone(props.User[i].Val)
	}
	w.publication, w.err = readPublication(strings.Clone(p.WillTopic), props)
	// The delay ends with the session, whose expiry a client asks for.
	w.delay = min(time.Duration(min(props.WillDelayInterval, pk.Properties.SessionExpiryInterval))*time.Second, longestWillWait)
	c.will = w
	return nil
}

// takeOver makes c the client of its identifier. One that has it already goes,
// and a will that waits for this client to come back is forgotten.
func (a *Adapter) takeOver(c *conn) {
	key := clientKey{c.who, c.id}
	a.mu.Lock()
	old := a.clients[key]
	a.clients[key] = c
	a.forgetWill(key)
	a.mu.Unlock()
	if old == nil {
		return
	}
	old.mu.Lock()
	old.back = true
	old.end(packets.ErrSessionTakenOver.Code, "another client with this identifier has connected")
	old.mu.Unlock()
}

// leaveSession ends the session of a client that is gone, and publishes its
// will unless it said goodbye or the adapter stops.
func (c *conn) leaveSession() {
	defer c.session.Close()
	c.tellDisconnected()
	key := clientKey{c.who, c.id}
	c.a.mu.Lock()
	if c.a.clients[key] == c {
		delete(c.a.clients, key)
	}
	stopping := c.a.stopping
	c.a.mu.Unlock()
	c.mu.Lock()
	connected, back := c.connected, c.back
	c.mu.Unlock()
	w := c.will
	switch {
	case w == nil || c.goodbye || stopping || !connected || back && w.delay > 0:
		return
	case w.err != nil:
		c.debug("will not published", "err", w.err)
		return
	}
	who, err := c.admit(w.tenant, w.device)
	if err != nil {
		c.debug("will not published", "err", err)
		return
	}
	if w.delay == 0 || !c.a.delayWill(key, c, who) {
		c.publishWill(who)
	}
}

// publishWill waits for what becomes of it.
func (c *conn) publishWill(who adapters.Admission) {
	w := c.will
	up, done := w.upload(w.qos, w.retain, w.payload), make(chan error, 1)
	if err := w.respond(up, c.who); err != nil {
		done <- err
	} else {
		c.a.o.Pipeline.Submit(who, up, func(err error) { done <- err })
	}
	if err := <-done; err != nil {
		c.debug("will not published", "err", err)
	}
}

// delayWill publishes the will of c later, unless its client comes back; false
// where too many wait already.
func (a *Adapter) delayWill(key clientKey, c *conn, who adapters.Admission) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.stopping || a.clients[key] != nil:
		return true
	}
	a.forgetWill(key)
	if len(a.wills) >= maxWills || !key.anonymous() && a.willsOf[key.owner] >= maxWillsOfOne {
		return false
	}
	d := new(delayedWill)
	d.timer = time.AfterFunc(c.will.delay, func() {
		a.mu.Lock()
		due := a.wills[key] == d && !a.stopping
		if due {
			a.forgetWill(key)
			a.wg.Add(1)
		}
		a.mu.Unlock()
		if due {
			defer a.wg.Done()
			c.publishWill(who)
		}
	})
	a.wills[key] = d
	a.willsOf[key.owner]++
	return true
}

// forgetWill takes back the will of key that waits, if there is one. a.mu is held.
func (a *Adapter) forgetWill(key clientKey) {
	w := a.wills[key]
	if w == nil {
		return
	}
	w.timer.Stop()
	delete(a.wills, key)
	if a.willsOf[key.owner]--; a.willsOf[key.owner] == 0 {
		delete(a.willsOf, key.owner)
	}
}
