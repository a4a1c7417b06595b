package events_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

var (
	noon = time.Date(2026, 11, 22, 12, 0, 0, 123456789, time.UTC)
	env  = events.Envelope{Source: "//sluice.local/adapters/mqtt-0.7f3a", ID: "0199b0c2-6f0e-7b1a-9d53-4a5f0d1c2e3b", Time: noon, Timeout: 9800 * time.Millisecond}
	log  = slog.New(slog.DiscardHandler)
)

func TestDerivedID(t *testing.T) {
	for _, tt := range []struct {
		fields []string
		want   string
	}{
		{[]string{"io.sluice.usage.reported", "mqtt-0.7f3a", "2026-11-22T20:00:00Z"}, "Vtrhs6nI8EHsw1wMXAcKiQ"},
		{[]string{"io.sluice.error", "0199b0c2-6f0e-7b1a-9d53-4a5f0d1c2e3b"}, "SNv0nOHC5JZOX9PmYPPyvg"},
	} {
		if got := events.DerivedID(tt.fields...); got != tt.want {
			t.Errorf("d(%q) = %s, want %s", tt.fields, got, tt.want)
		}
	}
	if events.DerivedID("ab", "c") == events.DerivedID("a", "bc") {
		t.Error("fields run into each other")
	}
}

func TestNewID(t *testing.T) {
	id, err := uuid.Parse(events.NewID())
	if err != nil || id.Version() != 7 {
		t.Errorf("got %s, %v, want a UUIDv7", id, err)
	}
}

func TestSequenceSortsByBytes(t *testing.T) {
	if a, b := events.Sequence(9), events.Sequence(10); !(a < b) || len(a) != 20 || len(events.Sequence(1<<64-1)) != 20 {
		t.Errorf("%s, %s", a, b)
	}
}

// TestTheContractsExample is the exchange of contract events, section 7.
func TestTheContractsExample(t *testing.T) {
	call, err := events.EncodeRequest(events.RegistrationAssert{TenantID: "DEMO", DeviceID: "4711"}, env)
	if err != nil {
		t.Fatal(err)
	}
	same(t, call, `{"specversion":"1.0","type":"io.sluice.registration.assert","source":"//sluice.local/adapters/mqtt-0.7f3a",
		"id":"0199b0c2-6f0e-7b1a-9d53-4a5f0d1c2e3b","time":"2026-11-22T12:00:00.123Z","subject":"4711","tenantid":"DEMO","timeoutms":9800,
		"datacontenttype":"application/json","dataschema":"https://sluice.io/schemas/io.sluice.registration.assert.json","data":{"device-id":"4711"}}`)
	failed := events.EncodeError(&call, "//sluice.local/functions/registration", iot.Errorf(iot.ErrNotFound, "device is disabled or not registered"), noon)
	same(t, failed, `{"specversion":"1.0","type":"io.sluice.error","source":"//sluice.local/functions/registration",
		"id":"SNv0nOHC5JZOX9PmYPPyvg","time":"2026-11-22T12:00:00.123Z","subject":"4711","tenantid":"DEMO","statuscode":404,
		"causationid":"0199b0c2-6f0e-7b1a-9d53-4a5f0d1c2e3b","datacontenttype":"application/json","dataschema":"https://sluice.io/schemas/io.sluice.error.json",
		"data":{"status":404,"code":"not-found","error":"device is disabled or not registered"}}`)
	done, err := events.EncodeReply(&call, "//sluice.local/functions/registration", &events.RegistrationAsserted{
		Registration: events.Registration{DeviceID: "4711"}, Assertion: "a.b.c", AssertionExpires: noon.Truncate(time.Second), CacheFor: 82800 * time.Second}, noon)
	if err != nil {
		t.Fatal(err)
	}
	same(t, done, `{"specversion":"1.0","type":"io.sluice.registration.assert.result","source":"//sluice.local/functions/registration",
		"id":"6eUYeGLc5-KGvc2XbnaYNQ","time":"2026-11-22T12:00:00.123Z","subject":"4711","tenantid":"DEMO","statuscode":200,"maxage":82800,
		"causationid":"0199b0c2-6f0e-7b1a-9d53-4a5f0d1c2e3b","datacontenttype":"application/json",
		"dataschema":"https://sluice.io/schemas/io.sluice.registration.assert.result.json",
		"data":{"device-id":"4711","assertion":"a.b.c","assertion-expires":"2026-11-22T12:00:00Z"}}`)
}

func same(t *testing.T, e event.Event, want string) {
	t.Helper()
	if err := e.Validate(); err != nil {
		t.Fatal(err)
	}
	b, err := e.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var g, w any
	if err := errors.Join(json.Unmarshal(b, &g), json.Unmarshal([]byte(want), &w)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(w, g); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestRequestsComeBack(t *testing.T) {
	for _, req := range []events.Request{
		events.TenantGet{ID: "alias"},
		events.TenantGet{SubjectDN: "CN=a"},
		events.CredentialsGet{TenantID: "T", Type: "psk", AuthID: "a", ClientCertificate: []byte{1}, Context: map[string]any{"client-id": "c", "n": 1.5}},
		events.RegistrationAssert{TenantID: "T", DeviceID: "D", GatewayID: "G"},
		events.Admit{Adapter: "hono-http", TenantRef: events.TenantRef{ID: "alias"}, Credential: &events.Credential{Type: "psk", AuthID: "a"}, DeviceID: "D"},
		events.AssertionSign{TenantID: "T", DeviceID: "D", Rev: events.Sequence(1)},
		events.AssertionKeys{},
		events.AssertionRotate{OverlapSeconds: 5, At: noon.Truncate(time.Millisecond)},
	} {
		t.Run(req.EventType(), func(t *testing.T) {
			e, err := events.EncodeRequest(req, env)
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Validate(); err != nil {
				t.Error(err)
			}
			got, err := events.DecodeRequest(&e)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(req, got); d != "" {
				t.Errorf("(-sent +got)\n%s", d)
			}
			if id, ok := e.Extensions()[events.AttrTenantID]; ok && id == "alias" {
				t.Error("the attribute tenantid holds what may be an alias")
			}
		})
	}
}

func TestRepliesComeBack(t *testing.T) {
	for _, tt := range []struct {
		req events.Request
		rep events.Reply
	}{
		{events.TenantGet{ID: "a"}, &events.TenantGot{TenantObject: events.TenantObject{ID: "T", Enabled: true}, CacheFor: 180 * time.Second}},
		{events.CredentialsGet{TenantID: "T", Type: "x", AuthID: "a"}, &events.CredentialsGot{DeviceID: "D", Provisioned: true, Credential: iot.Credential{Type: "psk", AuthID: "a", Secrets: []iot.Secret{{ID: "s", Key: []byte{1}}}}}},
		{events.Admit{Adapter: "a"}, &events.Admitted{TenantObject: events.TenantObject{ID: "T"}, DeviceID: "D", Assertion: "a.b.c", AssertionExpires: noon.Truncate(time.Second), PSK: []byte{1}, CacheFor: time.Hour}},
		{events.AssertionKeys{}, &events.KeySet{Keys: []json.RawMessage{[]byte(`{"kid":"k"}`)}, CacheFor: 24 * time.Hour}},
		{events.AssertionRotate{}, &events.AssertionRotated{KID: "k"}},
	} {
		t.Run(tt.req.EventType(), func(t *testing.T) {
			call, err := events.EncodeRequest(tt.req, env)
			if err != nil {
				t.Fatal(err)
			}
			e, err := events.EncodeReply(&call, "//sluice.local/functions/x", tt.rep, noon)
			if err != nil {
				t.Fatal(err)
			}
			got, err := events.DecodeReply(tt.req, &e)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.rep, got); d != "" {
				t.Errorf("(-sent +got)\n%s", d)
			}
		})
	}
}

func TestErrorsComeBack(t *testing.T) {
	call, err := events.EncodeRequest(events.TenantGet{ID: "T"}, env)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		err  error
		want iot.Error
	}{
		{iot.Errorf(iot.ErrNotFound, "text"), iot.Error{Sentinel: iot.ErrNotFound, Text: "text"}},
		{fmt.Errorf("with internals: %w", iot.ErrExists), iot.Error{Sentinel: iot.ErrExists, Text: "exists already"}},
		{&iot.Error{Sentinel: iot.ErrQuota, Text: "q", RetryAfter: 1200 * time.Millisecond}, iot.Error{Sentinel: iot.ErrQuota, Text: "q", RetryAfter: 2 * time.Second}},
		{&iot.Error{Sentinel: iot.ErrInvalid, Text: "i", RetryAfter: time.Second}, iot.Error{Sentinel: iot.ErrInvalid, Text: "i"}},
		{iot.Errorf(iot.ErrNoCredit, "n"), iot.Error{Sentinel: iot.ErrUnavailable, Text: "n"}},
		{context.DeadlineExceeded, iot.Error{Sentinel: iot.ErrTimeout, Text: "timed out"}},
		{errors.New("secret"), iot.Error{Sentinel: status.ErrInternal, Text: "internal error"}},
		{iot.Errorf(status.ErrUnknownType, "u"), iot.Error{Sentinel: status.ErrUnknownType, Text: "u"}},
		{iot.Errorf(status.ErrNotCloudEvent, "c"), iot.Error{Sentinel: status.ErrNotCloudEvent, Text: "c"}},
	} {
		t.Run(tt.err.Error(), func(t *testing.T) {
			e := events.EncodeError(&call, "//sluice.local/functions/tenant", tt.err, noon)
			if _, ok := e.Extensions()[events.AttrMaxAge]; ok {
				t.Error("an error has a maxage")
			}
			if got, want := events.StatusCode(&e), status.Of(&tt.want).Status; got != want {
				t.Errorf("statuscode %d, want %d", got, want)
			}
			_, err := events.DecodeReply(events.TenantGet{}, &e)
			var got *iot.Error
			if !errors.As(err, &got) {
				t.Fatalf("got %T", err)
			}
			if d := cmp.Diff(tt.want, *got, cmpopts.EquateErrors()); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if direct := events.ErrorOf(tt.err); !cmp.Equal(*direct, *got, cmpopts.EquateErrors()) {
				t.Errorf("in one process it is %+v, encoded %+v", direct, got)
			}
		})
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, req := range map[string]events.Request{
		"line break in the device": events.RegistrationAssert{TenantID: "T", DeviceID: "a\r\nb"},
		"not UTF-8":                events.RegistrationAssert{TenantID: "T", DeviceID: "\xff"},
		"control in the tenant":    events.RegistrationAssert{TenantID: "T\x00", DeviceID: "D"},
	} {
		if _, err := events.EncodeRequest(req, env); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	late := env
	late.Timeout = 0
	if _, err := events.EncodeRequest(events.TenantGet{ID: "T"}, late); !errors.Is(err, iot.ErrTimeout) {
		t.Errorf("no time left: %v", err)
	}
}

func TestDispatcher(t *testing.T) {
	f := events.NewFunction(func(ctx context.Context, req events.TenantGet) (*events.TenantGot, error) {
		switch req.ID {
		case "panic":
			panic("secret")
		case "nil":
			return nil, nil
		case "slow":
			<-ctx.Done()
			return nil, ctx.Err()
		case "unknown":
			return nil, errors.New("secret")
		}
		return &events.TenantGot{TenantObject: events.TenantObject{ID: req.ID}}, nil
	})
	d, err := events.NewDispatcher("sluice.local", log, f)
	if err != nil {
		t.Fatal(err)
	}
	deny := func(string) error { return iot.Errorf(iot.ErrForbidden, "no") }
	for _, tt := range []struct {
		name   string
		req    events.Request
		change func(*event.Event)
		allow  func(string) error
		status int
	}{
		{"reply", events.TenantGet{ID: "T"}, nil, nil, 200},
		{"panic", events.TenantGet{ID: "panic"}, nil, nil, 500},
		{"neither reply nor error", events.TenantGet{ID: "nil"}, nil, nil, 500},
		{"unknown error", events.TenantGet{ID: "unknown"}, nil, nil, 500},
		{"deadline", events.TenantGet{ID: "slow"}, func(e *event.Event) { e.SetExtension("timeoutms", 1) }, nil, 504},
		{"timeout is no number", events.TenantGet{ID: "T"}, func(e *event.Event) { e.SetExtension("timeoutms", "x") }, nil, 400},
		{"timeout is 0", events.TenantGet{ID: "T"}, func(e *event.Event) { e.SetExtension("timeoutms", 0) }, nil, 400},
		{"type not served", events.AssertionKeys{}, nil, nil, 422},
		{"no call", events.TenantGet{ID: "T"}, func(e *event.Event) { e.SetType("x") }, nil, 422},
		{"not allowed", events.TenantGet{ID: "T"}, nil, deny, 403},
		{"no JSON", events.TenantGet{ID: "T"}, func(e *event.Event) { e.DataEncoded = []byte("{") }, nil, 400},
		{"wrong JSON type", events.TenantGet{ID: "T"}, func(e *event.Event) { e.DataEncoded = []byte(`{"tenant-id":5}`) }, nil, 400},
		{"no data", events.TenantGet{ID: "T"}, func(e *event.Event) { e.DataEncoded = nil }, nil, 400},
		{"other media type", events.TenantGet{ID: "T"}, func(e *event.Event) { e.SetDataContentType("text/plain") }, nil, 400},
		{"other version", events.TenantGet{ID: "T"}, func(e *event.Event) { e.SetSpecVersion("0.3") }, nil, 400},
		{"no id", events.TenantGet{ID: "T"}, func(e *event.Event) { e.Context.(*event.EventContextV1).ID = "" }, nil, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			call, err := events.EncodeRequest(tt.req, env)
			if err != nil {
				t.Fatal(err)
			}
			if tt.change != nil {
				tt.change(&call)
			}
			e := d.Serve(t.Context(), &call, tt.allow)
			if got := events.StatusCode(&e); got != tt.status {
				t.Errorf("statuscode %d, want %d: %s", got, tt.status, e.Data())
			}
			if err := e.Validate(); err != nil {
				t.Error(err)
			}
			if strings.Contains(string(e.Data()), "secret") {
				t.Errorf("internals leave the function: %s", e.Data())
			}
		})
	}
	if _, err := events.NewDispatcher("x", log, f, f); err == nil {
		t.Error("two functions for one type are accepted")
	}
}
