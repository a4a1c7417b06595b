package mqtt_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/internal/iot"
)

// TestSubscribe checks the codes of a SUBACK, in the order of the filters.
func TestSubscribe(t *testing.T) {
	for _, tt := range []struct {
		name    string
		user    string
		filters []packets.Subscription
		v3, v5  []byte
	}{
		{"errors", deviceUser, []packets.Subscription{{Filter: "error///#"}, {Filter: "e/tenant-1/device-1/#"}}, []byte{0, 0}, []byte{0, 0}},
		{"QoS", deviceUser, []packets.Subscription{{Filter: "error///#", Qos: 1}, {Filter: "error///#"}, {Filter: "error///#", Qos: 2}}, []byte{0x80, 0, 0x80}, []byte{0x83, 0, 0x83}},
		{"malformed", deviceUser, []packets.Subscription{{Filter: "error/#"}, {Filter: "error/+/device-1/#"}, {Filter: "error//"}, {Filter: "#"}, {Filter: ""}}, bytes.Repeat([]byte{0x80}, 5), bytes.Repeat([]byte{0x8f}, 5)},
		{"commands", deviceUser, []packets.Subscription{{Filter: "command///req/#", Qos: 1}}, []byte{1}, []byte{1}},
		{"commands twice", deviceUser, []packets.Subscription{{Filter: "command///req/#", Qos: 1}, {Filter: "error///#"}, {Filter: "c/tenant-1/device-1/q/#"}}, []byte{0, 0, 0}, []byte{0, 0, 0}},
		{"commands with QoS 2", deviceUser, []packets.Subscription{{Filter: "c///q/#", Qos: 2}, {Filter: "c///req/#", Qos: 1}}, []byte{0x80, 1}, []byte{0x83, 1}},
		{"commands, malformed", deviceUser, []packets.Subscription{{Filter: "command/#"}, {Filter: "c///q"}, {Filter: "c/+//q/#"}, {Filter: "c////q/#"}, {Filter: "control///req/#"}}, bytes.Repeat([]byte{0x80}, 5), bytes.Repeat([]byte{0x8f}, 5)},
		{"commands of another tenant", deviceUser, []packets.Subscription{{Filter: "c/tenant-2/device-1/q/#"}}, []byte{0x80}, []byte{0x87}},
		{"commands of a gateway", gatewayUser, []packets.Subscription{{Filter: "c//+/q/#", Qos: 1}, {Filter: "c//device:2/q/#"}, {Filter: "c///q/#"}, {Filter: "c//device-3/q/#"}, {Filter: "c//nobody/q/#"}}, []byte{0, 0, 0, 0x80, 0x80}, []byte{0, 0, 0, 0x87, 0x87}},
		{"shared", deviceUser, []packets.Subscription{{Filter: "$share/g/error///#"}}, []byte{0x80}, []byte{0x9e}},
		{"other tenant", deviceUser, []packets.Subscription{{Filter: "error/tenant-2/device-1/#"}}, []byte{0x80}, []byte{0x87}},
		{"gateway", gatewayUser, []packets.Subscription{{Filter: "error//+/#"}, {Filter: "error//device:2/#"}, {Filter: "error//device-3/#"}, {Filter: "error//nobody/#"}}, []byte{0, 0, 0x80, 0x80}, []byte{0, 0, 0x87, 0x87}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for version, want := range map[byte][]byte{4: tt.v3, 5: tt.v5} {
				c := newCommanding(t, nil).connected(t, version, as(tt.user, adaptertest.Password))
				pk := subscribe()
				pk.Filters = tt.filters
				c.send(pk)
				ack := c.want(packets.Suback)
				if !bytes.Equal(ack.ReasonCodes, want) || ack.PacketID != 99 {
					t.Errorf("MQTT %d: got %#x for %d, want %#x", version, ack.ReasonCodes, ack.PacketID, want)
				}
				if failed := slices.Max(want) > 1; version == 5 && failed != (ack.Properties.ReasonString != "") {
					t.Errorf("got reason %q", ack.Properties.ReasonString)
				}
				c.wantOpen()
			}
		})
	}
}

// TestNoCommands checks what a client is told that subscribes for commands where
// there are none.
func TestNoCommands(t *testing.T) {
	for version, want := range map[byte]byte{4: 0x80, 5: 0x83} {
		c := newWorld(t, nil).connected(t, version, nil)
		c.send(subscribe("c///q/#"))
		if got := c.want(packets.Suback).ReasonCodes[0]; got != want {
			t.Errorf("MQTT %d: got %#x, want %#x", version, got, want)
		}
		c.wantOpen()
	}
}

// TestUnsubscribe checks that errors are reported no more.
func TestUnsubscribe(t *testing.T) {
	w := newWorld(t, nil)
	w.down.Outcome(func(*iot.Message) error { return iot.ErrNoCredit })
	c := w.connected(t, 5, nil)
	c.send(subscribe("error///#"))
	c.want(packets.Suback)
	failing := message("t/?on-error=ignore", 1, "x")
	c.send(failing)
	c.want(packets.Publish)
	c.want(packets.Puback)
	c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe}, PacketID: 5,
		Filters: packets.Subscriptions{{Filter: "e/tenant-1//#"}, {Filter: "error///#"}, {Filter: "nonsense"}}})
	ack := c.want(packets.Unsuback)
	if want := []byte{0, 0x11, 0x80}; !bytes.Equal(ack.ReasonCodes, want) || ack.PacketID != 5 {
		t.Errorf("got %#x for %d, want %#x for 5", ack.ReasonCodes, ack.PacketID, want)
	}
	c.send(failing)
	c.want(packets.Puback)
	c.wantOpen()
}

// TestQuietClient checks that a client of MQTT 5 that wants no reasons gets
// them only where it cannot refuse them.
func TestQuietClient(t *testing.T) {
	w := newWorld(t, nil)
	w.down.Outcome(func(*iot.Message) error { return iot.ErrNoCredit })
	c := w.connected(t, 5, func(pk *packets.Packet) { pk.Properties.RequestProblemInfoFlag = true })
	c.send(subscribe("nonsense"), message("t/?on-error=ignore", 1, "x"))
	if ack := c.want(packets.Suback); ack.Properties.ReasonString != "" {
		t.Errorf("SUBACK says %q", ack.Properties.ReasonString)
	}
	if ack := c.want(packets.Puback); ack.Properties.ReasonString != "" || ack.ReasonCode != 0x80 {
		t.Errorf("PUBACK %#x says %q", ack.ReasonCode, ack.Properties.ReasonString)
	}
}

// TestSmallClient checks that a client gets nothing larger than it takes.
func TestSmallClient(t *testing.T) {
	w := newWorld(t, nil)
	tiny := w.dial(t, 5)
	tiny.send(connectPacket(5, func(pk *packets.Packet) { pk.Properties.MaximumPacketSize = 8 }))
	tiny.wantClosed(0)
	w.down.Outcome(func(*iot.Message) error { return iot.ErrNoCredit })
	c := w.connected(t, 5, func(pk *packets.Packet) { pk.Properties.MaximumPacketSize = 64 })
	c.send(subscribe("error///#"), message("t", 1, "x"))
	if ack := c.want(packets.Suback); ack.ReasonCodes[0] != 0 {
		t.Errorf("got %#x", ack.ReasonCodes)
	}
	if ack := c.want(packets.Puback); ack.ReasonCode != 0x80 { // and no report before it
		t.Errorf("got PUBACK %#x", ack.ReasonCode)
	}
}
