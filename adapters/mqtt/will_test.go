package mqtt_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/mqtt"
	"github.com/sluice-iot/sluice/internal/iot"
)

func wills(o *mqtt.Options) { o.Will = true }

// TestWill checks when a will is published, and as what.
func TestWill(t *testing.T) {
	leave := func(code byte) func(*testing.T, *world, *client) {
		return func(_ *testing.T, _ *world, c *client) {
			c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ReasonCode: code})
		}
	}
	lost := func(_ *testing.T, _ *world, c *client) { c.nc.Close() }
	for _, tt := range []struct {
		name    string
		version byte
		user    string
		topic   string
		end     func(*testing.T, *world, *client)
		want    iot.DeviceID // "" = none
	}{
		{"lost", 4, deviceUser, "event/?content-type=a%2Fb", lost, adaptertest.Device},
		{"lost, MQTT 5", 5, deviceUser, "event/?content-type=a%2Fb", lost, adaptertest.Device},
		{"gateway lost", 4, gatewayUser, "e//device:2/?content-type=a%2Fb", lost, adaptertest.Device2},
		{"breaks the rules", 4, deviceUser, "e/?content-type=a%2Fb", func(_ *testing.T, _ *world, c *client) { c.write([]byte{0xff, 0}) }, adaptertest.Device},
		{"goes", 4, deviceUser, "event/?content-type=a%2Fb", leave(0), ""},
		{"goes, MQTT 5", 5, deviceUser, "event/?content-type=a%2Fb", leave(0), ""},
		{"goes with its will", 5, deviceUser, "event/?content-type=a%2Fb", leave(4), adaptertest.Device},
		{"taken over", 4, deviceUser, "event/?content-type=a%2Fb", func(t *testing.T, w *world, c *client) {
			w.connected(t, 4, withID("one"))
			c.wantClosed(0)
		}, adaptertest.Device},
		{"topic of another broker", 4, deviceUser, "devices/lwt", lost, ""},
		{"device of another gateway", 4, gatewayUser, "e//device-3", lost, ""},
		{"device removed", 4, deviceUser, "e", func(_ *testing.T, w *world, c *client) {
			w.inv.Remove(adaptertest.Device)
			w.sessions.Notice(adapters.Notice{Type: adapters.NoticeDevice, Tenant: adaptertest.Tenant, Device: adaptertest.Device})
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, wills)
			c := w.connected(t, tt.version, func(pk *packets.Packet) {
				as(tt.user, adaptertest.Password)(pk)
				withID("one")(pk)
				withWill(pk, tt.topic, 1)
			})
			tt.end(t, w, c)
			eventually(t, "the session is over", func() bool { return w.sessions.Len() == 0 || tt.name == "taken over" && len(w.down.Sent()) > 0 })
			sent := w.down.Sent()
			if tt.want == "" {
				if len(sent) != 0 {
					t.Errorf("a will was published: %s", sent[0].Address)
				}
				return
			}
			if len(sent) != 1 {
				t.Fatalf("got %d messages, want the will", len(sent))
			}
			if m := sent[0]; m.Device != tt.want || m.Endpoint != iot.Event || m.QoS != iot.AtLeastOnce || m.ContentType != "a/b" || string(m.Payload) != "gone" {
				t.Errorf("got %s of %s, QoS %d, %s %q", m.Endpoint, m.Device, m.QoS, m.ContentType, m.Payload)
			}
		})
	}
}

// TestWillIgnored checks that a will does nothing unless it is configured to.
func TestWillIgnored(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connected(t, 4, func(pk *packets.Packet) { withWill(pk, "e", 2) })
	c.nc.Close()
	eventually(t, "the session is over", func() bool { return w.sessions.Len() == 0 })
	if n := len(w.down.Sent()); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}

func TestWillTooLarge(t *testing.T) {
	large := func(pk *packets.Packet) {
		withWill(pk, "e", 1)
		pk.Connect.WillPayload = make([]byte, adapters.DefaultMaxPayload+1)
	}
	w := newWorld(t, wills)
	c := w.dial(t, 5)
	c.send(connectPacket(5, large))
	if ack := c.want(packets.Connack); ack.ReasonCode != 0x95 {
		t.Errorf("got %#x, want 0x95", ack.ReasonCode)
	}
	w.connected(t, 4, large).wantOpen()
}

func delayed(seconds, session uint32) func(*packets.Packet) {
	return func(pk *packets.Packet) {
		withID("one")(pk)
		withWill(pk, "e", 1)
		pk.Connect.WillProperties = packets.Properties{WillDelayInterval: seconds, ContentType: "text/plain"}
		pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = session, true
	}
}

func TestDelayedWill(t *testing.T) {
	w := newWorld(t, wills)
	w.connected(t, 5, delayed(1, 60)).nc.Close()
	eventually(t, "the will is published", func() bool { return len(w.down.Sent()) == 1 })
	if w.sessions.Len() != 0 {
		t.Error("the session waited for the will")
	}
	// The delay ends with the session.
	w.connected(t, 5, delayed(3600, 0)).nc.Close()
	eventually(t, "the will is published", func() bool { return len(w.down.Sent()) == 2 })
}

// TestDelayedWillForgotten: who is back in time has no will, nor has who waits
// while the adapter stops.
func TestDelayedWillForgotten(t *testing.T) {
	w := newWorld(t, wills)
	w.connected(t, 5, delayed(3600, 3600)).nc.Close()
	eventually(t, "the session is over", func() bool { return w.sessions.Len() == 0 })
	anew := w.connected(t, 5, delayed(3600, 3600))
	other := w.connected(t, 5, delayed(3600, 3600)) // takes over
	anew.wantClosed(0x8e)
	other.nc.Close()
	eventually(t, "the sessions are over", func() bool { return w.sessions.Len() == 0 })
	if err := w.adapter.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	if n := len(w.down.Sent()); n != 0 {
		t.Errorf("%d wills were published", n)
	}
}

// TestDelayedWillsOfOneDevice: a device whose clients do not come back must not
// take all the places of wills that wait.
func TestDelayedWillsOfOneDevice(t *testing.T) {
	const most = 16
	w := newWorld(t, wills)
	lose := func(i int) {
		t.Helper()
		w.connected(t, 5, func(pk *packets.Packet) {
			delayed(3600, 3600)(pk)
			withID(fmt.Sprint("client-", i))(pk)
		}).nc.Close()
		eventually(t, "the session is over", func() bool { return w.sessions.Len() == 0 })
	}
	for i := range most {
		lose(i)
	}
	if n := len(w.down.Sent()); n != 0 {
		t.Fatalf("%d wills were published", n)
	}
	lose(0) // in the place that it had
	lose(most)
	eventually(t, "one more is published at once", func() bool { return len(w.down.Sent()) == 1 })
	w.connected(t, 5, withID("client-1")).nc.Close() // leaves its place
	eventually(t, "the session is over", func() bool { return w.sessions.Len() == 0 })
	lose(most)
	if n := len(w.down.Sent()); n != 1 {
		t.Errorf("%d wills were published, want 1", n)
	}
}

func TestNoWillsAtShutdown(t *testing.T) {
	w := newWorld(t, wills)
	c := w.connected(t, 4, func(pk *packets.Packet) { withWill(pk, "e", 1) })
	if err := w.adapter.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	c.wantClosed(0)
	if n := len(w.down.Sent()); n != 0 {
		t.Errorf("%d wills were published", n)
	}
}
