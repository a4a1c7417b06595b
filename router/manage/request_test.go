package manage_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/router/manage"
)

// encoded is a request with the properties that most have.
func encoded(t testing.TB, properties amqp.Map, body any, change ...func(*amqp.Message)) []byte {
	t.Helper()
	m := amqp.Message{Properties: &amqp.Properties{MessageID: "1", ReplyTo: "_dynamic/x"}, ApplicationProperties: properties}
	if body != nil {
		m.Value, m.HasValue = body, true
	}
	for _, c := range change {
		c(&m)
	}
	b, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRequest(t *testing.T) {
	ops := func(pairs ...any) amqp.Map {
		m := amqp.Map{}
		for i := 0; i < len(pairs); i += 2 {
			m = append(m, amqp.Pair{Key: pairs[i], Value: pairs[i+1]})
		}
		return m
	}
	for _, tt := range []struct {
		name   string
		props  amqp.Map
		body   any
		status int32
		check  func(*manage.Parsed) bool
	}{
		{"operation", ops("operation", "QUERY"), nil, 0, func(p *manage.Parsed) bool { return p.Operation == "QUERY" && p.Count == 1000 && p.Offset == 0 }},
		{"no operation", ops("type", "link"), nil, 400, nil},
		{"operation is a number", ops("operation", true), nil, 400, nil},
		{"type of the node", ops("operation", "QUERY", "type", "org.amqp.management", "entityType", "link"), nil, 0, func(p *manage.Parsed) bool { return p.Kind == "link" }},
		{"type of the node alone", ops("operation", "GET-TYPES", "type", "org.amqp.management"), nil, 0, func(p *manage.Parsed) bool { return p.Kind == "" }},
		{"type alone", ops("operation", "READ", "type", "link", "name", "1/2/3"), nil, 0, func(p *manage.Parsed) bool { return p.Kind == "link" && p.ID == "1/2/3" }},
		{"identity before name", ops("operation", "READ", "name", "a", "identity", "b"), nil, 0, func(p *manage.Parsed) bool { return p.ID == "b" }},
		{"identity as ulong", ops("operation", "READ", "identity", uint64(12)), nil, 0, func(p *manage.Parsed) bool { return p.ID == "12" }},
		{"symbols", ops("operation", amqp.Symbol("READ")), nil, 0, func(p *manage.Parsed) bool { return p.Operation == "READ" }},
		{"paging", ops("operation", "QUERY", "offset", int32(5), "count", uint32(7)), nil, 0, func(p *manage.Parsed) bool { return p.Offset == 5 && p.Count == 7 }},
		{"count above the bound", ops("operation", "QUERY", "count", int64(1<<20)), nil, 0, func(p *manage.Parsed) bool { return p.Count == 1000 }},
		{"negative offset", ops("operation", "QUERY", "offset", int32(-1)), nil, 400, nil},
		{"huge offset", ops("operation", "QUERY", "offset", uint64(1<<63)), nil, 400, nil},
		{"offset as text", ops("operation", "QUERY", "offset", "1"), nil, 400, nil},
		{"attribute names", ops("operation", "QUERY"), amqp.Map{{Key: "attributeNames", Value: amqp.List{"a", amqp.Symbol("b")}}}, 0, func(p *manage.Parsed) bool { return slices.Equal(p.Attributes, []string{"a", "b"}) }},
		{"no attribute names", ops("operation", "QUERY"), amqp.Map{{Key: "attributeNames", Value: amqp.List{}}}, 0, func(p *manage.Parsed) bool { return p.Attributes == nil }},
		{"attribute names of another type", ops("operation", "QUERY"), amqp.Map{{Key: "attributeNames", Value: "a"}}, 400, nil},
		{"an attribute that is a map", ops("operation", "QUERY"), amqp.Map{{Key: "attributeNames", Value: amqp.List{amqp.Map{}}}}, 400, nil},
		{"too many attributes", ops("operation", "QUERY"), amqp.Map{{Key: "attributeNames", Value: make(amqp.List, 101)}}, 400, nil},
		{"another body", ops("operation", "QUERY"), "text", 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, refused, err := manage.Parse(encoded(t, tt.props, tt.body))
			if refused != nil || err != nil {
				t.Fatal(refused, err)
			}
			if p.Status != tt.status || tt.check != nil && !tt.check(p) {
				t.Errorf("got %+v, want status %d", p, tt.status)
			}
		})
	}
}

func TestRequestsThatGetNoReply(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*amqp.Message)
		want   string
	}{
		{"no properties", func(m *amqp.Message) { m.Properties = nil }, "message-id is missing"},
		{"no message-id", func(m *amqp.Message) { m.Properties.MessageID = nil }, "message-id is missing"},
		{"no reply-to", func(m *amqp.Message) { m.Properties.ReplyTo = "" }, "reply-to"},
		{"reply-to a tenant's address", func(m *amqp.Message) { m.Properties.ReplyTo = "telemetry/DEMO" }, "reply-to"},
		{"reply-to the node itself", func(m *amqp.Message) { m.Properties.ReplyTo = "$management" }, "reply-to"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, refused, _ := manage.Parse(encoded(t, amqp.Map{{Key: "operation", Value: "QUERY"}}, nil, tt.change))
			if refused == nil || refused.Condition != amqp.CondInvalidField || !strings.Contains(refused.Description, tt.want) {
				t.Errorf("got %v, want amqp:invalid-field with %q", refused, tt.want)
			}
		})
	}
	whole := encoded(t, amqp.Map{{Key: "operation", Value: "QUERY"}}, amqp.Map{{Key: "attributeNames", Value: amqp.List{"a"}}})
	for n := range whole {
		if p, refused, err := manage.Parse(whole[:n]); refused == nil && (err != nil || p.Correlation == nil) {
			t.Errorf("%d bytes: %+v, %v", n, p, err)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(encoded(f, amqp.Map{{Key: "operation", Value: "QUERY"}, {Key: "entityType", Value: "link"}, {Key: "offset", Value: int32(3)}},
		amqp.Map{{Key: "attributeNames", Value: amqp.List{"a", "b"}}}))
	f.Add(encoded(f, amqp.Map{{Key: "operation", Value: "DELETE"}, {Key: "type", Value: "connection"}, {Key: "identity", Value: uint64(4)}}, nil))
	f.Add(encoded(f, amqp.Map{{Key: "count", Value: int64(-1)}}, "x", func(m *amqp.Message) {
		m.Properties.CorrelationID, m.Properties.ReplyTo = amqp.UUID{1}, "$management/r"
	}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, refused, err := manage.Parse(b)
		if refused != nil {
			return
		}
		if err != nil {
			t.Fatalf("no reply: %v", err)
		}
		if p.Offset < 0 || p.Count < 0 || p.Count > 1000 || len(p.Attributes) > 100 {
			t.Errorf("out of bounds: %+v", p)
		}
		reply, err := amqp.DecodeMessage(p.Reply)
		if err != nil || reply.Properties == nil || reply.Properties.CorrelationID == nil || reply.Properties.To != p.ReplyTo {
			t.Errorf("reply %+v, %v", reply, err)
		}
	})
}
