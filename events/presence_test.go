package events_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

var connection = events.Connection{TenantID: "T", DeviceID: "D", GatewayID: "G", RemoteID: "cli\nent", Source: "hono-mqtt", Data: json.RawMessage(`{"a":1}`), At: second}

var presence = []events.PresenceFact{
	events.DeviceTTD{TenantID: "T ü/1", DeviceID: "D", GatewayID: "G", TTDSeconds: -1, At: second},
	events.DeviceTTD{TenantID: "T", DeviceID: "D", At: second},
	events.DeviceTTD{TenantID: "T", DeviceID: "D", TTDSeconds: 30, At: second},
	events.DeviceConnected{Connection: connection},
	events.DeviceDisconnected{Connection: events.Connection{TenantID: "T", DeviceID: "D", RemoteID: "unknown", Source: "a", At: second}},
}

func TestFactsOfPresenceComeBack(t *testing.T) {
	for _, f := range presence {
		e, err := events.EncodeFact(f, "sluice.local")
		if err != nil {
			t.Fatal(err)
		}
		b, err := e.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		arrived, err := events.ParseJSON(b)
		if err != nil {
			t.Fatal(err)
		}
		got, err := events.DecodeFact(&arrived)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if d := cmp.Diff(events.Fact(f), got); d != "" {
			t.Error(d)
		}
		if id := f.Event().ID; id != e.ID() {
			t.Errorf("%s: the event has id %s, the fact %s", b, id, e.ID())
		}
	}
}

// TestHowPresenceIsTold holds attributes, data and ids against contract events 1, 2 and 4.3.
func TestHowPresenceIsTold(t *testing.T) {
	e, err := events.EncodeFact(presence[0], "sluice.local")
	if err != nil {
		t.Fatal(err)
	}
	if e.Type() != "io.sluice.device.ttd" || e.Source() != "//sluice.local/tenants/T%20%C3%BC%2F1" || e.Subject() != "D" || !e.Time().Equal(second) {
		t.Errorf("got %s", e)
	}
	if want := events.DerivedID("io.sluice.device.ttd", "T ü/1", "D", "subscribed", "2026-11-22T12:00:00.123Z"); e.ID() != want {
		t.Errorf("id %s, want %s", e.ID(), want)
	}
	want := map[string]any{"tenantid": "T ü/1", "deviceid": "D", "gatewayid": "G", "partitionkey": "T ü/1/D"}
	if d := cmp.Diff(want, e.Extensions()); d != "" {
		t.Error(d)
	}
	for i, want := range []string{
		`{"ttd-seconds":-1}`, `{"ttd-seconds":0}`, `{"ttd-seconds":30,"until":"2026-11-22T12:00:30.123Z"}`,
		`{"cause":"connected","remote-id":"cli\nent","source":"hono-mqtt","data":{"a":1}}`, `{"cause":"disconnected","remote-id":"unknown","source":"a"}`,
	} {
		e, err := events.EncodeFact(presence[i], "sluice.local")
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Data()) != want {
			t.Errorf("got %s, want %s", e.Data(), want)
		}
	}
	e, _ = events.EncodeFact(presence[3], "sluice.local")
	if want := events.DerivedID("io.sluice.device.connected", "T", "D", "cli\nent", "2026-11-22T12:00:00.123Z"); e.ID() != want {
		t.Errorf("id %s, want %s", e.ID(), want)
	}
}

// TestTheEventsOfPresence holds what applications get against contract messaging 11 and 12.
func TestTheEventsOfPresence(t *testing.T) {
	for i, f := range presence {
		m := f.Event()
		if m.Endpoint != iot.Event || m.QoS != iot.AtLeastOnce || m.Tenant != f.Tenant() || m.Device != "D" || !m.Created.Equal(second) {
			t.Errorf("%d: got %+v", i, m)
		}
	}
	for i, want := range []int{-1, 0, 30} {
		m := presence[i].Event()
		if m.ContentType != "application/vnd.eclipse-hono-empty-notification" || m.Payload != nil || m.TTD == nil || *m.TTD != want {
			t.Errorf("got %+v, want an empty notification of ttd %d", m, want)
		}
	}
	m := presence[3].Event()
	if want := `{"cause":"connected","remote-id":"cli\nent","source":"hono-mqtt","data":{"a":1}}`; string(m.Payload) != want || m.TTD != nil ||
		m.ContentType != "application/vnd.eclipse-hono-dc-notification+json" || m.Gateway != "G" {
		t.Errorf("got %+v, want a connection event with %s", m, want)
	}
}

func TestWrongFactsOfPresenceAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		of     int
		change func(*event.Event)
		says   string
	}{
		{"no ttd", 0, data(`{}`), "ttd-seconds is missing"},
		{"ttd below", 0, data(`{"ttd-seconds":-2}`), "ttd-seconds is -2"},
		{"ttd above", 0, data(`{"ttd-seconds":2147483648}`), "ttd-seconds is 2147483648"},
		{"ttd of another change", 0, data(`{"ttd-seconds":0}`), "id is"},
		{"until of -1", 0, data(`{"ttd-seconds":-1,"until":"2026-11-22T12:00:00Z"}`), "until does not follow"},
		{"no until", 2, data(`{"ttd-seconds":30}`), "until does not follow"},
		{"another until", 2, data(`{"ttd-seconds":30,"until":"2026-11-22T12:00:31.123Z"}`), "until does not follow"},
		{"no device", 0, func(e *event.Event) { e.SetExtension("deviceid", nil) }, "device-id is missing"},
		{"no tenant", 0, func(e *event.Event) { e.SetExtension("tenantid", nil) }, "tenant-id is missing"},
		{"another subject", 0, func(e *event.Event) { e.SetSubject("E") }, "subject"},
		{"another key", 0, func(e *event.Event) { e.SetExtension("partitionkey", "x") }, "partitionkey"},
		{"another cause", 3, data(`{"cause":"disconnected","remote-id":"c","source":"a"}`), "cause is"},
		{"no remote id", 3, data(`{"cause":"connected","source":"a"}`), "remote-id is missing"},
		{"no source", 3, data(`{"cause":"connected","remote-id":"c"}`), "source is missing"},
		{"data no object", 3, data(`{"cause":"connected","remote-id":"c","source":"a","data":[1]}`), "no JSON object"},
		{"data too large", 3, data(`{"cause":"connected","remote-id":"c","source":"a","data":{"a":"` + strings.Repeat("x", 2048) + `"}}`), "at most 2048"},
		{"remote id too long", 3, data(`{"cause":"connected","remote-id":"` + strings.Repeat("x", 2049) + `","source":"a"}`), "at most 2048"},
		{"no JSON", 3, data(`{`), "data"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, err := events.EncodeFact(presence[tt.of], "i")
			if err != nil {
				t.Fatal(err)
			}
			tt.change(&e)
			if _, err := events.DecodeFact(&e); !errors.Is(err, iot.ErrInvalid) || tt.says != "data" && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want iot.ErrInvalid that says %q", err, tt.says)
			}
		})
	}
}

func data(s string) func(*event.Event) { return func(e *event.Event) { e.DataEncoded = []byte(s) } }

func change(kind events.PresenceKind) events.PresenceChange {
	c := events.PresenceChange{Kind: kind, TenantID: "T", DeviceID: "D", Adapter: "hono-mqtt", At: second}
	if kind == events.Uplink {
		c.TTDSeconds = 1
	}
	return c
}

func TestWrongChangesOfPresence(t *testing.T) {
	for _, kind := range []events.PresenceKind{events.Subscribed, events.Unsubscribed, events.Uplink, events.Connected, events.Disconnected} {
		c := change(kind)
		if err := c.Check(); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	long := strings.Repeat("x", events.MaxPresenceText+1)
	for _, tt := range []struct {
		kind events.PresenceKind
		set  func(*events.PresenceChange)
		says string
	}{
		{"moved", func(*events.PresenceChange) {}, `kind is "moved"`},
		{events.Subscribed, func(c *events.PresenceChange) { c.TenantID = "" }, "tenant-id is missing"},
		{events.Subscribed, func(c *events.PresenceChange) { c.DeviceID = "" }, "device-id is missing"},
		{events.Subscribed, func(c *events.PresenceChange) { c.DeviceID = "a\nb" }, "device-id holds control"},
		{events.Subscribed, func(c *events.PresenceChange) { c.GatewayID = iot.DeviceID(long) }, "gateway-id has 2049"},
		{events.Subscribed, func(c *events.PresenceChange) { c.Adapter = "" }, "adapter is missing"},
		{events.Subscribed, func(c *events.PresenceChange) { c.At = time.Time{} }, "at is missing"},
		{events.Subscribed, func(c *events.PresenceChange) { c.At = second.AddDate(9000, 0, 0) }, "at is out of range"},
		{events.Subscribed, func(c *events.PresenceChange) { c.TTDSeconds = 5 }, "ttd-seconds does not belong"},
		{events.Subscribed, func(c *events.PresenceChange) { c.RemoteID = "c" }, "remote-id and data do not belong"},
		{events.Subscribed, func(c *events.PresenceChange) { c.Cause = "subscribed" }, "cause"},
		{events.Uplink, func(c *events.PresenceChange) { c.TTDSeconds = 0 }, "ttd-seconds is 0"},
		{events.Uplink, func(c *events.PresenceChange) { c.TTDSeconds = -1 }, "ttd-seconds is -1"},
		{events.Uplink, func(c *events.PresenceChange) { c.TTDSeconds = 1 << 31 }, "ttd-seconds is 2147483648"},
		{events.Connected, func(c *events.PresenceChange) { c.Cause = "disconnected" }, "cause"},
		{events.Connected, func(c *events.PresenceChange) { c.RemoteID = long }, "remote-id has 2049"},
		{events.Connected, func(c *events.PresenceChange) { c.RemoteID = "\xff" }, "remote-id holds"},
		{events.Connected, func(c *events.PresenceChange) { c.Data = []byte(`[]`) }, "no JSON object"},
		{events.Connected, func(c *events.PresenceChange) { c.Data = []byte(`{`) }, "no JSON object"},
		{events.Connected, func(c *events.PresenceChange) { c.Data = []byte(`{"a":"` + long + `"}`) }, "data has"},
	} {
		c := change(tt.kind)
		tt.set(&c)
		err := events.NotificationDerive{Changes: []events.PresenceChange{change(events.Subscribed), c}}.Check()
		if !errors.Is(err, iot.ErrInvalid) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "changes[1]") {
			t.Errorf("%+v: got %v, want iot.ErrInvalid for changes[1] that says %q", c, err, tt.says)
		}
	}
	for _, n := range []int{0, events.MaxPresenceChanges + 1} {
		if err := (events.NotificationDerive{Changes: make([]events.PresenceChange, n)}).Check(); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("%d changes: got %v", n, err)
		}
	}
}

func TestDerivingGoesThroughTheEnvelope(t *testing.T) {
	c := change(events.Connected)
	c.GatewayID, c.Cause, c.RemoteID, c.Data = "G", "connected", "c", []byte(`{"a":1}`)
	req := events.NotificationDerive{Changes: []events.PresenceChange{change(events.Uplink), c}}
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
	rep := &events.NotificationDerived{Events: presence}
	e, err := events.EncodeReply(&call, "//sluice.local/functions/notification", rep, noon)
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
	for _, data := range []string{`{"changes":[]}`, `{"changes":[{}]}`, `{"changes":1}`, `{}`} {
		call.DataEncoded = []byte(data)
		if _, err := events.DecodeRequest(&call); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("%s: %v", data, err)
		}
	}
	foreign, _ := events.EncodeFact(facts[0], "i")
	b, _ := foreign.MarshalJSON()
	for _, data := range []string{`{"events":[` + string(b) + `]}`, `{"events":[{"specversion":"1.0"}]}`, `{"events":[` + strings.Repeat(string(b)+",", 100) + string(b) + `]}`} {
		e.DataEncoded = []byte(data)
		if _, err := events.DecodeReply(req, &e); !errors.Is(err, iot.ErrUnavailable) {
			t.Errorf("%.80s: %v", data, err)
		}
	}
}

// TestKeysOfChangesAreThoseOfTheirFacts is what the answer of a call is told apart by.
func TestKeysOfChangesAreThoseOfTheirFacts(t *testing.T) {
	at := second.Add(456 * time.Microsecond)
	for _, remote := range []string{"", "unknown", "c"} {
		c := events.PresenceChange{Kind: events.Connected, TenantID: "T", DeviceID: "D", Adapter: "a", At: at, RemoteID: remote}
		name := remote
		if name == "" {
			name = "unknown"
		}
		f := events.DeviceConnected{Connection: events.Connection{TenantID: "T", DeviceID: "D", RemoteID: name, Source: "a", At: second}}
		if c.Key() != f.Key() {
			t.Errorf("%q: the change has the key %+v, the fact %+v", remote, c.Key(), f.Key())
		}
		if d := (events.DeviceDisconnected(f)); d.Key() == f.Key() {
			t.Error("connecting and disconnecting have one key")
		}
	}
	for kind, ttd := range map[events.PresenceKind]int{events.Subscribed: -1, events.Unsubscribed: 0, events.Uplink: 7} {
		c := events.PresenceChange{Kind: kind, TenantID: "T", DeviceID: "D", At: at}
		if f := (events.DeviceTTD{TenantID: "T", DeviceID: "D", TTDSeconds: ttd, At: second}); c.Key() != f.Key() {
			t.Errorf("the change has the key %+v, the fact %+v", c.Key(), f.Key())
		}
	}
}

func FuzzNotificationDerive(f *testing.F) {
	for _, kind := range []events.PresenceKind{events.Subscribed, events.Uplink, events.Connected} {
		b, err := json.Marshal(events.NotificationDerive{Changes: []events.PresenceChange{change(kind)}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var n events.NotificationDerive
		if json.Unmarshal(b, &n) != nil {
			return
		}
		out, err := json.Marshal(n)
		if err != nil {
			t.Fatalf("%s came in and does not go out: %v", b, err)
		}
		var again events.NotificationDerive
		if err := json.Unmarshal(out, &again); err != nil {
			t.Fatalf("%s came in as %s: %v", b, out, err)
		}
	})
}
