package mqtt

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/internal/iot"
)

// TestBag goes through the rules of the property bag (contract: adapters 8.5).
func TestBag(t *testing.T) {
	const malformed = "malformed topic name: property bag: want /?name=value&name=value, escaped as in a URL"
	for _, tt := range []struct {
		name, topic string
		want        publication // without address
		code        int
		text        string
	}{
		{"content type and ttl", "event/?content-type=application%2Fjson&hono-ttl=30",
			pub("event", settings{contentType: "application/json", ttl: 30 * time.Second, hasTTL: true}), 0, ""},
		{"all", "t/?content-type=a/b&hono-ttl=1&on-error=ignore&correlation-id=c1&traceparent=00-1&tracestate=x%3Dy",
			pub("t", settings{contentType: "a/b", ttl: time.Second, hasTTL: true, onError: onErrorIgnore, correlationID: "c1", traceParent: "00-1", traceState: "x=y"}), 0, ""},
		{"names in any case", "t/?Content-Type=a/b&HONO-TTL=1&On-Error=skip-ack&CORRELATION-ID=c",
			pub("t", settings{contentType: "a/b", ttl: time.Second, hasTTL: true, onError: onErrorSkipAck, correlationID: "c"}), 0, ""},
		{"escaped name", "t/?content%2Dtype=a/b", pub("t", settings{contentType: "a/b"}), 0, ""},
		{"the last one counts", "t//dev/?x=1/?on-error=disconnect", publication{target: target{endpoint: iot.Telemetry, spelling: "t", device: "dev"}, settings: settings{onError: onErrorDisconnect}}, 0, ""},
		{"after slashes", "t///?on-error=ignore", pub("t", settings{onError: onErrorIgnore}), 0, ""},
		{"empty", "t/?", pub("t", settings{}), 0, ""},
		{"only separators", "t/?&&;&", pub("t", settings{}), 0, ""},
		{"name without value", "t/?content-type", pub("t", settings{}), 0, ""},
		{"unknown names", "t/?a=b&c", pub("t", settings{}), 0, ""},
		{"semicolons separate", "t/?content-type=a/b;correlation-id=c", pub("t", settings{contentType: "a/b", correlationID: "c"}), 0, ""},
		{"first of two", "t/?correlation-id=1&correlation-id=2", pub("t", settings{correlationID: "1"}), 0, ""},
		{"value with equals sign", "t/?correlation-id=a=b", pub("t", settings{correlationID: "a=b"}), 0, ""},
		{"a question mark is no bag", "t//dev?x=y", publication{target: target{endpoint: iot.Telemetry, spelling: "t", device: "dev?x=y"}}, 0, ""},

		{"ttl 0", "t/?hono-ttl=0", pub("t", settings{hasTTL: true}), 0, ""},
		{"ttl negative", "t/?hono-ttl=-1", pub("t", settings{}), 0, ""},
		{"ttl no number", "t/?hono-ttl=1s", pub("t", settings{}), 0, ""},
		{"ttl of centuries", "t/?hono-ttl=9223372036854775807", pub("t", settings{ttl: (1<<32 - 1) * time.Second, hasTTL: true}), 0, ""},
		{"ttl past any number", "t/?hono-ttl=9223372036854775808", pub("t", settings{}), 0, ""},
		{"ttl negative, then another", "t/?hono-ttl=-1&hono-ttl=5", pub("t", settings{ttl: 5 * time.Second, hasTTL: true}), 0, ""},

		{"on-error default", "t/?on-error=default", pub("t", settings{}), 0, ""},
		{"on-error unknown", "t/?on-error=explode", pub("t", settings{}), 0, ""},

		{"at the beginning", "/?content-type=a/b", publication{}, 400, "malformed topic name"},
		{"unfinished escape", "t/?content-type=%2", publication{}, 400, malformed},
		{"bad escape", "t/?x=%zz", publication{}, 400, malformed},
		{"bad escape in a name", "t/?%=1", publication{}, 400, malformed},
		{"no UTF-8", "t/?correlation-id=%ff", publication{}, 400, malformed},
		{"control character", "t/?correlation-id=a%00", publication{}, 400, malformed},
		{"what came before is kept", "t/?on-error=ignore&x=%zz", publication{settings: settings{onError: onErrorIgnore}}, 400, malformed},
		{"correlation id too long", "t/?correlation-id=" + strings.Repeat("x", maxCorrelation+1), publication{}, 400, "correlation-id: at most 512 bytes"},
		{"bag of an unknown endpoint", "nowhere/?on-error=ignore&correlation-id=1", publication{settings: settings{onError: onErrorIgnore, correlationID: "1"}}, 404, "no such endpoint"},
		{"empty topic before it", "//?x=y", publication{}, 400, "malformed topic name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readPublication(tt.topic, &packets.Properties{})
			if got.address != tt.topic {
				t.Errorf("got address %q, want %q", got.address, tt.topic)
			}
			got.address, got.given = "", [keys]bool{}
			if !samePublication(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			wantError(t, err, tt.code, tt.text)
		})
	}
}

// pub is what a client says of its own device.
func pub(spelling string, s settings) publication {
	return publication{target: target{endpoint: endpoint(spelling), spelling: spelling}, settings: s}
}

func TestBagCopiesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() {
		if _, err := readPublication("t//device-1/?content-type=text/plain&hono-ttl=5&correlation-id=1", &packets.Properties{}); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}

// FuzzPublication checks that any topic, bag and user property is answered and
// stays within bounds.
func FuzzPublication(f *testing.F) {
	for _, s := range []string{"t/?content-type=a%2Fb&hono-ttl=1", "/?", "t/?%zz", "e//d/?;;=", "t/?correlation-id=%2F%2B%23", "c///s/r/1/?on-error=ignore"} {
		f.Add(s, "on-error", "ignore", "x", "y", "text/plain", uint32(5))
		f.Add(s, "", "", "device_id", "other", "", uint32(0))
		f.Add(s, "correlation-id", "a/b\x01", "x-opt-retain", "true", "\x00", uint32(1<<32-1))
	}
	f.Fuzz(func(t *testing.T, topic, k1, v1, k2, v2, contentType string, expiry uint32) {
		p, err := readPublication(topic, &packets.Properties{
			User: []packets.UserProperty{{Key: k1, Val: v1}, {Key: k2, Val: v2}}, ContentType: contentType, MessageExpiryInterval: expiry,
		})
		if err != nil && !errors.Is(err, iot.ErrInvalid) && !errors.Is(err, iot.ErrNotFound) {
			t.Fatalf("error %v is no answer for a device", err)
		}
		if p.address != topic || len(p.correlationID) > maxCorrelation || p.ttl < 0 {
			t.Errorf("got address %q, correlation id of %d bytes, ttl %v", p.address, len(p.correlationID), p.ttl)
		}
		for name := range p.properties {
			if reserved(name) {
				t.Errorf("property %q is not the device's", name)
			}
		}
		if up := p.upload(1, false, nil); up.Endpoint != p.endpoint || up.Payload == nil || up.TTL != nil && up.Endpoint != iot.Event {
			t.Errorf("got upload %+v", up)
		}
		fail := &failure{publication: &p, who: owner{tenant: "tenant-1", device: "device-1"}, packetID: 1, err: iot.ErrInvalid}
		name, payload := fail.report(&subscription{key: subscriptionKey{owner: fail.who}, spelling: "e"})
		if !utf8.ValidString(name) && utf8.ValidString(topic) || strings.ContainsAny(name, "+#") || strings.Count(name, "/") != 5 || len(name) > 1<<16-1 || len(payload) > 1<<16 {
			t.Errorf("report of %q is sent to %q", topic, name)
		}
	})
}
