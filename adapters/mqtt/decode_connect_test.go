package mqtt_test

import (
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters/mqtt"
)

// connectWith is a CONNECT of MQTT 5 with properties as they are, without credentials.
func connectWith(properties string) []byte {
	body := "\x00\x04MQTT\x05\x02\x00\x00" + string(rune(len(properties))) + properties + "\x00\x00"
	return append([]byte{packets.Connect << 4, byte(len(body))}, body...)
}

// TestConnectProperties: what a client of MQTT 5 must not say in its CONNECT is told to it,
// before anything else of it counts.
func TestConnectProperties(t *testing.T) {
	const twice = "twice"
	for _, tt := range []struct {
		name, properties string
		code             byte
		reason           string
	}{
		{"none", "", 0, ""},
		{"each once", "\x11\x00\x00\x00\x3c\x21\x00\x01\x27\x00\x00\x01\x00\x22\x00\x00\x19\x00\x17\x01\x26\x00\x01a\x00\x01b", 0, ""},
		{"largest limits", "\x21\xff\xff\x27\xff\xff\xff\xff", 0, ""},
		{"other values of 0", "\x11\x00\x00\x00\x00\x22\x00\x00", 0, ""},
		{"user properties", "\x26\x00\x01a\x00\x00\x26\x00\x01a\x00\x00", 0, ""},
		{"Receive Maximum 0", "\x21\x00\x00", 0x82, "Receive Maximum is 0"},
		{"Maximum Packet Size 0", "\x27\x00\x00\x00\x00", 0x82, "Maximum Packet Size is 0"},
		{"behind others", "\x26\x00\x01a\x00\x01b\x11\x00\x00\x00\x3c\x21\x00\x00", 0x82, "Receive Maximum is 0"},
		{"0 replaced by another", "\x21\x00\x00\x21\x00\x01", 0x82, "Receive Maximum is 0"},
		{"Receive Maximum twice", "\x21\x00\x01\x21\x00\x01", 0x82, twice},
		{"Maximum Packet Size twice", "\x27\x00\x00\x01\x00\x27\x00\x00\x01\x00", 0x82, twice},
		{"Session Expiry Interval twice", "\x11\x00\x00\x00\x3c\x21\x00\x01\x11\x00\x00\x00\x3c", 0x82, twice},
		{"authentication method twice", "\x15\x00\x01x\x15\x00\x01x", 0x82, twice},
		{"value cut off", "\x21\x00", 0x81, ""},
		{"name of a user property cut off", "\x26\x00\x09a", 0x81, ""},
		{"user property without value", "\x26\x00\x01a", 0x81, ""},
		{"value of a user property cut off", "\x26\x00\x01a\x00\xff", 0x81, ""},
		{"one of other packets", "\x23\x00\x01", 0x81, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, func(o *mqtt.Options) { o.NoAuthentication = true })
			c := w.dial(t, 5)
			c.write(connectWith(tt.properties))
			ack := c.want(packets.Connack)
			if ack.ReasonCode != tt.code || !strings.Contains(ack.Properties.ReasonString, tt.reason) {
				t.Errorf("got %#x %q, want %#x with %q", ack.ReasonCode, ack.Properties.ReasonString, tt.code, tt.reason)
			}
			if tt.code == 0 {
				c.wantOpen()
				return
			}
			c.wantClosed(0)
			if n := w.sessions.Len(); n != 0 {
				t.Errorf("%d sessions of a client that was refused", n)
			}
		})
	}
}
