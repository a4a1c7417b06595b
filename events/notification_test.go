package events_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

var second = time.Date(2026, 11, 22, 12, 0, 0, 123000000, time.UTC)

func changed(typ string, sequence uint64, device iot.DeviceID, change string, enabled bool) events.RegistryChanged {
	return events.RegistryChanged{Type: typ, TenantID: "T ü/1", Sequence: sequence, DeviceID: device, Change: change, Enabled: enabled, At: second}
}

var facts = []events.Fact{
	changed(events.TypeTenantChanged, 1, "", "CREATE", true),
	events.RegistryChanged{Type: events.TypeTenantChanged, TenantID: "T", Sequence: 2, Change: "DELETE", InvalidateCache: true, At: second},
	changed(events.TypeDeviceChanged, 3, "4711", "UPDATE", false),
	changed(events.TypeCredentialsChanged, 4, "4711", "", false),
	changed(events.TypeDevicesDeleted, 1<<63-1, "", "", false),
	events.DeviceProvisioned{TenantID: "T", DeviceID: "D", Method: events.ByCertificate, At: second},
	events.DeviceProvisioned{TenantID: "T", DeviceID: "D", GatewayID: "G", Method: events.ByGateway, At: second},
}

func TestFactsComeBack(t *testing.T) {
	for _, f := range facts {
		e, err := events.EncodeFact(f, "sluice.local")
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Validate(); err != nil {
			t.Error(err)
		}
		b, err := e.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var arrived event.Event
		if err := arrived.UnmarshalJSON(b); err != nil {
			t.Fatal(err)
		}
		got, err := events.DecodeFact(&arrived)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if d := cmp.Diff(f, got); d != "" {
			t.Error(d)
		}
	}
}

// TestTheNotificationIsHonos holds attributes and data against contract
// events 1 and 4.2, and messaging 14.
func TestTheNotificationIsHonos(t *testing.T) {
	f := changed(events.TypeDeviceChanged, 42, "4711", "UPDATE", true)
	e, err := events.EncodeFact(f, "sluice.local")
	if err != nil {
		t.Fatal(err)
	}
	if want := "//sluice.local/tenants/T%20%C3%BC%2F1"; e.Source() != want || e.Subject() != "4711" || !e.Time().Equal(second) {
		t.Errorf("source %s, subject %s, time %s", e.Source(), e.Subject(), e.Time())
	}
	if want := events.DerivedID(f.Type, "T ü/1", "00000000000000000042"); e.ID() != want {
		t.Errorf("id %s, want %s", e.ID(), want)
	}
	if e.DataSchema() != "https://sluice.io/schemas/io.sluice.registry.device.changed.json" {
		t.Error(e.DataSchema())
	}
	want := map[string]any{"tenantid": "T ü/1", "deviceid": "4711", "partitionkey": "T ü/1/4711", "sequence": "00000000000000000042"}
	if d := cmp.Diff(want, e.Extensions()); d != "" {
		t.Error(d)
	}
	if got, want := string(e.Data()), `{"type":"device-change-v1","source":"device-registry","creation-time":"2026-11-22T12:00:00Z",`+
		`"change":"UPDATE","tenant-id":"T ü/1","device-id":"4711","enabled":true}`; got != want {
		t.Errorf("data %s\nwant %s", got, want)
	}
	b, _ := json.Marshal(facts[1])
	if want := `{"type":"tenant-change-v1","source":"device-registry","creation-time":"2026-11-22T12:00:00Z",` +
		`"change":"DELETE","tenant-id":"T","enabled":false,"invalidate-cache-on-update":true}`; string(b) != want {
		t.Errorf("data %s\nwant %s", b, want)
	}
}

func TestIncompleteFactsAreNotEncoded(t *testing.T) {
	ok := changed(events.TypeDeviceChanged, 1, "D", "UPDATE", true)
	for name, change := range map[string]func(*events.RegistryChanged){
		"type":                func(c *events.RegistryChanged) { c.Type = "io.sluice.other" },
		"tenant":              func(c *events.RegistryChanged) { c.TenantID = "" },
		"tenant with control": func(c *events.RegistryChanged) { c.TenantID = "a\nb" },
		"device":              func(c *events.RegistryChanged) { c.DeviceID = "" },
		"sequence":            func(c *events.RegistryChanged) { c.Sequence = 0 },
		"change":              func(c *events.RegistryChanged) { c.Change = "update" },
		"enabled and deleted": func(c *events.RegistryChanged) { c.Change = "DELETE" },
		"invalidate":          func(c *events.RegistryChanged) { c.InvalidateCache = true },
		"time":                func(c *events.RegistryChanged) { c.At = time.Time{} },
		"change of credentials": func(c *events.RegistryChanged) {
			c.Type = events.TypeCredentialsChanged
		},
	} {
		c := ok
		change(&c)
		if _, err := events.EncodeFact(c, "i"); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, p := range []events.DeviceProvisioned{
		{TenantID: "T", DeviceID: "D", Method: events.ByGateway, At: noon}, {TenantID: "T", DeviceID: "D", Method: "magic", At: noon},
		{TenantID: "T", Method: events.ByCertificate, At: noon},
	} {
		if _, err := events.EncodeFact(p, "i"); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func TestWrongFactsAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*event.Event)
		says   string
		want   error
	}{
		{"call", func(e *event.Event) { e.SetType(events.TypeTenantGet) }, "no fact has the type", status.ErrUnknownType},
		{"other fact", func(e *event.Event) { e.SetType(events.TypeTenantChanged) }, "member type", iot.ErrInvalid},
		{"content type", func(e *event.Event) { e.SetDataContentType("text/plain") }, "datacontenttype", iot.ErrInvalid},
		{"no time", func(e *event.Event) { e.SetTime(time.Time{}) }, "attribute time", iot.ErrInvalid},
		{"no id", func(e *event.Event) { e.SetID("") }, "not a valid CloudEvent", iot.ErrInvalid},
		{"another id", func(e *event.Event) { e.SetID("x") }, "id is", iot.ErrInvalid},
		{"another tenant", func(e *event.Event) { e.SetExtension("tenantid", "other") }, "attribute tenantid", iot.ErrInvalid},
		{"another device", func(e *event.Event) { e.SetExtension("deviceid", "other") }, "attribute deviceid", iot.ErrInvalid},
		{"another subject", func(e *event.Event) { e.SetSubject("other") }, "subject", iot.ErrInvalid},
		{"another source", func(e *event.Event) { e.SetSource("//i/tenants/other") }, "source", iot.ErrInvalid},
		{"no sequence", func(e *event.Event) { e.SetExtension("sequence", nil) }, "sequence", iot.ErrInvalid},
		{"short sequence", func(e *event.Event) { e.SetExtension("sequence", "1") }, "sequence", iot.ErrInvalid},
		{"sequence 0", func(e *event.Event) { e.SetExtension("sequence", "00000000000000000000") }, "sequence", iot.ErrInvalid},
		{"sequence too large", func(e *event.Event) { e.SetExtension("sequence", "18446744073709551615") }, "sequence", iot.ErrInvalid},
		{"no data", func(e *event.Event) { e.DataEncoded = nil }, "data", iot.ErrInvalid},
		{"data of another type", func(e *event.Event) { e.DataEncoded = []byte(`{"type":7}`) }, "member", iot.ErrInvalid},
		{"foreign source", replace("device-registry", "me"), "member source", iot.ErrInvalid},
		{"creation-time", replace("2026-11-22T12:00:00Z", "noon"), "creation-time", iot.ErrInvalid},
		{"change", replace("UPDATE", "RENAME"), "change", iot.ErrInvalid},
		{"no enabled", replace(`,"enabled":true`, ``), "enabled", iot.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, err := events.EncodeFact(changed(events.TypeDeviceChanged, 42, "4711", "UPDATE", true), "i")
			if err != nil {
				t.Fatal(err)
			}
			tt.change(&e)
			if _, err := events.DecodeFact(&e); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %v that says %q", err, tt.want, tt.says)
			}
		})
	}
}

func replace(old, now string) func(*event.Event) {
	return func(e *event.Event) { e.DataEncoded = []byte(strings.Replace(string(e.DataEncoded), old, now, 1)) }
}

func TestChangesGoThroughTheEnvelope(t *testing.T) {
	req := events.RegistryChanges{Sequences: map[iot.TenantID]uint64{"T": 41, "U": 0}, Since: second, Max: 10}
	call, err := events.EncodeRequest(req, env)
	if err != nil {
		t.Fatal(err)
	}
	got, err := events.DecodeRequest(&call)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(events.Request(req), got); d != "" {
		t.Error(d)
	}
	rep := &events.ChangesFound{More: true, Now: second, Changes: []events.RegistryChanged{facts[2].(events.RegistryChanged), facts[0].(events.RegistryChanged)}}
	e, err := events.EncodeReply(&call, "//sluice.local/functions/registry", rep, noon)
	if err != nil {
		t.Fatal(err)
	}
	back, err := events.DecodeReply(req, &e)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(events.Reply(rep), back); d != "" {
		t.Error(d)
	}
	for _, data := range []string{`{"after":{},"max":0}`, `{"after":{},"max":1001}`, `{"after":{"tenants":{"T":"1"}},"max":1}`, `{"after":{"time":"x"},"max":1}`} {
		call.DataEncoded = []byte(data)
		if _, err := events.DecodeRequest(&call); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("%s: %v", data, err)
		}
	}
	provisioned, _ := events.EncodeFact(facts[5], "i")
	b, _ := provisioned.MarshalJSON()
	for _, data := range []string{`{"changes":[],"more":false}`, `{"changes":[` + string(b) + `],"more":false,"now":"2026-11-22T12:00:00Z"}`} {
		e.DataEncoded = []byte(data)
		if _, err := events.DecodeReply(req, &e); !errors.Is(err, iot.ErrUnavailable) {
			t.Errorf("%s: %v", data, err)
		}
	}
}

func FuzzDecodeFact(f *testing.F) {
	all := slices.Clone(facts)
	for _, p := range presence {
		all = append(all, p)
	}
	for _, fact := range all {
		e, err := events.EncodeFact(fact, "i")
		if err != nil {
			f.Fatal(err)
		}
		b, err := e.MarshalJSON()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var e event.Event
		if e.UnmarshalJSON(b) != nil {
			return
		}
		fact, err := events.DecodeFact(&e)
		if err != nil {
			if !errors.Is(err, iot.ErrInvalid) && !errors.Is(err, status.ErrUnknownType) {
				t.Fatal(err)
			}
			return
		}
		again, err := events.EncodeFact(fact, "i")
		if err != nil {
			t.Fatalf("%+v came in and does not go out: %v", fact, err)
		}
		back, err := events.DecodeFact(&again)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(fact, back); d != "" {
			t.Error(d)
		}
	})
}
