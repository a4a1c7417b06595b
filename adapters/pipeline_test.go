package adapters_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

type world struct {
	p    *adapters.Pipeline
	inv  *adaptertest.Invoker
	down *adaptertest.Downstream
}

func newWorld(t testing.TB, o adapters.Options) world {
	adm, inv := newAdmissions(t, adapters.AdmissionOptions{MaxAge: time.Hour})
	down := &adaptertest.Downstream{}
	o.Type, o.Admissions, o.Downstream = "hono-http", adm, down
	return world{adapters.NewPipeline(o), inv, down}
}

// publish admits Device and sends up; it returns the message that left.
func (w world) publish(t testing.TB, up adapters.Upload) (*iot.Message, error) {
	t.Helper()
	who, err := w.p.Admit(t.Context(), good())
	if err != nil {
		t.Fatal(err)
	}
	before := len(w.down.Sent())
	err = w.p.Publish(t.Context(), who, &up)
	if sent := w.down.Sent(); len(sent) > before {
		return sent[before], err
	}
	return nil, err
}

func telemetry(payload string) adapters.Upload {
	return adapters.Upload{Endpoint: iot.Telemetry, Address: "/telemetry", ContentType: "text/plain", Payload: []byte(payload)}
}

func TestPublishChecks(t *testing.T) {
	for _, tt := range []struct {
		name string
		up   adapters.Upload
		want error
	}{
		{"plain", telemetry("x"), nil},
		{"largest", telemetry(strings.Repeat("x", 2048)), nil},
		{"too large", telemetry(strings.Repeat("x", 2049)), iot.ErrTooLarge},
		{"QoS 2", adapters.Upload{Endpoint: iot.Telemetry, QoS: 2, ContentType: "a/b"}, iot.ErrInvalid},
		{"negative QoS", adapters.Upload{Endpoint: iot.Telemetry, QoS: -1, ContentType: "a/b"}, iot.ErrInvalid},
		{"event with QoS 0", adapters.Upload{Endpoint: iot.Event, ContentType: "a/b"}, iot.ErrInvalid},
		{"event", adapters.Upload{Endpoint: iot.Event, QoS: 1, ContentType: "a/b"}, nil},
		{"no such endpoint", adapters.Upload{Endpoint: "alarm", ContentType: "a/b"}, iot.ErrNotFound},
		{"empty without content type", adapters.Upload{Endpoint: iot.Telemetry}, iot.ErrInvalid},
		{"empty section without content type", adapters.Upload{Endpoint: iot.Telemetry, Payload: []byte{}}, iot.ErrInvalid},
		{"empty with content type", adapters.Upload{Endpoint: iot.Telemetry, ContentType: "a/b"}, nil},
		{"notification with payload", adapters.Upload{Endpoint: iot.Telemetry, ContentType: adapters.EmptyNotification, Payload: []byte("x")}, iot.ErrInvalid},
		{"empty command response", adapters.Upload{Endpoint: iot.CommandResponse, Status: 200, To: adapters.ResponseTo{CorrelationID: "c", ReplyID: "r"}}, nil},
		{"content type no symbol", adapters.Upload{Endpoint: iot.Telemetry, ContentType: "té/xt"}, iot.ErrInvalid},
		{"content type too long", adapters.Upload{Endpoint: iot.Telemetry, ContentType: strings.Repeat("x", 256)}, iot.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, adapters.Options{})
			m, err := w.publish(t, tt.up)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if (m != nil) != (tt.want == nil) {
				t.Errorf("message left: %v, want %v", m != nil, tt.want == nil)
			}
		})
	}
}

func TestMessageFields(t *testing.T) {
	w := newWorld(t, adapters.Options{})
	ttd := 20
	before := time.Now()
	m, err := w.publish(t, adapters.Upload{
		Endpoint: iot.Telemetry, QoS: 1, Address: "/telemetry?x=\xff", ContentType: "a/b", ContentEncoding: "gzip", TTD: &ttd, Retain: true,
		Properties: map[string]any{"meta_data": "{}", "device_id": "forged"}, Payload: []byte("x"),
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", TraceState: "a=b",
	})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := uuid.Parse(m.ID); err != nil || id.Version() != 7 {
		t.Errorf("got message id %q, want a UUIDv7", m.ID)
	}
	if m.Created.Before(before) || m.Created.After(time.Now()) {
		t.Errorf("got creation time %v, want now", m.Created)
	}
	m.ID, m.Created = "", time.Time{}
	want := &iot.Message{
		Endpoint: iot.Telemetry, Tenant: adaptertest.Tenant, Device: adaptertest.Device, QoS: 1,
		Adapter: "hono-http", Address: "/telemetry?x=\uFFFD", Assertion: "token-1",
		ContentType: "a/b", ContentEncoding: "gzip", TTD: &ttd, Retain: true,
		Properties: map[string]any{"meta_data": "{}"}, Payload: []byte("x"),
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", TraceState: "a=b",
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
}

func TestDefaults(t *testing.T) {
	tenant := map[string]any{
		"content-type": "tenant/type", "a": "tenant", "b": "tenant", "whole": float64(7), "half": 0.5,
		"large": json.Number("3000000000"), "yes": true, "list": []any{1}, "object": map[string]any{}, "null": nil,
		"to": "elsewhere", "subject": "x", "priority": float64(9), "message-id": "x", "device_id": "x", "reg_assertion": "x",
		"x-opt-retain": true, "ttd": float64(30), "content-encoding": 5.0,
	}
	device := map[string]any{"content-type": "device/type", "b": "device", "c": "device"}
	up := adapters.Upload{Endpoint: iot.Telemetry, Payload: []byte("x"), Properties: map[string]any{"c": "message", "n": 1}}

	t.Run("merged", func(t *testing.T) {
		w := newWorld(t, adapters.Options{})
		w.inv.Defaults(tenant, device, "")
		m, err := w.publish(t, up)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"a": "tenant", "b": "device", "c": "message", "n": int32(1), "whole": int32(7), "half": 0.5, "large": int64(3000000000), "yes": true,
		}
		if diff := cmp.Diff(want, m.Properties); diff != "" {
			t.Errorf("properties (-want +got):\n%s", diff)
		}
		if m.ContentType != "device/type" || m.ContentEncoding != "" || !m.Retain || m.TTD == nil || *m.TTD != 30 {
			t.Errorf("got %q, %q, retain %v, ttd %v", m.ContentType, m.ContentEncoding, m.Retain, m.TTD)
		}
		if m, _ = w.publish(t, telemetry("x")); m.ContentType != "text/plain" || m.Properties["c"] != "device" {
			t.Errorf("one message changed the defaults of the next: %q, %v", m.ContentType, m.Properties)
		}
	})
	t.Run("off", func(t *testing.T) {
		w := newWorld(t, adapters.Options{NoDefaults: true})
		w.inv.Defaults(tenant, device, "")
		m, err := w.publish(t, up)
		if err != nil {
			t.Fatal(err)
		}
		if m.ContentType != "application/octet-stream" || len(m.Properties) != 2 || m.Retain {
			t.Errorf("got %q, %v, retain %v: want none of the defaults", m.ContentType, m.Properties, m.Retain)
		}
		up := up
		up.Endpoint, up.Status, up.To = iot.CommandResponse, 200, adapters.ResponseTo{CorrelationID: "c", ReplyID: "r"}
		if m, _ = w.publish(t, up); m.ContentType != "device/type" {
			t.Errorf("command response: got content type %q, want device/type", m.ContentType)
		}
	})
}

func TestTTL(t *testing.T) {
	sec := func(n int) *time.Duration { d := time.Duration(n) * time.Second; return &d }
	type props = map[string]any
	for _, tt := range []struct {
		name     string
		endpoint iot.Endpoint
		qos      iot.QoS
		own      *time.Duration
		defaults props
		limits   string
		want     time.Duration
	}{
		{"nothing", iot.Event, 1, nil, nil, "", 0},
		{"own", iot.Event, 1, sec(5), props{"ttl": 9.0}, "", 5 * time.Second},
		{"default", iot.Event, 1, nil, props{"ttl": 9.0}, "", 9 * time.Second},
		{"negative default", iot.Event, 1, nil, props{"ttl": -9.0}, "", 0},
		{"default that is no number", iot.Event, 1, nil, props{"ttl": "9"}, "", 0},
		{"limit alone", iot.Event, 1, nil, nil, `{"max-ttl":7}`, 7 * time.Second},
		{"below limit", iot.Event, 1, sec(5), nil, `{"max-ttl":7}`, 5 * time.Second},
		{"above limit", iot.Event, 1, sec(8), nil, `{"max-ttl":7}`, 7 * time.Second},
		{"none, beyond limit", iot.Event, 1, sec(0), nil, `{"max-ttl":7}`, 7 * time.Second},
		{"none in place of default", iot.Event, 1, sec(0), props{"ttl": 9.0}, "", 0},
		{"default of none, beyond limit", iot.Event, 1, nil, props{"ttl": 0.0}, `{"max-ttl":7}`, 7 * time.Second},
		{"unlimited", iot.Event, 1, nil, nil, `{"max-ttl":-1}`, 0},
		{"limit of telemetry only", iot.Event, 1, sec(8), nil, `{"max-ttl-telemetry-qos1":7}`, 8 * time.Second},
		{"telemetry 0", iot.Telemetry, 0, nil, props{"ttl-telemetry-qos0": 3.0, "ttl-telemetry-qos1": 4.0}, `{"max-ttl":1}`, 3 * time.Second},
		{"telemetry 1", iot.Telemetry, 1, nil, props{"ttl-telemetry-qos0": 3.0, "ttl-telemetry-qos1": 4.0}, "", 4 * time.Second},
		{"general default first", iot.Telemetry, 1, nil, props{"ttl": 2.0, "ttl-telemetry-qos1": 4.0}, "", 2 * time.Second},
		{"telemetry limit 0", iot.Telemetry, 0, nil, props{"ttl": 9.0}, `{"max-ttl-telemetry-qos0":6}`, 6 * time.Second},
		{"telemetry limit 1", iot.Telemetry, 1, nil, props{"ttl": 9.0}, `{"max-ttl-telemetry-qos1":5}`, 5 * time.Second},
		{"response", iot.CommandResponse, 1, nil, props{"ttl-command-response": 8.0}, `{"max-ttl-command-response":6}`, 6 * time.Second},
		{"longer than the field", iot.Event, 1, nil, props{"ttl": 1e15}, "", 4294967295 * time.Millisecond},
		{"limits unreadable", iot.Event, 1, sec(5), nil, `[1]`, 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, adapters.Options{})
			w.inv.Defaults(tt.defaults, nil, tt.limits)
			m, err := w.publish(t, adapters.Upload{
				Endpoint: tt.endpoint, QoS: tt.qos, TTL: tt.own, ContentType: "a/b",
				Status: 200, To: adapters.ResponseTo{CorrelationID: "c", ReplyID: "r"},
			})
			if err != nil {
				t.Fatal(err)
			}
			if m.TTL != tt.want || len(m.Properties) != 0 {
				t.Errorf("got %v and properties %v, want %v and none", m.TTL, m.Properties, tt.want)
			}
		})
	}
}

func TestTraceContext(t *testing.T) {
	const trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	valid := "00-" + trace + "-" + span + "-01"
	for _, tt := range []struct{ name, parent, want string }{
		{"valid", valid, valid},
		{"later version", "01-" + trace + "-" + span + "-01-more", valid},
		{"missing", "", ""},
		{"too long", valid + "-more", ""},
		{"later version, glued", "01-" + trace + "-" + span + "-01more", ""},
		{"version ff", "ff" + valid[2:], ""},
		{"no trace id", "00-" + strings.Repeat("0", 32) + "-" + span + "-01", ""},
		{"no span id", "00-" + trace + "-" + strings.Repeat("0", 16) + "-01", ""},
		{"upper case", strings.ToUpper(valid), ""},
		{"other separators", strings.ReplaceAll(valid, "-", "_"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, adapters.Options{})
			up := telemetry("x")
			up.TraceParent, up.TraceState = tt.parent, "vendor=1"
			m, err := w.publish(t, up)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want != "" {
				if m.TraceParent != tt.want || m.TraceState != "vendor=1" {
					t.Errorf("got %q, %q; want %q, vendor=1", m.TraceParent, m.TraceState, tt.want)
				}
				return
			}
			if len(m.TraceParent) != 55 || !strings.HasSuffix(m.TraceParent, "-00") || m.TraceState != "" {
				t.Errorf("got %q, %q; want a new root, not sampled, without state", m.TraceParent, m.TraceState)
			}
		})
	}
}

func TestTextsOfOutcomes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{iot.ErrNoCredit, adapters.TextNoConsumer},
		{iot.ErrTimeout, adapters.TextNoOutcome},
		{iot.ErrUnavailable, adapters.TextUnavailable},
		{iot.Errorf(iot.ErrUnavailable, "%s", adapters.TextNotProcessed), adapters.TextNotProcessed},
		{iot.Errorf(iot.ErrInvalid, "value out of range"), "value out of range"},
	} {
		w := newWorld(t, adapters.Options{})
		w.down.Outcome(func(*iot.Message) error { return tt.err })
		_, err := w.publish(t, telemetry("x"))
		if !errors.Is(err, tt.err) || status.Text(err) != tt.want {
			t.Errorf("%v: got text %q, want %q", tt.err, status.Text(err), tt.want)
		}
	}
}

func BenchmarkPublish(b *testing.B) {
	w := newWorld(b, adapters.Options{})
	w.inv.Defaults(map[string]any{"a": 1.0}, nil, "")
	who, err := w.p.Admit(b.Context(), good())
	if err != nil {
		b.Fatal(err)
	}
	up := telemetry(strings.Repeat("x", 256))
	p := adapters.NewPipeline(adapters.Options{Type: "hono-http", Admissions: adapters.NewAdmissions(adapters.AdmissionOptions{Invoker: w.inv}), Downstream: adaptertest.Discard{}})
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Publish(b.Context(), who, &up); err != nil {
			b.Fatal(err)
		}
	}
}
