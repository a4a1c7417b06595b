package mqtt

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/internal/iot"
)

func samePublication(a, b publication) bool {
	if !maps.Equal(a.properties, b.properties) {
		return false
	}
	a.properties, b.properties = nil, nil
	return a.address == b.address && a.target == b.target && fmt.Sprint(a.settings) == fmt.Sprint(b.settings)
}

func user(pairs ...string) []packets.UserProperty {
	var list []packets.UserProperty
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, packets.UserProperty{Key: pairs[i], Val: pairs[i+1]})
	}
	return list
}

// TestProperties goes through what an MQTT 5 client may say beside the bag.
func TestProperties(t *testing.T) {
	const tooMany = "user properties: at most 64 with 4096 bytes in all"
	var many []string
	for i := range maxUserProperties {
		many = append(many, fmt.Sprint("p", i), "")
	}
	full := make(map[string]any)
	for _, p := range user(many...) {
		full[p.Key] = ""
	}
	large := strings.Repeat("x", maxUserPropertiesSize-1)
	for _, tt := range []struct {
		name, topic string
		properties  packets.Properties
		want        settings
		code        int
		text        string
	}{
		{"none", "t", packets.Properties{}, settings{}, 0, ""},
		{"content type", "t", packets.Properties{ContentType: "a/b"}, settings{contentType: "a/b"}, 0, ""},
		{"content type, bag wins", "t/?content-type=c/d", packets.Properties{ContentType: "a/b"}, settings{contentType: "c/d"}, 0, ""},
		{"content type as user property", "t", packets.Properties{ContentType: "a/b", User: user("content-type", "c/d")}, settings{contentType: "c/d"}, 0, ""},
		{"expiry", "e", packets.Properties{MessageExpiryInterval: 7}, settings{ttl: 7 * time.Second, hasTTL: true}, 0, ""},
		{"expiry, bag wins", "e/?hono-ttl=3", packets.Properties{MessageExpiryInterval: 7}, settings{ttl: 3 * time.Second, hasTTL: true}, 0, ""},
		{"expiry, user property wins", "e", packets.Properties{MessageExpiryInterval: 7, User: user("hono-ttl", "3")}, settings{ttl: 3 * time.Second, hasTTL: true}, 0, ""},
		{"expiry where the bag has none of use", "e/?hono-ttl=-3", packets.Properties{MessageExpiryInterval: 7}, settings{ttl: 7 * time.Second, hasTTL: true}, 0, ""},
		{"longest expiry", "e", packets.Properties{MessageExpiryInterval: 1<<32 - 1}, settings{ttl: (1<<32 - 1) * time.Second, hasTTL: true}, 0, ""},
		{"names of the bag", "t", packets.Properties{User: user("On-Error", "ignore", "correlation-id", "c", "traceparent", "p", "tracestate", "s")},
			settings{onError: onErrorIgnore, correlationID: "c", traceParent: "p", traceState: "s"}, 0, ""},
		{"names of the bag, bag wins", "t/?on-error=skip-ack&correlation-id=b", packets.Properties{User: user("on-error", "ignore", "correlation-id", "c")},
			settings{onError: onErrorSkipAck, correlationID: "b"}, 0, ""},
		{"further ones", "t", packets.Properties{User: user("a", "1", "B", "2", "a", "3", "empty", "")},
			settings{properties: map[string]any{"a": "1", "B": "2", "empty": ""}}, 0, ""},
		{"names of the platform", "t", packets.Properties{User: user("device_id", "x", "tenant_id", "x", "gateway_id", "x", "resource", "x", "qos", "x", "ttd", "x",
			"orig_adapter", "x", "orig_address", "x", "reg_assertion", "x", "cache_control", "x", "hono_registration_status", "NEW", "x-opt-retain", "true", "", "x")}, settings{}, 0, ""},
		{"as many as may be", "t", packets.Properties{User: user(many...)}, settings{properties: full}, 0, ""},
		{"one too many", "t", packets.Properties{User: user(append(many, "on-error", "ignore", "z", "")...)}, settings{onError: onErrorIgnore, properties: full}, 400, tooMany},
		{"as large as may be", "t", packets.Properties{User: user("k", large)}, settings{properties: map[string]any{"k": large}}, 0, ""},
		{"too large", "t", packets.Properties{User: user("k", large+"x")}, settings{}, 400, tooMany},
		{"mode of a malformed topic", "t/?%", packets.Properties{User: user("on-error", "ignore")}, settings{onError: onErrorIgnore}, 400, errBag.Text},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readPublication(tt.topic, &tt.properties)
			got.given = [keys]bool{}
			if !samePublication(publication{settings: got.settings}, publication{settings: tt.want}) {
				t.Errorf("got %+v, want %+v", got.settings, tt.want)
			}
			wantError(t, err, tt.code, tt.text)
		})
	}
}

func TestUpload(t *testing.T) {
	p, err := readPublication("e//dev/?hono-ttl=2&content-type=a/b&traceparent=tp&tracestate=ts", &packets.Properties{User: user("k", "v")})
	if err != nil {
		t.Fatal(err)
	}
	up := p.upload(1, true, nil)
	if up.Endpoint != iot.Event || up.QoS != iot.AtLeastOnce || up.Address != p.address || up.ContentType != "a/b" || !up.Retain {
		t.Errorf("got %+v", up)
	}
	if up.TTL == nil || *up.TTL != 2*time.Second || up.TraceParent != "tp" || up.TraceState != "ts" || up.Properties["k"] != "v" {
		t.Errorf("got ttl %v, trace %q %q, properties %v", up.TTL, up.TraceParent, up.TraceState, up.Properties)
	}
	if up.Payload == nil {
		t.Error("got no payload, want an empty one")
	}
	if p, err = readPublication("t/?hono-ttl=2", &packets.Properties{}); err != nil || p.upload(0, false, []byte("x")).TTL != nil {
		t.Errorf("telemetry has the ttl of events, or error %v", err)
	}
}
