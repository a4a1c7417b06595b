package mqtt

import (
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

// maxString bounds a string of MQTT in bytes.
const maxString = 1<<16 - 1

// Why commands do not get to the client: those that wrap iot.ErrInvalid or
// iot.ErrTooLarge are rejected, the others released (contract: adapters 6.4).
var (
	errGone       = iot.Errorf(iot.ErrUnavailable, "the connection of the device is closed")
	errSlow       = iot.Errorf(iot.ErrUnavailable, "the device does not read what is sent to it")
	errNoPlace    = iot.Errorf(iot.ErrUnavailable, "too many commands wait for the device to acknowledge others")
	errNoPuback   = iot.Errorf(iot.ErrTimeout, "the device did not acknowledge the command in time")
	errName       = iot.Errorf(iot.ErrInvalid, "malformed command: its name cannot be part of a topic")
	errTarget     = iot.Errorf(iot.ErrInvalid, "malformed command: its target cannot be part of a topic")
	errLongName   = iot.Errorf(iot.ErrInvalid, "malformed command: name, target and request id make a topic of more than %d bytes", maxString)
	errLargePiece = iot.Errorf(iot.ErrTooLarge, "the command is larger than the device takes")
)

// delivery is one command on its way to the client. Guarded by conn.mu but for
// what does not change.
type delivery struct {
	sub   *subscription
	cmd   *adapters.Command
	topic string
	reply string // topic of the response, for clients of MQTT 5; "" = none
	done  func(error)

	inFlight
}

// deliver hands a command to the client (contract: adapters 8.9).
func (s *subscription) deliver(cmd *adapters.Command, done func(error)) {
	c := s.c
	defer func() {
		if p := recover(); p != nil { // it is the goroutine of a router's connection
			c.log().Error("delivery of a command panicked", "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			done(iot.Errorf(iot.ErrUnavailable, adapters.TextUnavailable))
		}
	}()
	d, err := s.delivery(cmd)
	if err == nil {
		d.done = done
		err = c.takeCommand(d)
	}
	if err != nil {
		c.debug("command not delivered", "for", cmd.Device, "err", err)
		done(err)
	}
}

// delivery finds the topic of a command:
//
//	command|c / [tenant] / [device] / req|q / [request id] / name
//
// as the filter spells it. The device is the target where a gateway takes the
// commands of all its devices.
func (s *subscription) delivery(cmd *adapters.Command) (*delivery, error) {
	device := s.device
	if cmd.Gateway != "" || device == "+" {
		device = string(cmd.Device)
	}
	switch {
	case !isTopicPart(cmd.Name):
		return nil, errName
	case !isTopicPart(device) || strings.Contains(device, "/"):
		return nil, errTarget
	}
	d := &delivery{sub: s, cmd: cmd}
	request := ""
	if !cmd.OneWay() {
		id, err := cmd.RequestID()
		if err != nil {
			return nil, err
		}
		request = escapeSegment(id, true) // an application chooses what is in it
		if s.c.version == 5 {
			d.reply = s.responseTopic(device, request)
		}
	}
	d.topic = strings.Join([]string{s.spelling, s.tenant, device, s.verb, request, cmd.Name}, "/")
	if len(d.topic) > maxString || len(d.reply) > maxString || len(cmd.ContentType) > maxString {
		return nil, errLongName
	}
	return d, nil
}

// responseTopic is where a client of MQTT 5 that knows nothing of status codes
// sends a response that all is well.
func (s *subscription) responseTopic(device, request string) string {
	if s.tenant != "" && device == "" {
		device = string(s.key.device) // a client may not publish with its tenant alone
	}
	verb := "res"
	if s.verb == "q" {
		verb = "s"
	}
	return strings.Join([]string{s.spelling, s.tenant, device, verb, request, "200"}, "/")
}

// isTopicPart reports whether s may be in the name of a topic.
func isTopicPart(s string) bool { return !strings.ContainsAny(s, "+#") && plainText(s) }

// packet fills pk with the PUBLISH of a command. Of its properties clients of
// MQTT 5 get those that are text, as long as there is room.
func (d *delivery) packet(pk *packets.Packet, version byte) {
	*pk = packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: d.sub.qos},
		PacketID:    d.id, TopicName: d.topic, Payload: d.cmd.Payload,
	}
	if version < 5 {
		return
	}
	pk.Mods.AllowResponseInfo = true // else the codec leaves the response topic out
	p := &pk.Properties
	if plainText(d.cmd.ContentType) {
		p.ContentType = d.cmd.ContentType
	}
	p.ResponseTopic = d.reply
	size := 0
	for _, name := range slices.Sorted(maps.Keys(d.cmd.Properties)) {
		value, ok := d.cmd.Properties[name].(string)
		if !ok || !plainText(name) || !plainText(value) {
			continue
		}
		if size += len(name) + len(value); size > maxUserPropertiesSize || len(p.User) == maxUserProperties {
			break
		}
		p.User = append(p.User, packets.UserProperty{Key: name, Val: value})
	}
}

// takeCommand sends a command, or lets it wait for its turn. After an error
// nothing was sent and nothing will be.
func (c *conn) takeCommand(d *delivery) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.leaving || c.out.broken {
		return errGone
	}
	if err := c.unexpired(); err != nil {
		c.end(err.(*fault).code, err.Error())
		return errGone
	}
	if d.sub.qos == 0 {
		return c.sendOnce(d)
	}
	return c.sendAcknowledged(d)
}

// sendCommand appends the PUBLISH of a command to what is to be sent. c.mu is held.
func (c *conn) sendCommand(d *delivery) error {
	if b := c.out.buf; b != nil && b.Len() > 0 && b.Len()+len(d.topic)+len(d.cmd.Payload) > maxOut {
		return errSlow
	}
	b := c.outBuffer()
	if b == nil {
		return errGone
	}
	before := b.Len()
	pk := packetBuffer.Get().(*packets.Packet)
	defer packetBuffer.Put(pk)
	d.packet(pk, c.version)
	if !c.send(pk) {
		return errLargePiece
	}
	c.out.commands += b.Len() - before
	c.kick()
	return nil
}
