package command_test

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/command"
)

func encode(t testing.TB, m amqp.Message) []byte {
	t.Helper()
	b, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCommandsThatAreRejected shows the rows of messaging 9.3 that the message decides.
func TestCommandsThatAreRejected(t *testing.T) {
	const bad, denied = "hono:bad-request", "amqp:unauthorized-access"
	good := func(change func(p *amqp.Properties)) amqp.Message {
		p := &amqp.Properties{To: "command/T/D", Subject: "on", MessageID: "1"}
		change(p)
		return amqp.Message{Properties: p}
	}
	to := func(to string) amqp.Message { return good(func(p *amqp.Properties) { p.To = to }) }
	replyTo := func(to string) amqp.Message { return good(func(p *amqp.Properties) { p.ReplyTo = to }) }
	for _, tt := range []struct {
		name, address   string
		m               amqp.Message
		condition, text string // "" = not rejected
	}{
		{"one-way", "command/T", good(func(*amqp.Properties) {}), "", ""},
		{"one-way without ids", "command/T", good(func(p *amqp.Properties) { p.MessageID = nil }), "", ""},
		{"request", "command/T", replyTo("command_response/T/R"), "", ""},
		{"request, reply id with a slash", "command/T", replyTo("command_response/T/R/1"), "", ""},
		{"on the device's own address", "command/T/D", good(func(*amqp.Properties) {}), "", ""},
		{"data", "command/T", amqp.Message{Properties: good(func(*amqp.Properties) {}).Properties, Data: [][]byte{{1}}}, "", ""},
		{"data in parts", "command/T", amqp.Message{Properties: good(func(*amqp.Properties) {}).Properties, Data: [][]byte{{1}, {2}}}, "", ""},
		{"text", "command/T", amqp.Message{Properties: good(func(*amqp.Properties) {}).Properties, HasValue: true, Value: "x"}, "", ""},
		{"binary", "command/T", amqp.Message{Properties: good(func(*amqp.Properties) {}).Properties, HasValue: true, Value: []byte("x")}, "", ""},
		{"null", "command/T", amqp.Message{Properties: good(func(*amqp.Properties) {}).Properties, HasValue: true}, "", ""},

		{"no properties", "command/T", amqp.Message{}, bad, "missing or invalid command target address"},
		{"no to", "command/T", to(""), bad, "missing or invalid command target address"},
		{"to that starts with a slash", "command/T", to("/command/T/D"), bad, "missing or invalid command target address"},
		{"to of another endpoint", "command/T", to("telemetry/T/D"), bad, "missing or invalid command target address"},
		{"to without tenant", "command/T", to("command"), bad, "missing or invalid command target address"},
		{"to with an empty tenant", "command/T", to("command//D"), bad, "missing or invalid command target address"},
		{"another tenant", "command/T", to("command/U/D"), denied, "another tenant"},
		{"another tenant and no device", "command/T", to("command/U"), denied, "another tenant"},
		{"another device than the link's", "command/T/D", to("command/T/E"), denied, "another tenant or device"},
		{"no device", "command/T", to("command/T"), bad, "no device"},
		{"an empty device", "command/T", to("command/T/"), bad, "no device"},
		{"no subject", "command/T", good(func(p *amqp.Properties) { p.Subject = "" }), bad, "malformed command message: subject"},
		{"request without ids", "command/T", good(func(p *amqp.Properties) { p.MessageID, p.ReplyTo = nil, "command_response/T/R" }), bad, "malformed command message: reply-to without"},
		{"message-id that is no string", "command/T", good(func(p *amqp.Properties) { p.MessageID = uint64(1) }), bad, "no string"},
		{"correlation-id that is no string", "command/T", good(func(p *amqp.Properties) { p.CorrelationID = []byte("x") }), bad, "no string"},
		{"reply-to of another form", "command/T", replyTo("reply/to/address"), bad, "malformed command message: reply-to"},
		{"reply-to of another tenant", "command/T", replyTo("command_response/U/R"), bad, "malformed command message: reply-to"},
		{"reply-to without id", "command/T", replyTo("command_response/T"), bad, "malformed command message: reply-to"},
		{"reply-to with an empty id", "command/T", replyTo("command_response/T/"), bad, "malformed command message: reply-to"},
		{"a map", "command/T", amqp.Message{Properties: good(func(*amqp.Properties) {}).Properties, HasValue: true, Value: amqp.Map{}}, bad, "body"},
		{"a number", "command/T", amqp.Message{Properties: good(func(*amqp.Properties) {}).Properties, HasValue: true, Value: int32(1)}, bad, "body"},
		{"a sequence", "command/T", amqp.Message{Properties: good(func(*amqp.Properties) {}).Properties, Sequence: []amqp.List{{"x"}}}, bad, "body"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tenant, device, _, refused := command.Onward(tt.address, encode(t, tt.m), "id", "")
			switch {
			case tt.condition == "" && (refused != nil || tenant != "T" || device != "D"):
				t.Errorf("got %s, %s, %v", tenant, device, refused)
			case tt.condition != "" && (refused == nil || string(refused.Condition) != tt.condition || !strings.Contains(refused.Description, tt.text)):
				t.Errorf("got %v, want %s with %q", refused, tt.condition, tt.text)
			}
		})
	}
	if _, _, _, refused := command.Onward("command/T", []byte{0, 0x53}, "id", ""); refused == nil || refused.Condition != bad {
		t.Errorf("bytes that are no message: %v", refused)
	}
}

// TestCommandsGoOn shows what an adapter gets of a command.
func TestCommandsGoOn(t *testing.T) {
	full := func() amqp.Message {
		return amqp.Message{
			Header:              &amqp.Header{Durable: true, TTL: 5, HasTTL: true},
			DeliveryAnnotations: amqp.Map{{Key: amqp.Symbol("x"), Value: "dropped"}},
			MessageAnnotations:  amqp.Map{{Key: amqp.Symbol("y"), Value: int32(7)}},
			Properties: &amqp.Properties{MessageID: "m", UserID: []byte("u"), To: "command/T/D", Subject: "on", ReplyTo: "command_response/T/R", CorrelationID: "c",
				ContentType: "text/plain", ContentEncoding: "gzip", CreationTime: 12, AbsoluteExpiryTime: 13, GroupID: "g", GroupSequence: 3, HasGroupSequence: true, ReplyToGroupID: "r"},
			ApplicationProperties: amqp.Map{{Key: "a", Value: int64(1)}, {Key: "b", Value: "x"}},
			Data:                  [][]byte{[]byte("payload")},
			Footer:                amqp.Map{{Key: amqp.Symbol("f"), Value: "z"}},
		}
	}
	for _, tt := range []struct {
		name    string
		change  func(m *amqp.Message)
		gateway iot.DeviceID
		want    func(m *amqp.Message)
	}{
		{"to the device", func(*amqp.Message) {}, "", func(*amqp.Message) {}},
		{"by a gateway", func(*amqp.Message) {}, "gw", func(m *amqp.Message) {
			m.ApplicationProperties = append(m.ApplicationProperties, amqp.Pair{Key: "via", Value: "gw"})
		}},
		{"by a gateway, without others", func(m *amqp.Message) { m.ApplicationProperties = nil }, "gw", func(m *amqp.Message) {
			m.ApplicationProperties = amqp.Map{{Key: "via", Value: "gw"}}
		}},
		{"with a gateway of the application's", func(m *amqp.Message) {
			m.ApplicationProperties = amqp.Map{{Key: "via", Value: "evil"}, {Key: "a", Value: "b"}, {Key: "via", Value: int32(1)}}
		}, "", func(m *amqp.Message) { m.ApplicationProperties = amqp.Map{{Key: "a", Value: "b"}} }},
		{"with nothing but that", func(m *amqp.Message) { m.ApplicationProperties = amqp.Map{{Key: "via", Value: "evil"}} }, "",
			func(m *amqp.Message) { m.ApplicationProperties = nil }},
		{"by a gateway that is not the application's", func(m *amqp.Message) { m.ApplicationProperties = amqp.Map{{Key: "via", Value: "evil"}} }, "gw",
			func(m *amqp.Message) { m.ApplicationProperties = amqp.Map{{Key: "via", Value: "gw"}} }},
		{"without correlation-id", func(m *amqp.Message) { m.Properties.CorrelationID = nil }, "", func(m *amqp.Message) { m.Properties.CorrelationID = "m" }},
		{"one-way without ids", func(m *amqp.Message) {
			m.Properties.CorrelationID, m.Properties.MessageID, m.Properties.ReplyTo = nil, nil, ""
		}, "",
			func(m *amqp.Message) { m.Properties.CorrelationID = nil }},
		{"without body", func(m *amqp.Message) { m.Data = nil }, "", func(*amqp.Message) {}},
		{"with text", func(m *amqp.Message) { m.Data, m.Value, m.HasValue = nil, "text", true }, "", func(*amqp.Message) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := full()
			tt.change(&m)
			_, _, onward, refused := command.Onward("command/T", encode(t, m), "new", tt.gateway)
			if refused != nil {
				t.Fatal(refused)
			}
			got, err := amqp.DecodeMessage(onward)
			if err != nil {
				t.Fatal(err)
			}
			m.Header, m.DeliveryAnnotations, m.Properties.MessageID = nil, nil, "new"
			tt.want(&m)
			m.Properties.MessageID = "new"
			if diff := cmp.Diff(&m, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzCommand sends whatever an application may; what goes on can be read and is for the same device.
func FuzzCommand(f *testing.F) {
	for _, m := range []amqp.Message{
		{Properties: &amqp.Properties{To: "command/T/D", Subject: "on", MessageID: "1", ReplyTo: "command_response/T/R"}, Data: [][]byte{[]byte("x")}},
		{Header: &amqp.Header{Durable: true}, Properties: &amqp.Properties{To: "command/T/D", Subject: "on"}, ApplicationProperties: amqp.Map{{Key: "via", Value: "x"}, {Key: "n", Value: int32(1)}},
			HasValue: true, Value: "text", Footer: amqp.Map{{Key: amqp.Symbol("f"), Value: true}}},
		{MessageAnnotations: amqp.Map{{Key: amqp.Symbol("a"), Value: amqp.List{"x"}}}, Properties: &amqp.Properties{To: "command/T/D/E", Subject: "s", CorrelationID: uint64(3)}},
	} {
		f.Add(encode(f, m), "gw")
		f.Add(encode(f, m), "")
	}
	f.Fuzz(func(t *testing.T, encoded []byte, gateway string) {
		if !utf8.ValidString(gateway) {
			t.Skip("ids come from the registry")
		}
		before := bytes.Clone(encoded)
		tenant, device, onward, refused := command.Onward("command/T", encoded, "new", iot.DeviceID(gateway))
		if !bytes.Equal(before, encoded) {
			t.Fatal("the message was changed in place")
		}
		if refused != nil {
			if refused.Condition == "" || refused.Description == "" {
				t.Fatalf("rejected without a reason: %+v", refused)
			}
			return
		}
		m, err := amqp.DecodeMessage(onward)
		if err != nil {
			t.Fatalf("goes on, and cannot be read: %v", err)
		}
		if m.Header != nil || len(m.DeliveryAnnotations) > 0 || m.Properties.MessageID != "new" || tenant != "T" ||
			m.Properties.To != "command/T/"+string(device) || m.Properties.Subject == "" {
			t.Fatalf("goes on as %+v", m.Properties)
		}
		via := 0
		for _, p := range m.ApplicationProperties {
			if p.Key == "via" || p.Key == amqp.Symbol("via") {
				via++
				if p.Value != gateway || gateway == "" {
					t.Fatalf("via is %v", p.Value)
				}
			}
		}
		if gateway != "" && via != 1 {
			t.Fatalf("%d via", via)
		}
	})
}
