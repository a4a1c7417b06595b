package mqtt_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/mqtt"
	"github.com/sluice-iot/sluice/internal/iot"
)

// request is the id of a command that somebody waits for the response to.
const request = "003abcreply"

const gatewayUser = string(adaptertest.Gateway) + "@" + string(adaptertest.Tenant)

// held is a way to the applications on which each message waits for the test.
type held struct {
	mu   sync.Mutex
	sent []string // payloads
	done []func(error)
}

func (h *held) Send(context.Context, *iot.Message) error { return errors.New("not used") }
func (h *held) Ready() bool                              { return true }
func (h *held) Start(m *iot.Message, done func(error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent, h.done = append(h.sent, string(m.Payload)), append(h.done, done)
}

// wait returns when n messages are there.
func (h *held) wait(t *testing.T, n int) []func(error) {
	t.Helper()
	var done []func(error)
	eventually(t, fmt.Sprintf("%d messages are sent", n), func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		done = slices.Clone(h.done)
		return len(done) >= n
	})
	return done
}

func (h *held) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.done)
}

// TestAcknowledgedInOrder settles messages in another order than they came in.
func TestAcknowledgedInOrder(t *testing.T) {
	const n = 20
	down := &held{}
	w := newWorldOf(t, adapters.Options{Downstream: down}, adapters.SessionOptions{}, nil)
	c := w.connected(t, 4, nil)
	var want []string
	for i := range n {
		payload := fmt.Sprint(i)
		want = append(want, payload)
		c.send(message("t", uint16(1000-i), payload))
	}
	done := down.wait(t, n)
	if !slices.Equal(down.sent, want) {
		t.Errorf("sent in order %v", down.sent)
	}
	for i := n - 1; i > 0; i-- {
		done[i](nil)
	}
	c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	c.want(packets.Pingresp) // nothing before the first is acknowledged
	done[0](nil)
	for i := range n {
		if got, want := c.want(packets.Puback).PacketID, uint16(1000-i); got != want {
			t.Fatalf("acknowledgement %d: got %d, want %d", i, got, want)
		}
	}
}

// TestInFlight checks that no more is read than may be in flight.
func TestInFlight(t *testing.T) {
	down := &held{}
	w := newWorldOf(t, adapters.Options{Downstream: down}, adapters.SessionOptions{}, func(o *mqtt.Options) { o.MaxInFlight = 3 })
	c := w.connected(t, 4, nil)
	for i := range uint16(10) {
		c.send(message("t", i%2*(i+1), "x")) // of both qualities of service
	}
	for n := 3; n <= 10; n++ {
		done := down.wait(t, n)
		if n < 10 && len(done) > n {
			t.Fatalf("%d messages are in flight, want 3", len(done)-n+3)
		}
		done[n-3](nil)
	}
	done := down.wait(t, 10)
	done[8](nil)
	done[9](nil)
	for i := range uint16(10) {
		if i%2 == 1 {
			if got := c.want(packets.Puback).PacketID; got != i+1 {
				t.Errorf("got acknowledgement of %d, want %d", got, i+1)
			}
		}
	}
	c.wantOpen()
}

// TestClientGone checks that what a client left behind is finished.
func TestClientGone(t *testing.T) {
	down := &held{}
	w := newWorldOf(t, adapters.Options{Downstream: down}, adapters.SessionOptions{}, nil)
	c := w.connected(t, 4, nil)
	c.send(message("t", 1, "x"), message("e", 2, "y"))
	done := down.wait(t, 2)
	c.nc.Close()
	eventually(t, "the session is over", func() bool { return w.sessions.Len() == 0 })
	stopped := make(chan error, 1)
	go func() { stopped <- w.adapter.Shutdown(context.WithoutCancel(t.Context())) }()
	done[1](nil)
	select {
	case <-stopped:
		t.Error("the adapter stopped with a message in flight")
	default:
	}
	done[0](errors.New("lost"))
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// TestMessage checks what applications get of a PUBLISH.
func TestMessage(t *testing.T) {
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	properties := func(p packets.Properties) func(*packets.Packet) {
		return func(pk *packets.Packet) { pk.Properties = p }
	}
	for _, tt := range []struct {
		name, user, topic string
		version           byte
		change            func(*packets.Packet)
		want              iot.Message
	}{
		{"own", deviceUser, "telemetry", 4, nil, iot.Message{Endpoint: iot.Telemetry, Device: "device-1"}},
		{"short", deviceUser, "t", 3, nil, iot.Message{Endpoint: iot.Telemetry, Device: "device-1"}},
		{"event", deviceUser, "event", 5, nil, iot.Message{Endpoint: iot.Event, Device: "device-1"}},
		{"trailing slashes", deviceUser, "e//", 4, nil, iot.Message{Endpoint: iot.Event, Device: "device-1"}},
		{"own, named", deviceUser, "e/tenant-1/device-1", 4, nil, iot.Message{Endpoint: iot.Event, Device: "device-1"}},
		{"gateway", gatewayUser, "e//device:2", 4, nil, iot.Message{Endpoint: iot.Event, Device: "device:2", Gateway: "gateway-1"}},
		{"gateway, tenant named", gatewayUser, "t/tenant-1/device:2", 4, nil, iot.Message{Endpoint: iot.Telemetry, Device: "device:2", Gateway: "gateway-1"}},
		{"bag", deviceUser, "e/?content-type=text%2Fplain&HONO-TTL=30&traceparent=" + trace, 4, nil,
			iot.Message{Endpoint: iot.Event, Device: "device-1", ContentType: "text/plain", TTL: 30 * time.Second, TraceParent: trace}},
		{"ttl of telemetry", deviceUser, "t/?hono-ttl=30", 4, nil, iot.Message{Endpoint: iot.Telemetry, Device: "device-1"}},
		{"retained", deviceUser, "t", 4, func(pk *packets.Packet) { pk.FixedHeader.Retain = true }, iot.Message{Endpoint: iot.Telemetry, Device: "device-1", Retain: true}},
		{"properties", deviceUser, "e", 5, properties(packets.Properties{ContentType: "text/csv", MessageExpiryInterval: 60, User: []packets.UserProperty{{Key: "room", Val: "12"}, {Key: "qos", Val: "9"}}}),
			iot.Message{Endpoint: iot.Event, Device: "device-1", ContentType: "text/csv", TTL: time.Minute, Properties: map[string]any{"room": "12"}}},
		{"user properties", deviceUser, "e", 5, properties(packets.Properties{ContentType: "text/csv", MessageExpiryInterval: 60, User: []packets.UserProperty{{Key: "hono-ttl", Val: "5"}, {Key: "content-type", Val: "a/b"}, {Key: "traceparent", Val: trace}}}),
			iot.Message{Endpoint: iot.Event, Device: "device-1", ContentType: "a/b", TTL: 5 * time.Second, TraceParent: trace}},
		{"bag wins", deviceUser, "e/?hono-ttl=1&content-type=c%2Fd", 5, properties(packets.Properties{ContentType: "text/csv", User: []packets.UserProperty{{Key: "hono-ttl", Val: "5"}, {Key: "content-type", Val: "a/b"}}}),
			iot.Message{Endpoint: iot.Event, Device: "device-1", ContentType: "c/d", TTL: time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil)
			c := w.connected(t, tt.version, as(tt.user, adaptertest.Password))
			for id := range uint16(2) { // the second may be made of what is known of the first
				pk := message(tt.topic, id+1, "22.5")
				if tt.change != nil {
					tt.change(pk)
				}
				c.send(pk)
				c.want(packets.Puback)
				got := w.down.Sent()[id]
				want := tt.want
				if want.ContentType == "" {
					want.ContentType = "application/octet-stream"
				}
				if got.Endpoint != want.Endpoint || got.Tenant != adaptertest.Tenant || got.Device != want.Device || got.Gateway != want.Gateway || got.QoS != iot.AtLeastOnce {
					t.Errorf("got %s QoS %d of %s/%s by %q", got.Endpoint, got.QoS, got.Tenant, got.Device, got.Gateway)
				}
				if got.Address != tt.topic || got.ContentType != want.ContentType || got.TTL != want.TTL || got.Retain != want.Retain || string(got.Payload) != "22.5" {
					t.Errorf("got address %q, %s, ttl %s, retain %t, payload %q", got.Address, got.ContentType, got.TTL, got.Retain, got.Payload)
				}
				if fmt.Sprint(got.Properties) != fmt.Sprint(want.Properties) || want.TraceParent != "" && got.TraceParent != want.TraceParent {
					t.Errorf("got properties %v, trace %s", got.Properties, got.TraceParent)
				}
			}
		})
	}
}

// TestFailedPublish walks over the table of errors (contract: adapters 8.7).
func TestFailedPublish(t *testing.T) {
	const closed, acked, open = "closed", "acknowledged", "open"
	for _, tt := range []struct {
		onError       string
		without, with string
	}{
		{"", closed, acked},
		{"?on-error=default", closed, acked},
		{"?on-error=nonsense", closed, acked},
		{"?on-error=disconnect", closed, closed},
		{"?on-error=ignore", acked, acked},
		{"?on-error=skip-ack", open, open},
	} {
		for _, version := range []byte{4, 5} {
			for _, subscribed := range []bool{false, true} {
				for _, qos := range []byte{0, 1} {
					want := tt.without
					if subscribed {
						want = tt.with
					}
					t.Run(fmt.Sprintf("%s MQTT %d QoS %d subscribed %t", tt.onError, version, qos, subscribed), func(t *testing.T) {
						w := newWorld(t, nil)
						w.down.Outcome(func(*iot.Message) error { return iot.ErrNoCredit })
						c := w.connected(t, version, nil)
						if subscribed {
							c.send(subscribe("error///#"))
							c.want(packets.Suback)
						}
						c.send(message(strings.TrimSuffix("telemetry/"+tt.onError, "/"), 7*uint16(qos), "x"))
						if subscribed {
							c.wantReport("-1", 503, "no consumer available", qos)
						}
						if want == acked && qos == 1 {
							ack := c.want(packets.Puback)
							if version == 5 && (ack.ReasonCode != 0x80 || ack.Properties.ReasonString != "no consumer available") {
								t.Errorf("got PUBACK %#x %q", ack.ReasonCode, ack.Properties.ReasonString)
							}
						}
						if want == closed {
							c.wantClosed(0x89)
						} else {
							c.wantOpen()
						}
					})
				}
			}
		}
	}
}

// wantReport reads an error message about the telemetry message 7.
func (c *client) wantReport(correlation string, code int, text string, qos byte) {
	c.t.Helper()
	if qos == 1 {
		correlation = "7"
	}
	pk := c.want(packets.Publish)
	if want := fmt.Sprintf("error///telemetry/%s/%d", correlation, code); pk.TopicName != want || pk.FixedHeader.Qos != 0 {
		c.t.Errorf("got a report by %q with QoS %d, want %q with 0", pk.TopicName, pk.FixedHeader.Qos, want)
	}
	var e struct {
		Code          int
		Message       string
		Timestamp     time.Time
		CorrelationID string `json:"correlation-id"`
	}
	if err := json.Unmarshal(pk.Payload, &e); err != nil {
		c.t.Fatal(err)
	}
	if e.Code != code || e.Message != text || e.CorrelationID != correlation || e.Timestamp.IsZero() {
		c.t.Errorf("got %s", pk.Payload)
	}
}

// TestRefusedPublish checks what becomes of each kind of failure.
func TestRefusedPublish(t *testing.T) {
	for _, tt := range []struct {
		name, user, topic string
		qos               byte
		code              int // 0 = closed without a report
		terminal          bool
		v5                byte
	}{
		{"no such endpoint", deviceUser, "sensors/x", 1, 404, false, 0x90},
		{"starts with a slash", deviceUser, "/telemetry", 1, 400, false, 0x90},
		{"bad bag", deviceUser, "t/?content-type=%zz", 1, 400, false, 0x90},
		{"event with QoS 0", deviceUser, "e", 0, 400, false, 0x83},
		{"QoS 2", deviceUser, "t", 2, 400, false, 0x9b},
		{"tenant alone", deviceUser, "t/tenant-1", 1, 400, false, 0x83},
		{"other tenant", gatewayUser, "t/tenant-2/device:2", 1, 403, false, 0x87},
		{"unknown device", gatewayUser, "t//nobody", 1, 404, false, 0x87},
		{"disabled device", gatewayUser, "t//device-off", 1, 404, false, 0x87},
		{"device of another gateway", gatewayUser, "t//device-3", 1, 403, true, 0x87},
		{"command response without status", deviceUser, "command///res/00rep", 1, 400, false, 0x90},
		{"command response with a bad request id", deviceUser, "command///res/1/200", 1, 400, false, 0x83},
		{"command response with a bad status", deviceUser, "command///res/" + request + "/OK", 1, 400, false, 0x83},
		{"command response with a status of none", deviceUser, "c///s/" + request + "/302", 0, 400, false, 0x83},
		{"command response for another's device", gatewayUser, "c//device-3/s/" + request + "/200", 1, 403, true, 0x87},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, subscribed := range []bool{false, true} {
				w := newWorld(t, nil)
				c := w.connected(t, 5, as(tt.user, adaptertest.Password))
				if subscribed {
					c.send(subscribe("e///#"))
					c.want(packets.Suback)
				}
				pk := message(tt.topic, 7, "x")
				if pk.FixedHeader.Qos = tt.qos; tt.qos == 0 {
					pk.PacketID = 0
				}
				c.send(pk)
				if subscribed {
					if got := c.want(packets.Publish); !strings.HasSuffix(got.TopicName, fmt.Sprintf("/%d", tt.code)) {
						t.Errorf("got a report by %s, want code %d", got.TopicName, tt.code)
					}
				}
				switch {
				case !subscribed || tt.terminal:
					c.wantClosed(tt.v5)
				case tt.qos == 1:
					c.want(packets.Puback)
					fallthrough
				default:
					c.wantOpen()
				}
				if n := len(w.down.Sent()); n != 0 {
					t.Errorf("%d messages were sent on", n)
				}
			}
		})
	}
}

// TestTooLarge checks that what is too large ends the connection, and nothing
// is said about it but by MQTT 5.
func TestTooLarge(t *testing.T) {
	for name, pk := range map[string][]byte{
		"payload":                  encode(t, message("t/?on-error=ignore", 1, strings.Repeat("x", adapters.DefaultMaxPayload+1))),
		"packet, announced":        {0x32, 0xff, 0xff, 0xff, 0x7f},
		"length of more than four": {0x32, 0xff, 0xff, 0xff, 0xff, 0x01},
	} {
		for _, version := range []byte{4, 5} {
			c := newWorld(t, nil).connected(t, version, nil)
			c.send(subscribe("error///#"))
			c.want(packets.Suback)
			if name == "payload" && version == 5 {
				large := message("t", 1, strings.Repeat("x", adapters.DefaultMaxPayload+1))
				large.ProtocolVersion = 5
				pk = encode(t, large)
			}
			c.write(pk)
			code := byte(0x95)
			if pk[len(pk)-1] == 1 {
				code = 0x81
			}
			c.wantClosed(code)
		}
	}
	w := newWorld(t, nil)
	c := w.connected(t, 4, nil)
	c.send(message("t", 1, strings.Repeat("x", adapters.DefaultMaxPayload)))
	c.want(packets.Puback)
	w.down.Outcome(func(*iot.Message) error { return iot.ErrTooLarge })
	c.send(message("t/?on-error=ignore", 1, "x"))
	c.wantClosed(0)
}

// TestLargeTopics reads packets of all sizes through the small buffer, the big
// one and one of their own, in pieces of all sizes.
func TestLargeTopics(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connected(t, 4, nil)
	var all []byte
	var want []string
	for n := 1; n <= adapters.DefaultMaxPayload; n += n/7 + 1 {
		for _, bag := range []string{"", "/?x=" + strings.Repeat("y", 4*n)} {
			payload := strings.Repeat(string(rune('a'+n%26)), n)
			want = append(want, payload)
			pk := message("t"+bag, uint16(len(want)), payload)
			pk.ProtocolVersion = 4
			all = append(all, encode(t, pk)...)
		}
	}
	for size := 1; len(all) > 0; size += size/3 + 1 {
		n := min(size, len(all))
		c.write(all[:n])
		all = all[n:]
		if size > 5000 {
			size = 1
		}
	}
	for range want {
		c.want(packets.Puback)
	}
	for i, m := range w.down.Sent() {
		if string(m.Payload) != want[i] {
			t.Fatalf("message %d: got %d bytes %.10q, want %d bytes %.10q", i, len(m.Payload), m.Payload, len(want[i]), want[i])
		}
	}
}
