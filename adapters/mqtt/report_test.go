package mqtt

import (
	"errors"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/internal/iot"
)

// TestReact is the table of contract: adapters 8.7, for each quality of service.
func TestReact(t *testing.T) {
	for _, tt := range []struct {
		mode            string
		subscribed      bool
		puback, closing bool
	}{
		{"", false, false, true},
		{"", true, true, false},
		{"default", false, false, true},
		{"default", true, true, false},
		{"nonsense", false, false, true},
		{"nonsense", true, true, false},
		{"disconnect", false, false, true},
		{"disconnect", true, false, true},
		{"ignore", false, true, false},
		{"ignore", true, true, false},
		{"skip-ack", false, false, false},
		{"skip-ack", true, false, false},
	} {
		mode := parseOnError(tt.mode)
		for qos := range byte(3) {
			want := reaction{report: tt.subscribed, puback: tt.puback && qos == 1, close: tt.closing}
			if got := react(mode, qos, tt.subscribed, false); got != want {
				t.Errorf("%q, subscribed %t, QoS %d: got %+v, want %+v", tt.mode, tt.subscribed, qos, got, want)
			}
			want = reaction{report: tt.subscribed, close: true}
			if got := react(mode, qos, tt.subscribed, true); got != want {
				t.Errorf("%q, subscribed %t, QoS %d, terminal: got %+v, want %+v", tt.mode, tt.subscribed, qos, got, want)
			}
		}
	}
}

// TestReport goes through topic and payload of error messages (contract: adapters 8.8).
func TestReport(t *testing.T) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 7_899_000, time.FixedZone("", 3600))
	const when = `"timestamp":"2026-02-03T03:05:06.007Z"`
	gone := iot.Errorf(iot.ErrNotFound, "device is disabled or not registered")
	for _, tt := range []struct {
		name, filter string
		who          owner
		topic        string
		packetID     uint16
		err          error // nil = the one of reading the topic
		wantTopic    string
		wantPayload  string
	}{
		{"own device", "error///#", gateway, "telemetry", 7, iot.ErrUnavailable,
			"error///telemetry/7/503", `{"code":503,"message":"temporarily unavailable",` + when + `,"correlation-id":"7"}`},
		{"short, without packet id", "e///#", gateway, "t", 0, gone,
			"e///t/-1/404", `{"code":404,"message":"device is disabled or not registered",` + when + `,"correlation-id":"-1"}`},
		{"event with correlation id", "error///#", gateway, "event/?correlation-id=abc", 7, gone,
			"error///event/abc/404", `{"code":404,"message":"device is disabled or not registered",` + when + `,"correlation-id":"abc"}`},
		{"another device", "error///#", gateway, "e//device-1", 1, gone,
			"error//device-1/e/1/404", `{"code":404,"message":"device is disabled or not registered",` + when + `,"correlation-id":"1"}`},
		{"tenant in filter only", "error/tenant-1//#", gateway, "e", 1, gone,
			"error/tenant-1//e/1/404", `{"code":404,"message":"device is disabled or not registered",` + when + `,"correlation-id":"1"}`},
		{"tenant in topic only", "error///#", gateway, "e/tenant-1/gateway-1", 1, gone,
			"error///e/1/404", `{"code":404,"message":"device is disabled or not registered",` + when + `,"correlation-id":"1"}`},
		{"device named in filter", "error//gateway-1/#", gateway, "e", 1, gone,
			"error//gateway-1/e/1/404", `{"code":404,"message":"device is disabled or not registered",` + when + `,"correlation-id":"1"}`},
		{"any device in filter", "error//+/#", gateway, "e", 1, gone,
			"error//gateway-1/e/1/404", `{"code":404,"message":"device is disabled or not registered",` + when + `,"correlation-id":"1"}`},
		{"one device in filter", "e//device-1/#", gateway, "telemetry//device-1", 1, gone,
			"e//device-1/telemetry/1/404", `{"code":404,"message":"device is disabled or not registered",` + when + `,"correlation-id":"1"}`},
		{"nobody", "e/ten/dev/#", nobody, "t/ten/dev", 1, gone,
			"e/ten/dev/t/1/404", `{"code":404,"message":"device is disabled or not registered",` + when + `,"correlation-id":"1"}`},
		{"command response", "error///#", gateway, "command///res/r/200", 1, gone,
			"error///command-response/1/404", `{"code":404,"message":"device is disabled or not registered",` + when + `,"correlation-id":"1"}`},
		{"command response, short", "error///#", gateway, "c//device-1/s/r", 1, nil,
			"error//device-1/c-s/1/400", `{"code":400,"message":"` + errResponse.Text + `",` + when + `,"correlation-id":"1"}`},
		{"unknown endpoint", "error///#", gateway, "nowhere", 1, nil,
			"error///unknown/1/404", `{"code":404,"message":"no such endpoint",` + when + `,"correlation-id":"1"}`},
		{"malformed", "error///#", gateway, "/telemetry", 1, nil,
			"error///unknown/1/400", `{"code":400,"message":"malformed topic name",` + when + `,"correlation-id":"1"}`},
		{"correlation id with slashes and wildcards", "error///#", gateway, "t/?correlation-id=a%2Fb%2B%23c%25", 1, gone,
			"error///t/a%2Fb%2B%23c%/404", `{"code":404,"message":"device is disabled or not registered",` + when + `,"correlation-id":"a/b+#c%"}`},
		{"unknown error keeps its text", "error///#", gateway, "t", 1, errors.New("password is secret"),
			"error///t/1/500", `{"code":500,"message":"internal error",` + when + `,"correlation-id":"1"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sub, err := parseFilter(tt.filter, 0, tt.who)
			if err != nil {
				t.Fatal(err)
			}
			p, err := readPublication(tt.topic, &packets.Properties{})
			if tt.err != nil {
				err = tt.err
			}
			f := &failure{publication: &p, who: tt.who, packetID: tt.packetID, err: err, at: at}
			topic, payload := f.report(&sub)
			if topic != tt.wantTopic {
				t.Errorf("got topic %s, want %s", topic, tt.wantTopic)
			}
			if string(payload) != tt.wantPayload {
				t.Errorf("got  %s\nwant %s", payload, tt.wantPayload)
			}
		})
	}
}
