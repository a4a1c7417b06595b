package downstream_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	goamqp "github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/adapters/downstream"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
)

func decode(t testing.TB, b []byte) *goamqp.Message {
	t.Helper()
	m := &goamqp.Message{}
	if err := m.UnmarshalBinary(b); err != nil {
		t.Fatalf("%v in %x", err, b)
	}
	return m
}

func ptr[T any](v T) *T { return &v }

func TestEncoding(t *testing.T) {
	created := time.Date(2026, 7, 1, 12, 0, 0, 123_000_000, time.UTC)
	full := iot.Message{
		Endpoint: iot.Event, Tenant: "T", Device: "D", Gateway: "G", QoS: iot.AtLeastOnce, ID: "id-1", Created: created,
		Adapter: "hono-http", Address: "/event/T/D", Assertion: "a.b.c", ContentType: "text/plain", ContentEncoding: "gzip",
		TTL: 5 * time.Second, TTD: ptr(30), Retain: true,
		Properties: map[string]any{"s": "text", "b": true, "i": int32(7), "l": int64(8), "f": 1.5,
			"device_id": "forged", "qos": "forged", "orig_adapter": "forged", "orig_address": "forged", "ttd": "forged", "reg_assertion": "forged"},
		Payload: []byte("hello"), TraceParent: "00-1", TraceState: "k=v",
	}
	plain := iot.Message{Endpoint: iot.Telemetry, Tenant: "T", Device: "D"}
	for _, tt := range []struct {
		name string
		m    func(m *iot.Message)
		base iot.Message
		want *goamqp.Message
	}{
		{"full", nil, full, &goamqp.Message{
			Header:              &goamqp.MessageHeader{Durable: true, Priority: 4, TTL: 5 * time.Second},
			DeliveryAnnotations: goamqp.Annotations{"x-opt-reg-assertion": "a.b.c"},
			Annotations: goamqp.Annotations{"device_id": "D", "tenant_id": "T", "resource": "event/T/D", "x-opt-retain": true,
				"x-opt-trace-context": map[string]any{"traceparent": "00-1", "tracestate": "k=v"}},
			Properties: &goamqp.MessageProperties{MessageID: "id-1", To: ptr("event/T"), ContentType: ptr("text/plain"),
				ContentEncoding: ptr("gzip"), CreationTime: &created},
			ApplicationProperties: map[string]any{"device_id": "D", "qos": int32(1), "orig_adapter": "hono-http", "orig_address": "/event/T/D",
				"ttd": int32(30), "s": "text", "b": true, "i": int32(7), "l": int64(8), "f": 1.5},
			Data: [][]byte{[]byte("hello")},
		}},
		{"least", nil, plain, &goamqp.Message{
			Annotations:           goamqp.Annotations{"device_id": "D", "tenant_id": "T", "resource": "telemetry/T/D"},
			Properties:            &goamqp.MessageProperties{To: ptr("telemetry/T")},
			ApplicationProperties: map[string]any{"device_id": "D", "qos": int32(0)},
		}},
		{"empty payload", func(m *iot.Message) { m.Payload = []byte{} }, plain, &goamqp.Message{
			Annotations:           goamqp.Annotations{"device_id": "D", "tenant_id": "T", "resource": "telemetry/T/D"},
			Properties:            &goamqp.MessageProperties{To: ptr("telemetry/T")},
			ApplicationProperties: map[string]any{"device_id": "D", "qos": int32(0)},
			Data:                  [][]byte{{}},
		}},
		{"shortest ttl, no text", func(m *iot.Message) {
			m.TTL, m.Properties, m.TTD = time.Microsecond, map[string]any{"p\xff": "v\xfe"}, ptr(1<<40)
		}, plain, &goamqp.Message{
			Header:                &goamqp.MessageHeader{Priority: 4, TTL: time.Millisecond},
			Annotations:           goamqp.Annotations{"device_id": "D", "tenant_id": "T", "resource": "telemetry/T/D"},
			Properties:            &goamqp.MessageProperties{To: ptr("telemetry/T")},
			ApplicationProperties: map[string]any{"device_id": "D", "qos": int32(0), "p\uFFFD": "v\uFFFD", "ttd": int32(1<<31 - 1)},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.base
			if tt.m != nil {
				tt.m(&m)
			}
			given := maps.Clone(m.Properties)
			raw := sent(t, &m)
			if diff := cmp.Diff(tt.want, decode(t, raw), ignoreUnexported); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(given, m.Properties); diff != "" {
				t.Errorf("the properties were changed:\n%s", diff)
			}
			if _, err := amqp.ScanSections(raw); err != nil {
				t.Error(err)
			}
			if again := sent(t, &m); string(again) != string(raw) {
				t.Error("two encodings differ")
			}
		})
	}
}

// Readers tell strings from symbols where go-amqp does not (contract:
// messaging 1.6).
func TestEncodedTypes(t *testing.T) {
	m := iot.Message{Endpoint: iot.Telemetry, Tenant: "T", Device: "D", ContentType: "text/plain", Assertion: "a.b.c",
		TraceParent: "00-1", TTD: ptr(1000)}
	got, err := amqp.DecodeMessage(sent(t, &m))
	if err != nil {
		t.Fatal(err)
	}
	want := amqp.Message{
		DeliveryAnnotations: amqp.Map{{Key: amqp.Symbol("x-opt-reg-assertion"), Value: "a.b.c"}},
		MessageAnnotations: amqp.Map{{Key: amqp.Symbol("device_id"), Value: "D"}, {Key: amqp.Symbol("tenant_id"), Value: "T"},
			{Key: amqp.Symbol("resource"), Value: "telemetry/T/D"},
			{Key: amqp.Symbol("x-opt-trace-context"), Value: amqp.Map{{Key: amqp.Symbol("traceparent"), Value: "00-1"}}}},
		Properties:            &amqp.Properties{To: "telemetry/T", ContentType: "text/plain"},
		ApplicationProperties: amqp.Map{{Key: "device_id", Value: "D"}, {Key: "qos", Value: int32(0)}, {Key: "ttd", Value: int32(1000)}},
	}
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
}

var ignoreUnexported = cmp.FilterPath(func(p cmp.Path) bool {
	f, ok := p.Last().(cmp.StructField)
	return ok && f.Name()[0] >= 'a' && f.Name()[0] <= 'z'
}, cmp.Ignore())

// Compounds and strings change their form at 256 bytes.
func TestEncodingSizes(t *testing.T) {
	for n := range 600 {
		m := iot.Message{Endpoint: iot.Telemetry, Tenant: iot.TenantID(strings.Repeat("t", n)), Device: "D", QoS: iot.AtMostOnce,
			Assertion: strings.Repeat("a", n), TraceParent: strings.Repeat("p", n), ID: strings.Repeat("i", n),
			Properties: map[string]any{"k": strings.Repeat("v", n)}, Payload: make([]byte, n)}
		if n%37 != 0 && (n < 180 || n > 260) {
			continue
		}
		got := decode(t, sent(t, &m))
		tenant := string(m.Tenant)
		if *got.Properties.To != "telemetry/"+tenant || got.Annotations["resource"] != "telemetry/"+tenant+"/D" ||
			got.ApplicationProperties["k"] != m.Properties["k"] || len(got.Data[0]) != n {
			t.Fatalf("size %d: got %+v", n, got)
		}
	}
}

func TestManyProperties(t *testing.T) {
	m := iot.Message{Endpoint: iot.Telemetry, Tenant: "T", Device: "D", Properties: map[string]any{}}
	for i := range 300 {
		m.Properties[fmt.Sprint(i)] = true
	}
	if got := decode(t, sent(t, &m)).ApplicationProperties; len(got) != 302 {
		t.Errorf("%d properties, want 302", len(got))
	}
}

// sent returns what the router gets for m.
func sent(t *testing.T, m *iot.Message) (payload []byte) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newScripted(t, "r")
		s, _ := start(t, downstream.Options{}, r)
		synctest.Wait()
		if err := s.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		payload = r.got[0].payload
	})
	return payload
}

func TestUnencodable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := start(t, downstream.Options{}, newScripted(t, "r"))
		synctest.Wait()
		for name, change := range map[string]func(m *iot.Message){
			"content type":     func(m *iot.Message) { m.ContentType = "é" },
			"content encoding": func(m *iot.Message) { m.ContentEncoding = "é" },
			"property":         func(m *iot.Message) { m.Properties = map[string]any{"p": []string{"x"}} },
			"null property":    func(m *iot.Message) { m.Properties = map[string]any{"p": nil} },
		} {
			m := telemetry(iot.AtLeastOnce)
			change(m)
			if err := s.Send(t.Context(), m); err == nil || !strings.Contains(err.Error(), "want") {
				t.Errorf("%s: Send = %v, want an error that tells", name, err)
			}
		}
		wantErr(t, s.Send(t.Context(), telemetry(iot.AtLeastOnce)), nil, "")
	})
}
