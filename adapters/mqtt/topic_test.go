package mqtt

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// TestTopic goes through the address grammar and the rows of the table of
// topics (contract: adapters 1.2, 8.4).
func TestTopic(t *testing.T) {
	long := strings.Repeat("x", maxSegment)
	for _, tt := range []struct {
		topic string
		want  target
		code  int    // 0 = no error
		text  string // of the error
	}{
		{"telemetry", target{endpoint: iot.Telemetry, spelling: "telemetry"}, 0, ""},
		{"t", target{endpoint: iot.Telemetry, spelling: "t"}, 0, ""},
		{"t//dev", target{endpoint: iot.Telemetry, spelling: "t", device: "dev"}, 0, ""},
		{"t/ten/dev", target{endpoint: iot.Telemetry, spelling: "t", tenant: "ten", device: "dev"}, 0, ""},
		{"telemetry//dev", target{endpoint: iot.Telemetry, spelling: "telemetry", device: "dev"}, 0, ""},
		{"telemetry/ten/dev", target{endpoint: iot.Telemetry, spelling: "telemetry", tenant: "ten", device: "dev"}, 0, ""},
		{"event", target{endpoint: iot.Event, spelling: "event"}, 0, ""},
		{"e", target{endpoint: iot.Event, spelling: "e"}, 0, ""},
		{"e//dev", target{endpoint: iot.Event, spelling: "e", device: "dev"}, 0, ""},
		{"e/ten/dev", target{endpoint: iot.Event, spelling: "e", tenant: "ten", device: "dev"}, 0, ""},
		{"event//dev", target{endpoint: iot.Event, spelling: "event", device: "dev"}, 0, ""},
		{"event/ten/dev", target{endpoint: iot.Event, spelling: "event", tenant: "ten", device: "dev"}, 0, ""},

		{"command///res/req/200", target{endpoint: iot.CommandResponse, spelling: "command", request: "req", status: "200"}, 0, ""},
		{"c///s/req/200", target{endpoint: iot.CommandResponse, spelling: "c", request: "req", status: "200"}, 0, ""},
		{"c//dev/res/req/200", target{endpoint: iot.CommandResponse, spelling: "c", device: "dev", request: "req", status: "200"}, 0, ""},
		{"c/ten/dev/s/req/503", target{endpoint: iot.CommandResponse, spelling: "c", tenant: "ten", device: "dev", request: "req", status: "503"}, 0, ""},
		{"c///s/req", target{endpoint: iot.CommandResponse, spelling: "c"}, 400, errResponse.Text},
		{"command", target{endpoint: iot.CommandResponse, spelling: "command"}, 400, errResponse.Text},

		// Empty segments at the end do not count, those inside are not given.
		{"telemetry/", target{endpoint: iot.Telemetry, spelling: "telemetry"}, 0, ""},
		{"telemetry//", target{endpoint: iot.Telemetry, spelling: "telemetry"}, 0, ""},
		{"telemetry///", target{endpoint: iot.Telemetry, spelling: "telemetry"}, 0, ""},
		{"t/ten", target{endpoint: iot.Telemetry, spelling: "t", tenant: "ten"}, 0, ""},
		{"t/ten/", target{endpoint: iot.Telemetry, spelling: "t", tenant: "ten"}, 0, ""},
		{"t/ten/dev/", target{endpoint: iot.Telemetry, spelling: "t", tenant: "ten", device: "dev"}, 0, ""},
		{"t/ten/dev/and/more", target{endpoint: iot.Telemetry, spelling: "t", tenant: "ten", device: "dev"}, 0, ""},
		{"t///more", target{endpoint: iot.Telemetry, spelling: "t"}, 0, ""},
		{"t/Gerät/ü:=", target{endpoint: iot.Telemetry, spelling: "t", tenant: "Gerät", device: "ü:="}, 0, ""},
		{"t/" + long + "/" + long, target{endpoint: iot.Telemetry, spelling: "t", tenant: iot.TenantID(long), device: iot.DeviceID(long)}, 0, ""},
		{"t/" + long + "x/dev", target{endpoint: iot.Telemetry, spelling: "t"}, 400, errSegment.Text},
		{"t//" + long + "x", target{endpoint: iot.Telemetry, spelling: "t"}, 400, errSegment.Text},

		{"", target{}, 400, "malformed topic name"},
		{"/", target{}, 400, "malformed topic name"},
		{"//", target{}, 400, "malformed topic name"},
		{"/telemetry", target{}, 400, "malformed topic name"},
		{"t/\x00/dev", target{}, 400, "malformed topic name"},
		{"t//\xff", target{}, 400, "malformed topic name"},
		{"t//+", target{}, 400, "malformed topic name"},
		{"t/#", target{}, 400, "malformed topic name"},
		{"Telemetry", target{}, 404, "no such endpoint"},
		{"command_response/ten/dev/res/req/200", target{}, 404, "no such endpoint"},
		{"cr/ten/dev", target{}, 404, "no such endpoint"},
		{"error/ten/dev", target{}, 404, "no such endpoint"},
		{"tele", target{}, 404, "no such endpoint"},
	} {
		t.Run(tt.topic, func(t *testing.T) {
			got, err := parseTopic(tt.topic)
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			wantError(t, err, tt.code, tt.text)
		})
	}
}

// wantError checks the status and text that a device is shown of err.
func wantError(t *testing.T, err error, code int, text string) {
	t.Helper()
	switch {
	case code == 0 && err != nil:
		t.Errorf("got error %v, want none", err)
	case code != 0 && err == nil:
		t.Errorf("got no error, want %d %s", code, text)
	case err != nil && (status.HTTP(err) != code || status.Text(err) != text):
		t.Errorf("got %d %s, want %d %s", status.HTTP(err), status.Text(err), code, text)
	}
}

func TestTopicCopiesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() {
		if _, err := parseTopic("telemetry/tenant-1/device-1/more"); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}

// FuzzTopic checks that whatever a topic is read as stands in it.
func FuzzTopic(f *testing.F) {
	for _, s := range []string{"telemetry", "t//dev", "e/ten/dev/x", "c///s/r/200", "command", "", "/", "t//\xff", "t///////", "error/+/#"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, topic string) {
		got, err := parseTopic(topic)
		if err != nil && !errors.Is(err, iot.ErrInvalid) && !errors.Is(err, iot.ErrNotFound) {
			t.Fatalf("error %v is no answer for a device", err)
		}
		if !utf8.ValidString(topic) && err == nil {
			t.Fatalf("%q is no UTF-8, but accepted", topic)
		}
		if err != nil {
			return
		}
		again := strings.Join([]string{got.spelling, string(got.tenant), string(got.device)}, "/")
		if got.endpoint == iot.CommandResponse {
			again += "/" + strings.Split(topic, "/")[3] + "/" + got.request + "/" + got.status
		}
		if back, err := parseTopic(again); err != nil || back != got {
			t.Errorf("%q is %+v, but %q is %+v, %v", topic, got, again, back, err)
		}
		if !strings.HasPrefix(topic+"///", strings.TrimRight(again, "/")) {
			t.Errorf("%q was read as %q", topic, again)
		}
	})
}
