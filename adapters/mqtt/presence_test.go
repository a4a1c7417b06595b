package mqtt_test

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/mqtt"
	"github.com/sluice-iot/sluice/internal/iot"
)

func unsubscribe(filters ...string) *packets.Packet {
	pk := subscribe(filters...)
	pk.FixedHeader.Type = packets.Unsubscribe
	return pk
}

// wantTTDs wants these notifications to have left, each of its device.
func wantTTDs(t *testing.T, w *piped, want ...string) {
	t.Helper()
	synctest.Wait()
	var got []string
	for _, m := range w.down.Sent() {
		if m.ContentType == adapters.EmptyNotification {
			got = append(got, fmt.Sprintf("%s %d", m.Device, *m.TTD))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got notifications %v, want %v", got, want)
	}
}

// TestSubscriptionNotifies checks that applications hear of a subscription before
// the client does, once, and of its end.
func TestSubscriptionNotifies(t *testing.T) {
	withPipes(t, nil, func(t *testing.T, w *piped) {
		c := w.connected(t, 5, as(gatewayUser, adaptertest.Password))
		routers := w.announcer.Hold()
		c.send(subscribe("c//+/q/#"))
		synctest.Wait()
		early := send(w.commands, brightness(func(c *adapters.Command) { c.Device = adaptertest.Gateway; oneWay(c) }))
		c.want(packets.Publish) // the client may get commands before it has its SUBACK
		wantOutcome(t, early, nil, "")
		wantTTDs(t, w)
		routers()
		c.want(packets.Suback)
		wantTTDs(t, w, "gateway-1 -1")
		if m := w.down.Sent()[0]; m.Address != "c//+/q/#" || m.Adapter != mqtt.Type {
			t.Errorf("got notification %+v", m)
		}

		c.subscribed(1, "c//device:2/q/#")
		c.subscribed(1, "c///req/#") // in the place of the first
		wantTTDs(t, w, "gateway-1 -1", "device:2 -1", "gateway-1 -1")
		if a, _ := w.announcer.Now(adaptertest.Tenant, adaptertest.Gateway); a.All {
			t.Error("routers believe that the gateway takes the commands of all its devices")
		}
		c.send(unsubscribe("c//+/q/#", "c//+/q/#"))
		if ack := c.want(packets.Unsuback); ack.ReasonCodes[0] != 0 || ack.ReasonCodes[1] != 0x11 {
			t.Errorf("got %#x", ack.ReasonCodes)
		}
		wantTTDs(t, w, "gateway-1 -1", "device:2 -1", "gateway-1 -1", "gateway-1 0")
		c.nc.Close()
		wantTTDs(t, w, "gateway-1 -1", "device:2 -1", "gateway-1 -1", "gateway-1 0", "device:2 0")
	})
}

// TestResubscribe checks that a subscription takes the place of an earlier one, whose
// commands keep their way.
func TestResubscribe(t *testing.T) {
	withPipes(t, nil, func(t *testing.T, w *piped) {
		c := w.connected(t, 4, nil)
		c.subscribed(1, "c///q/#")
		first := send(w.commands, brightness(nil))
		id := c.want(packets.Publish).PacketID
		c.subscribed(0, "command/tenant-1//req/#")
		second := send(w.commands, brightness(oneWay))
		if pk := c.want(packets.Publish); pk.TopicName != "command/tenant-1//req//setBrightness" {
			t.Errorf("got %s", pk.TopicName)
		}
		wantOutcome(t, second, nil, "")
		c.puback(id, 0, "")
		wantOutcome(t, first, nil, "")
		if n := w.commands.Len(); n != 1 {
			t.Errorf("%d subscriptions are open, want 1", n)
		}
		wantTTDs(t, w, "device-1 -1", "device-1 -1")
	})
}

// TestTakenOver checks that a device that has subscribed anew on another connection
// is not said to be gone when the first one ends.
func TestTakenOver(t *testing.T) {
	withPipes(t, func(o *mqtt.Options) { o.ConnectionEvents = mqtt.ConnectionsSent }, func(t *testing.T, w *piped) {
		me := func(pk *packets.Packet) { pk.Connect.ClientIdentifier = "me" }
		old := w.connected(t, 5, me)
		old.subscribed(1, "c///q/#")
		outcome := send(w.commands, brightness(nil))
		old.want(packets.Publish)
		c := w.connected(t, 5, me)
		wantOutcome(t, outcome, iot.ErrUnavailable, "")
		c.subscribed(1, "c///q/#")
		old.wantClosed(0x8e)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := ttds(w.down); got[len(got)-1] != -1 || w.commands.Len() != 1 {
			t.Errorf("notifications %v, %d subscriptions", got, w.commands.Len())
		}
		if got := causes(w.down); !slices.Equal(got, []string{"connected", "connected"}) {
			t.Errorf("got connection events %v", got)
		}
	})
}

// TestManySubscriptions checks that those of one SUBSCRIBE wait for routers together.
func TestManySubscriptions(t *testing.T) {
	withPipes(t, func(o *mqtt.Options) { o.NoAuthentication = true }, func(t *testing.T, w *piped) {
		c := w.connected(t, 5, nil)
		w.announcer.Hold() // no router answers
		var filters []string
		for range 10 {
			filters = append(filters, "c/tenant-1/device-1/q/#", "c/tenant-1/device:2/q/#")
		}
		start := time.Now()
		c.subscribed(1, filters...)
		if d := time.Since(start); d != 500*time.Millisecond {
			t.Errorf("SUBACK came after %s", d)
		}
		wantTTDs(t, w, "device-1 -1", "device:2 -1")
	})
}

// causes are those of the connection events that left.
func causes(down *adaptertest.Downstream) (all []string) {
	for _, m := range down.Sent() {
		if m.ContentType != "application/vnd.eclipse-hono-dc-notification+json" {
			continue
		}
		var event struct {
			Cause, Source string
			RemoteID      string `json:"remote-id"`
		}
		if err := json.Unmarshal(m.Payload, &event); err != nil || event.Source != mqtt.Type || event.RemoteID != "me" || m.Device != adaptertest.Device {
			event.Cause = fmt.Sprintf("%q of %s: %v", m.Payload, m.Device, err)
		}
		all = append(all, event.Cause)
	}
	return all
}

// TestConnectionEvents checks when applications are told that devices connect and
// disconnect (contract: adapters 14).
func TestConnectionEvents(t *testing.T) {
	gone := adapters.Notice{Type: adapters.NoticeDevice, Tenant: adaptertest.Tenant, Device: adaptertest.Device, Change: "DELETE"}
	for _, tt := range []struct {
		name      string
		events    mqtt.ConnectionEvents
		anonymous bool
		end       func(t *testing.T, w *piped, c *client)
		want      []string
		ttd       int // of the last notification
	}{
		{"closed", mqtt.ConnectionsSent, false, func(_ *testing.T, _ *piped, c *client) { c.nc.Close() }, []string{"connected", "disconnected"}, 0},
		{"keep-alive", mqtt.ConnectionsSent, false, func(*testing.T, *piped, *client) { time.Sleep(time.Hour) }, []string{"connected", "disconnected"}, 0},
		{"logged", mqtt.ConnectionsLogged, false, func(_ *testing.T, _ *piped, c *client) { c.nc.Close() }, nil, 0},
		{"ignored", mqtt.ConnectionsIgnored, false, func(_ *testing.T, _ *piped, c *client) { c.nc.Close() }, nil, 0},
		{"anonymous", mqtt.ConnectionsSent, true, func(_ *testing.T, _ *piped, c *client) { c.nc.Close() }, nil, 0},
		{"device removed", mqtt.ConnectionsSent, false, func(_ *testing.T, w *piped, c *client) {
			w.sessions.Notice(gone)
			c.wantClosed(0x87)
		}, []string{"connected"}, -1},
		{"adapter stops", mqtt.ConnectionsSent, false, func(t *testing.T, w *piped, c *client) {
			go w.adapter.Shutdown(t.Context())
			c.wantClosed(0x8b)
		}, []string{"connected"}, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withPipes(t, func(o *mqtt.Options) { o.ConnectionEvents, o.NoAuthentication = tt.events, tt.anonymous }, func(t *testing.T, w *piped) {
				c := w.connected(t, 5, func(pk *packets.Packet) { pk.Connect.ClientIdentifier, pk.Connect.Keepalive = "me", 60 })
				c.subscribed(1, "c/tenant-1/device-1/q/#")
				tt.end(t, w, c)
				time.Sleep(time.Minute)
				synctest.Wait()
				if got := causes(w.down); !slices.Equal(got, tt.want) {
					t.Errorf("got %v, want %v", got, tt.want)
				}
				if got := ttds(w.down); got[len(got)-1] != tt.ttd {
					t.Errorf("got notifications %v, want %d at the end", got, tt.ttd)
				}
			})
		})
	}
}

// TestConnectionEventRefused checks that nobody is let in of whom applications
// cannot be told, and that they are not told later.
func TestConnectionEventRefused(t *testing.T) {
	for version, code := range map[byte]byte{4: 3, 5: 0x88} {
		for _, refusal := range []error{iot.ErrInvalid, iot.ErrNoCredit, iot.ErrUnavailable} {
			withPipes(t, func(o *mqtt.Options) { o.ConnectionEvents = mqtt.ConnectionsSent }, func(t *testing.T, w *piped) {
				w.down.Outcome(func(*iot.Message) error { return refusal })
				near, far := net.Pipe()
				w.conns <- far
				c := newClient(t, near, version)
				near.SetDeadline(time.Time{})
				c.send(connectPacket(version, nil))
				if ack := c.want(packets.Connack); ack.ReasonCode != code {
					t.Errorf("MQTT %d: got %#x, want %#x", version, ack.ReasonCode, code)
				}
				c.wantClosed(0)
				synctest.Wait()
				time.Sleep(time.Minute)
				if n := w.sessions.Len(); n != 0 {
					t.Errorf("%d sessions are left", n)
				}
				if n := len(w.down.Sent()); n != 1 {
					t.Errorf("%v: sent %d times, want once", refusal, n)
				}
			})
		}
	}
}

// TestLastNotification checks that applications hear of the end of a client that was
// silent for longer than the assertion holds that it came in with.
func TestLastNotification(t *testing.T) {
	withPipes(t, func(o *mqtt.Options) { o.ConnectionEvents = mqtt.ConnectionsSent }, func(t *testing.T, w *piped) {
		c := w.connected(t, 4, nil)
		c.subscribed(1, "c///q/#")
		time.Sleep(25 * time.Hour)
		c.nc.Close()
		wantTTDs(t, w, "device-1 -1", "device-1 0")
		sent := w.down.Sent()
		if len(sent) != 4 {
			t.Fatalf("got %d events, want 4", len(sent))
		}
		for i, m := range sent {
			if (m.Assertion == sent[0].Assertion) != (i < 2) {
				t.Errorf("event %d has assertion %s, the first one %s", i, m.Assertion, sent[0].Assertion)
			}
		}
	})
}

// TestSubscribingTogether checks that who subscribes too often is told so, and that what is
// granted is told to applications before.
func TestSubscribingTogether(t *testing.T) {
	withPipes(t, nil, func(t *testing.T, w *piped) {
		var clients []*client
		for range 50 {
			c := w.connected(t, 5, nil)
			c.send(subscribe("c///q/#"))
			clients = append(clients, c)
		}
		codes := make(map[byte]int)
		for _, c := range clients {
			ack := c.want(packets.Suback)
			codes[ack.ReasonCodes[0]]++
			if code := ack.ReasonCodes[0]; code == 0x97 != (ack.Properties.ReasonString != "") {
				t.Errorf("got %#x %q, want a reason of what is refused", code, ack.Properties.ReasonString)
			}
		}
		if got := codes[0x97]; got != 11 || len(codes) != 2 {
			t.Errorf("got codes %v, want 0x97 for 11 of 50", codes)
		}
		synctest.Wait()
		if got := len(ttds(w.down)); got != 39 {
			t.Errorf("%d notifications, want 39", got)
		}
	})
}
