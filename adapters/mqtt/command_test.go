package mqtt_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/mqtt"
	"github.com/sluice-iot/sluice/internal/iot"
)

// commanding is an adapter whose devices take commands.
type commanding struct {
	*world
	commands  *adapters.Commands
	announcer *adaptertest.Announcer
}

func newCommanding(t testing.TB, change func(*mqtt.Options)) *commanding {
	t.Helper()
	w := &commanding{commands: adapters.NewCommands(adapters.CommandsOptions{PerSubscription: 2000}), announcer: &adaptertest.Announcer{}}
	w.commands.AnnounceTo(w.announcer)
	w.world = newWorldOf(t, adapters.Options{Commands: w.commands}, adapters.SessionOptions{}, change)
	return w
}

// send is a command on its way; what it returns gets the outcome.
func send(to adapters.CommandHandler, c adapters.Command) <-chan error {
	outcome := make(chan error, 1)
	to.Command(&c, func(err error) { outcome <- err })
	return outcome
}

// brightness is a command for device-1 that wants a response.
func brightness(change func(*adapters.Command)) adapters.Command {
	c := adapters.Command{
		Tenant: adaptertest.Tenant, Device: adaptertest.Device, Name: "setBrightness", CorrelationID: "abc", ReplyID: "reply",
		ContentType: "application/json", Payload: []byte(`{"brightness":80}`),
	}
	if change != nil {
		change(&c)
	}
	return c
}

func oneWay(c *adapters.Command) { c.CorrelationID, c.ReplyID = "", "" }

// subscribed subscribes for commands.
func (c *client) subscribed(qos byte, filters ...string) {
	c.t.Helper()
	pk := subscribe(filters...)
	for i := range pk.Filters {
		pk.Filters[i].Qos = qos
	}
	c.send(pk)
	for i, code := range c.want(packets.Suback).ReasonCodes {
		if code != qos {
			c.t.Fatalf("subscribe %s: got code %#x, want %#x", filters[i], code, qos)
		}
	}
}

func (c *client) puback(id uint16, code byte, reason string) {
	c.t.Helper()
	c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: id, ReasonCode: code, Properties: packets.Properties{ReasonString: reason}})
}

func wantOutcome(t testing.TB, got <-chan error, want error, text string) {
	t.Helper()
	switch err := <-got; {
	case want == nil && err != nil:
		t.Errorf("got outcome %v, want accepted", err)
	case want != nil && !errors.Is(err, want), !strings.Contains(fmt.Sprint(err), text):
		t.Errorf("got outcome %v, want %v with %q", err, want, text)
	}
}

// TestCommandTopics goes through the forms of filters and what commands are sent
// to (contract: adapters 8.9).
func TestCommandTopics(t *testing.T) {
	behind := func(c *adapters.Command) { c.Device, c.Gateway = adaptertest.Device2, adaptertest.Gateway }
	of := func(d iot.DeviceID) func(*adapters.Command) { return func(c *adapters.Command) { c.Device = d } }
	for _, tt := range []struct {
		user, filter string
		command      func(*adapters.Command)
		want, reply  string
	}{
		{deviceUser, "command///req/#", nil, "command///req/" + request + "/setBrightness", "command///res/" + request + "/200"},
		{deviceUser, "c///q/#", nil, "c///q/" + request + "/setBrightness", "c///s/" + request + "/200"},
		{deviceUser, "c///q/#", oneWay, "c///q//setBrightness", ""},
		{deviceUser, "command///q/#", oneWay, "command///q//setBrightness", ""},
		{deviceUser, "c/tenant-1//req/#", oneWay, "c/tenant-1//req//setBrightness", ""},
		{deviceUser, "c/tenant-1//q/#", nil, "c/tenant-1//q/" + request + "/setBrightness", "c/tenant-1/device-1/s/" + request + "/200"},
		{deviceUser, "c//device-1/q/#", oneWay, "c//device-1/q//setBrightness", ""},
		{deviceUser, "c/tenant-1/device-1/q/#", nil, "c/tenant-1/device-1/q/" + request + "/setBrightness", "c/tenant-1/device-1/s/" + request + "/200"},
		{gatewayUser, "c//device:2/q/#", of(adaptertest.Device2), "c//device:2/q/" + request + "/setBrightness", "c//device:2/s/" + request + "/200"},
		{gatewayUser, "c//+/q/#", behind, "c//device:2/q/" + request + "/setBrightness", "c//device:2/s/" + request + "/200"},
		{gatewayUser, "c/tenant-1/+/q/#", behind, "c/tenant-1/device:2/q/" + request + "/setBrightness", "c/tenant-1/device:2/s/" + request + "/200"},
		{gatewayUser, "c//+/q/#", of(adaptertest.Gateway), "c//" + string(adaptertest.Gateway) + "/q/" + request + "/setBrightness", "c//" + string(adaptertest.Gateway) + "/s/" + request + "/200"},
		{gatewayUser, "c///q/#", of(adaptertest.Gateway), "c///q/" + request + "/setBrightness", "c///s/" + request + "/200"},
		{"", "c/tenant-1/device-1/q/#", oneWay, "c/tenant-1/device-1/q//setBrightness", ""},

		{deviceUser, "c///q/#", func(c *adapters.Command) { c.ReplyID = "device-1/r" }, "c///q/103abcr/setBrightness", "c///s/103abcr/200"},
		{deviceUser, "c///q/#", func(c *adapters.Command) { c.ReplyID = "a/b+c#d%\x01" }, "c///q/003abca%2Fb%2Bc%23d%25%01/setBrightness", "c///s/003abca%2Fb%2Bc%23d%25%01/200"},
		{deviceUser, "c///q/#", func(c *adapters.Command) { oneWay(c); c.Name = "set/Brightness" }, "c///q//set/Brightness", ""},
	} {
		for _, version := range []byte{4, 5} {
			t.Run(fmt.Sprintf("%s as %s gets %s, MQTT %d", tt.filter, tt.user, tt.want, version), func(t *testing.T) {
				w := newCommanding(t, func(o *mqtt.Options) { o.NoAuthentication = tt.user == "" })
				c := w.connected(t, version, as(tt.user, adaptertest.Password))
				for qos := range byte(2) {
					c.subscribed(qos, tt.filter)
					cmd := brightness(tt.command)
					outcome := send(w.commands, cmd)
					pk := c.want(packets.Publish)
					if h := pk.FixedHeader; pk.TopicName != tt.want || string(pk.Payload) != string(cmd.Payload) || h.Qos != qos || h.Dup || h.Retain || (pk.PacketID != 0) != (qos > 0) {
						t.Errorf("got %q to %s with %+v, want %s", pk.Payload, pk.TopicName, h, tt.want)
					}
					if p := pk.Properties; version == 5 && (p.ContentType != "application/json" || p.ResponseTopic != tt.reply) {
						t.Errorf("got content type %q, response topic %q; want %q", p.ContentType, p.ResponseTopic, tt.reply)
					}
					if qos == 1 {
						c.puback(pk.PacketID, 0, "")
					}
					wantOutcome(t, outcome, nil, "")
				}
				c.wantOpen()
			})
		}
	}
}

// TestCommandNotSent checks what becomes of commands that devices cannot get.
func TestCommandNotSent(t *testing.T) {
	for _, tt := range []struct {
		name    string
		command func(*adapters.Command)
		want    error
		text    string
	}{
		{"name with a wildcard", func(c *adapters.Command) { c.Name = "a/+/b" }, iot.ErrInvalid, "name"},
		{"name with a control character", func(c *adapters.Command) { c.Name = "a\x00" }, iot.ErrInvalid, "name"},
		{"name that is no UTF-8", func(c *adapters.Command) { c.Name = "\xff" }, iot.ErrInvalid, "name"},
		{"long name", func(c *adapters.Command) { c.Name = strings.Repeat("x", 1<<16) }, iot.ErrInvalid, "65535 bytes"},
		{"no correlation id", func(c *adapters.Command) { c.CorrelationID = "" }, iot.ErrInvalid, "correlation id"},
		{"too large", func(c *adapters.Command) { c.Payload = make([]byte, 200) }, iot.ErrTooLarge, "larger"},
		{"target with a slash", func(c *adapters.Command) { c.Device, c.Gateway = "a/b", adaptertest.Gateway }, iot.ErrInvalid, "target"},
		{"another device", func(c *adapters.Command) { c.Device = adaptertest.Device2 }, iot.ErrUnavailable, "not subscribed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newCommanding(t, nil)
			c := w.connected(t, 5, func(pk *packets.Packet) {
				as(gatewayUser, adaptertest.Password)(pk)
				pk.Properties.MaximumPacketSize = 200
			})
			for qos := range byte(2) {
				c.subscribed(qos, "c//+/q/#")
				cmd := brightness(tt.command)
				if cmd.Device == adaptertest.Device {
					cmd.Device = adaptertest.Gateway
				}
				wantOutcome(t, send(w.commands, cmd), tt.want, tt.text)
			}
			c.wantOpen()
			wantNothingLeft(t, w)
		})
	}
}

func wantNothingLeft(t testing.TB, w *commanding) {
	t.Helper()
	if n := w.commands.InFlight(); n != 0 {
		t.Errorf("%d commands have no outcome", n)
	}
}

// TestCommandProperties checks that those that are text reach clients of MQTT 5.
func TestCommandProperties(t *testing.T) {
	w := newCommanding(t, nil)
	c := w.connected(t, 5, nil)
	c.subscribed(0, "c///q/#")
	all := map[string]any{"b": "2", "a": "1", "number": 3, "bad": "\x00", "long": strings.Repeat("x", 4000), "z": strings.Repeat("y", 100)}
	wantOutcome(t, send(w.commands, brightness(func(c *adapters.Command) { c.Properties = all })), nil, "")
	got := c.want(packets.Publish).Properties.User
	if len(got) != 3 || got[0].Key != "a" || got[1].Val != "2" || got[2].Key != "long" {
		t.Errorf("got %d user properties: %.200v", len(got), got)
	}
}

// TestPuback checks that the outcome of a command of quality of service 1 is what
// the device says of it.
func TestPuback(t *testing.T) {
	w := newCommanding(t, nil)
	c := w.connected(t, 5, nil)
	c.subscribed(1, "c///q/#")
	for _, tt := range []struct {
		code   byte
		reason string
		want   error
		text   string
	}{
		{0, "", nil, ""},
		{0x10, "", nil, ""},
		{0x83, "", iot.ErrInvalid, "reason code 0x83"},
		{0x99, "broken lamp", iot.ErrInvalid, "0x99: broken lamp"},
		{0x99, strings.Repeat("x", 1000), iot.ErrInvalid, "x..."},
		{0x99, "bad \x01", iot.ErrInvalid, "0x99"},
	} {
		outcome := send(w.commands, brightness(nil))
		id := c.want(packets.Publish).PacketID
		c.puback(id+1, 0, "") // of nothing
		c.wantOpen()
		select {
		case err := <-outcome:
			t.Errorf("outcome %v before the PUBACK", err)
		default:
		}
		c.puback(id, tt.code, tt.reason)
		wantOutcome(t, outcome, tt.want, tt.text)
		c.puback(id, 0, "")
	}
	c.wantOpen()
	wantNothingLeft(t, w)
}

// TestCommandOfClientGone checks the outcome of commands whose client goes.
func TestCommandOfClientGone(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, w *commanding, c *client){
		"closes": func(_ *testing.T, _ *commanding, c *client) { c.nc.Close() },
		"DISCONNECT": func(_ *testing.T, _ *commanding, c *client) {
			c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
		},
		"taken over": func(t *testing.T, w *commanding, c *client) {
			w.connected(t, 4, func(pk *packets.Packet) { pk.Connect.ClientIdentifier = "me" })
		},
		"is wrong": func(_ *testing.T, _ *commanding, c *client) { c.send(connectPacket(4, nil)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newCommanding(t, func(o *mqtt.Options) { o.CommandAckTimeout = -1 })
			c := w.connected(t, 4, func(pk *packets.Packet) { pk.Connect.ClientIdentifier = "me" })
			c.subscribed(1, "c///q/#")
			first, second := send(w.commands, brightness(nil)), send(w.commands, brightness(nil))
			c.want(packets.Publish)
			end(t, w, c)
			wantOutcome(t, first, iot.ErrUnavailable, "connection of the device is closed")
			wantOutcome(t, second, iot.ErrUnavailable, "connection of the device is closed")
			eventually(t, "the subscription is closed", func() bool { return w.commands.Len() == 0 })
			wantOutcome(t, send(w.commands, brightness(nil)), iot.ErrUnavailable, "")
			if _, there := w.announcer.Now(adaptertest.Tenant, adaptertest.Device); there {
				t.Error("routers believe that the device can be reached")
			}
			wantNothingLeft(t, w)
		})
	}
}

// TestCommandResponse checks responses in all forms.
func TestCommandResponse(t *testing.T) {
	for _, tt := range []struct {
		user, topic string
		device      iot.DeviceID
		status      int
		reply       string
	}{
		{deviceUser, "command///res/" + request + "/200", adaptertest.Device, 200, "reply"},
		{deviceUser, "c///s/" + request + "/404/?content-type=text%2Fplain", adaptertest.Device, 404, "reply"},
		{deviceUser, "c///s/103abcx/599", adaptertest.Device, 599, "device-1/x"},
		{deviceUser, "c///s/003abca%2Fb%2Bc%23d%25%01/200", adaptertest.Device, 200, "a/b+c#d%\x01"},
		{deviceUser, "c///s/003abc%zz/200", adaptertest.Device, 200, "%zz"},
		{gatewayUser, "c//device:2/res/103abcx/200", adaptertest.Device2, 200, "device:2/x"},
		{gatewayUser, "command/tenant-1/device:2/s/" + request + "/200", adaptertest.Device2, 200, "reply"},
		{"", "c/tenant-1/device-1/s/103abcx/200", adaptertest.Device, 200, "device-1/x"},
	} {
		for qos := range uint16(2) {
			t.Run(fmt.Sprintf("%s by %s, QoS %d", tt.topic, tt.user, qos), func(t *testing.T) {
				w := newWorld(t, func(o *mqtt.Options) { o.NoAuthentication = tt.user == "" })
				c := w.connected(t, 4, as(tt.user, adaptertest.Password))
				c.send(message(tt.topic, qos*7, "done"))
				if qos == 1 {
					c.want(packets.Puback)
				}
				c.wantOpen()
				sent := w.down.Sent()
				if len(sent) != 1 {
					t.Fatalf("got %d messages, want 1", len(sent))
				}
				m := sent[0]
				if m.Endpoint != iot.CommandResponse || m.Device != tt.device || m.Status != tt.status || m.CorrelationID != "abc" || m.ReplyID != tt.reply || string(m.Payload) != "done" {
					t.Errorf("got %+v", m)
				}
			})
		}
	}
}
