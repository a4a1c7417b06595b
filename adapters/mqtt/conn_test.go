package mqtt_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/mqtt"
	"github.com/sluice-iot/sluice/internal/iot"
)

func withID(id string) func(*packets.Packet) {
	return func(pk *packets.Packet) { pk.Connect.ClientIdentifier = id }
}

func TestKeepAlive(t *testing.T) {
	for _, version := range []byte{4, 5} {
		w := newWorld(t, nil)
		c := w.connected(t, version, func(pk *packets.Packet) { pk.Connect.Keepalive = 1 })
		last := time.Now()
		c.wantClosed(0x8d)
		if silent := time.Since(last); silent < time.Second {
			t.Errorf("closed after %s of silence, with a keep-alive of one second", silent)
		}
		eventually(t, "the session is over", func() bool { return w.sessions.Len() == 0 })
	}
}

func TestTakeOver(t *testing.T) {
	for _, version := range []byte{4, 5} {
		w := newWorld(t, nil)
		old := w.connected(t, version, withID("same"))
		other := w.connected(t, version, withID("other"))
		device2 := w.connected(t, version, func(pk *packets.Packet) {
			withID("same")(pk)
			as("device-3@tenant-1", adaptertest.Password)(pk)
		})
		anew := w.connected(t, version, withID("same"))
		old.wantClosed(0x8e)
		for _, c := range []*client{other, device2, anew} {
			c.wantOpen()
		}
		eventually(t, "the old session is over", func() bool { return w.sessions.Len() == 3 })
		again := w.connected(t, version, withID("same"))
		anew.wantClosed(0x8e)
		again.wantOpen()
	}
}

// TestViolations checks that breaking the rules of MQTT ends the connection,
// for the reason that MQTT 5 names.
func TestViolations(t *testing.T) {
	long := strings.Repeat("\x00\x01x", 300)
	for _, tt := range []struct {
		name   string
		v4, v5 string // packets; "" = there is none
		code   byte
	}{
		{"a second CONNECT", string(encode(t, connectPacket(4, nil))), string(encode(t, connectPacket(5, nil))), 0x82},
		{"AUTH", "", "\xf0\x02\x19\x00", 0x8c},
		{"CONNACK", "\x20\x02\x00\x00", "\x20\x03\x00\x00\x00", 0x82},
		{"PUBREL", "\x62\x02\x00\x01", "\x62\x02\x00\x01", 0x82},
		{"reserved type", "\x00\x00", "\x00\x00", 0x82},
		{"PUBLISH with QoS 3", "\x36\x05\x00\x01t\x00\x01", "\x36\x06\x00\x01t\x00\x01\x00", 0x82},
		{"PUBLISH with packet identifier 0", "\x32\x05\x00\x01t\x00\x00", "\x32\x06\x00\x01t\x00\x00\x00", 0x82},
		{"PUBLISH cut off", "\x32\x02\x00\x05", "\x32\x02\x00\x05", 0x81},
		{"PUBLISH with a wildcard", "\x30\x03\x00\x01#", "\x30\x04\x00\x01#\x00", 0x90},
		{"PUBLISH with bad UTF-8", "\x30\x03\x00\x01\xff", "\x30\x04\x00\x01\xff\x00", 0x81},
		{"PUBLISH with a topic alias", "", "\x30\x07\x00\x01t\x03\x23\x00\x01", 0x94},
		{"PUBLISH with a subscription identifier", "", "\x30\x06\x00\x01t\x02\x0b\x01", 0x82},
		{"PUBLISH with properties cut off", "", "\x30\x04\x00\x01t\x7f", 0x81},
		{"SUBSCRIBE without options", "", "\x82\x09\x00\x01\x00\x00\x04e//#", 0x81},
		{"SUBSCRIBE without filter", "\x82\x02\x00\x01", "\x82\x03\x00\x01\x00", 0x82},
		{"SUBSCRIBE with packet identifier 0", "\x82\x06\x00\x00\x00\x01e\x00", "\x82\x07\x00\x00\x00\x00\x01e\x00", 0x82},
		{"SUBSCRIBE with a subscription identifier", "", "\x82\x09\x00\x01\x02\x0b\x01\x00\x01e\x00", 0xa1},
		{"SUBSCRIBE with too many filters", "\x82\x92\x09\x00\x01" + strings.Repeat("\x00\x01x\x00", 292), "", 0x97},
		{"UNSUBSCRIBE with too many filters", "\xa2\x86\x07\x00\x01" + long, "\xa2\x87\x07\x00\x01\x00" + long, 0x97},
		{"UNSUBSCRIBE cut off", "\xa2\x04\x00\x01\x00\x09", "\xa2\x05\x00\x01\x00\x00\x09", 0x81},
		{"garbage", "\xff\xfe\xfd\xfc\xfb\xfa", "\xff\xfe\xfd\xfc\xfb\xfa", 0x81},
	} {
		for version, bytes := range map[byte]string{4: tt.v4, 5: tt.v5} {
			if bytes == "" {
				continue
			}
			t.Run(fmt.Sprintf("%s MQTT %d", tt.name, version), func(t *testing.T) {
				w := newWorld(t, nil)
				c := w.connected(t, version, nil)
				c.write([]byte(bytes))
				c.wantClosed(tt.code)
				if n := len(w.down.Sent()); n != 0 {
					t.Errorf("%d messages were sent on", n)
				}
			})
		}
	}
}

// TestDisconnect: nothing is said by the adapter.
func TestDisconnect(t *testing.T) {
	for _, bytes := range []string{"\xe0\x00", "\xe0\x01\x00", "\xe0\x01\x04", "\xe0\x02\x04\x00"} {
		w := newWorld(t, nil)
		c := w.connected(t, 5, nil)
		c.write([]byte(bytes))
		c.wantClosed(0)
		eventually(t, "the session is over", func() bool { return w.sessions.Len() == 0 })
	}
}

// TestRevoked checks that what the registry takes away ends connections.
func TestRevoked(t *testing.T) {
	for _, version := range []byte{4, 5} {
		w := newWorld(t, nil)
		gone, stays := w.connected(t, version, nil), w.connected(t, version, as("device-3@tenant-1", adaptertest.Password))
		w.inv.Remove(adaptertest.Device)
		w.sessions.Notice(adapters.Notice{Type: adapters.NoticeDevice, Tenant: adaptertest.Tenant, Device: adaptertest.Device})
		gone.wantClosed(0x87)
		stays.wantOpen()
	}
}

// TestShutdown checks that what is in flight is acknowledged before the end.
func TestShutdown(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for _, version := range []byte{4, 5} {
			down := &held{}
			w := newWorldOf(t, adapters.Options{Downstream: down}, adapters.SessionOptions{}, func(o *mqtt.Options) { o.MaxInFlight = 2 })
			addr := w.addr
			dial := func() *client { return w.dial(t, version) }
			if secure {
				server, config := testTLS(t)
				addr = serve(t, w.adapter, server)
				dial = func() *client {
					nc, err := tls.Dial("tcp", addr, config)
					if err != nil {
						t.Fatal(err)
					}
					return newClient(t, nc, version)
				}
			}
			busy, idle, early := dial(), dial(), dial()
			for _, c := range []*client{busy, idle} {
				c.send(connectPacket(version, nil))
				c.want(packets.Connack)
			}
			busy.send(message("t", 1, "x"), message("e", 2, "x"), message("e", 3, "not read any more"))
			done := down.wait(t, 2)
			stopped := make(chan error, 1)
			go func() { stopped <- w.adapter.Shutdown(context.WithoutCancel(t.Context())) }()
			idle.wantClosed(0x8b)
			early.wantClosed(0)
			done[0](nil)
			busy.want(packets.Puback)
			done[1](nil)
			busy.want(packets.Puback)
			busy.wantClosed(0x8b)
			if err := <-stopped; err != nil {
				t.Error(err)
			}
			if down.count() != 2 {
				t.Error("a message was taken while the adapter stopped")
			}
			if nc, err := net.Dial("tcp", addr); err == nil {
				nc.Close()
				t.Error("the listener is open")
			}
		}
	}
}

// TestShutdownInTime checks that a stop does not wait longer than it may.
func TestShutdownInTime(t *testing.T) {
	down := &held{}
	w := newWorldOf(t, adapters.Options{Downstream: down}, adapters.SessionOptions{}, nil)
	c := w.connected(t, 4, nil)
	c.send(message("t", 1, "x"))
	done := down.wait(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := w.adapter.Shutdown(ctx); err != context.DeadlineExceeded {
		t.Errorf("got %v, want that time is up", err)
	}
	c.wantClosed(0)
	done[0](nil)
}

// TestSlowReader checks that a client that reads nothing does not make the
// adapter keep everything for it.
func TestSlowReader(t *testing.T) {
	down := &held{}
	w := newWorldOf(t, adapters.Options{Downstream: down}, adapters.SessionOptions{}, nil)
	c := w.connected(t, 4, nil)
	c.send(subscribe("error///#"))
	c.want(packets.Suback)
	pk := message("t/?correlation-id="+strings.Repeat("c", 500), 1, "x")
	pk.ProtocolVersion = 4
	burst := []byte(strings.Repeat(string(encode(t, pk)), 10))
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			if _, err := c.nc.Write(burst); err != nil {
				return // the adapter gave up on us
			}
		}
	}()
	settled := 0
	settle := func() {
		down.mu.Lock()
		done := down.done[settled:]
		settled = len(down.done)
		down.mu.Unlock()
		for _, d := range done {
			d(iot.ErrNoCredit)
		}
	}
	eventually(t, "the session is over", func() bool {
		settle()
		return w.sessions.Len() == 0
	})
	c.nc.Close()
	<-gone
	settle()
}
