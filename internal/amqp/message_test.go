package amqp_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/amqp"
)

var (
	someUUID  = amqp.UUID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	someTime  = time.Date(2024, 2, 29, 12, 30, 15, 123e6, time.UTC)
	someStamp = amqp.TimestampOf(someTime)
)

// fullMessage has every section but a body, and every field.
func fullMessage() amqp.Message {
	return amqp.Message{
		Header:              &amqp.Header{Durable: true, Priority: 9, HasPriority: true, TTL: 60000, HasTTL: true, FirstAcquirer: true, DeliveryCount: 3},
		DeliveryAnnotations: amqp.Map{{Key: sym("registration-assertion"), Value: "token"}},
		MessageAnnotations:  amqp.Map{{Key: sym("x-opt-a"), Value: int64(-5)}, {Key: uint64(7), Value: list{"x"}}},
		Properties: &amqp.Properties{
			MessageID: "id", UserID: []byte("user"), To: "telemetry/T", Subject: "s", ReplyTo: "r", CorrelationID: uint64(77),
			ContentType: "text/plain", ContentEncoding: "gzip", AbsoluteExpiryTime: someStamp, CreationTime: someStamp + 1,
			GroupID: "g", GroupSequence: 0, HasGroupSequence: true, ReplyToGroupID: "rg",
		},
		ApplicationProperties: amqp.Map{
			{Key: "null", Value: nil}, {Key: "bool", Value: true}, {Key: "ubyte", Value: uint8(1)}, {Key: "ushort", Value: uint16(2)},
			{Key: "uint", Value: uint32(3)}, {Key: "ulong", Value: uint64(4)}, {Key: "byte", Value: int8(-1)}, {Key: "short", Value: int16(-2)},
			{Key: "int", Value: int32(-3)}, {Key: "long", Value: int64(-4)}, {Key: "float", Value: float32(1.5)}, {Key: "double", Value: 2.5},
			{Key: "decimal32", Value: amqp.Decimal32{1}}, {Key: "decimal64", Value: amqp.Decimal64{2}}, {Key: "decimal128", Value: amqp.Decimal128{3}},
			{Key: "char", Value: amqp.Char('€')}, {Key: "timestamp", Value: someStamp}, {Key: "uuid", Value: someUUID},
			{Key: "binary", Value: []byte{1, 2}}, {Key: "string", Value: "s"}, {Key: "symbol", Value: sym("y")},
		},
		Footer: amqp.Map{{Key: sym("crc"), Value: uint32(1)}},
	}
}

type messageRow struct {
	name string
	m    amqp.Message
}

func messages() []messageRow {
	rows := []messageRow{
		{"nothing", amqp.Message{}},
		{"empty data", amqp.Message{Data: [][]byte{{}}}},
		{"null value", amqp.Message{HasValue: true}},
		{"default header", amqp.Message{Header: &amqp.Header{}, Data: [][]byte{{1}}}},
		{"empty properties", amqp.Message{Properties: &amqp.Properties{}, Data: [][]byte{{1}}}},
		{"map value", amqp.Message{Value: amqp.Map{{Key: "k", Value: list{uint8(1)}}}, HasValue: true}},
		{"described value", amqp.Message{Value: described(0x99, list{"x"}), HasValue: true}},
		{"empty sequence", amqp.Message{Sequence: []list{{}}}},
		{"long data", amqp.Message{Data: [][]byte{bytes.Repeat([]byte{7}, 300)}}},
	}
	for _, id := range []any{"text", uint64(1 << 40), someUUID, []byte{1, 2, 3}} {
		rows = append(rows, messageRow{"ids", amqp.Message{Properties: &amqp.Properties{MessageID: id, CorrelationID: id}}})
	}
	data, sequence, value := fullMessage(), fullMessage(), fullMessage()
	data.Data = [][]byte{[]byte("one"), []byte("two")}
	sequence.Sequence = []list{{"one", uint8(1)}, {nil}}
	value.Value, value.HasValue = "text", true
	return append(rows, messageRow{"all and data", data}, messageRow{"all and sequences", sequence}, messageRow{"all and value", value})
}

func encodeMessage(t testing.TB, m *amqp.Message) []byte {
	t.Helper()
	b, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMessages(t *testing.T) {
	for _, tt := range messages() {
		t.Run(tt.name, func(t *testing.T) {
			got, err := amqp.DecodeMessage(encodeMessage(t, &tt.m))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&tt.m, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestSectionFieldOrder holds the sections against Part 3, section 3.2.
func TestSectionFieldOrder(t *testing.T) {
	m := fullMessage()
	m.Data = [][]byte{{1}}
	m.ApplicationProperties = m.ApplicationProperties[:2]
	b := encodeMessage(t, &m)
	for _, want := range []any{
		described(0x70, list{true, uint8(9), uint32(60000), true, uint32(3)}),
		described(0x71, m.DeliveryAnnotations),
		described(0x72, m.MessageAnnotations),
		described(0x73, list{"id", []byte("user"), "telemetry/T", "s", "r", uint64(77), sym("text/plain"), sym("gzip"),
			someStamp, someStamp + 1, "g", uint32(0), "rg"}),
		described(0x74, m.ApplicationProperties),
		described(0x75, []byte{1}),
		described(0x78, m.Footer),
	} {
		var got any
		var err error
		if got, b, err = amqp.DecodeValue(b); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if len(b) > 0 {
		t.Errorf("% x behind the footer", b)
	}
}

// TestMessageAlternativeEncodings decodes every section in its longest form.
func TestMessageAlternativeEncodings(t *testing.T) {
	for _, tt := range messages() {
		for _, w := range []wide{{}, {symbolic: true}} {
			var long []byte
			for b := encodeMessage(t, &tt.m); len(b) > 0; {
				var v any
				var err error
				if v, b, err = amqp.DecodeValue(b); err != nil {
					t.Fatal(err)
				}
				long = w.append(long, v)
			}
			got, err := amqp.DecodeMessage(long)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			if diff := cmp.Diff(&tt.m, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.name, diff)
			}
		}
	}
}

// TestMessageEveryPrefix accepts a prefix only where a section ends.
func TestMessageEveryPrefix(t *testing.T) {
	for _, tt := range messages() {
		b := encodeMessage(t, &tt.m)
		ends := map[int]bool{0: true}
		for rest := b; len(rest) > 0; ends[len(b)-len(rest)] = true {
			var err error
			if _, rest, err = amqp.DecodeValue(rest); err != nil {
				t.Fatal(err)
			}
		}
		for n := range len(b) {
			_, err := amqp.DecodeMessage(b[:n:n])
			if ends[n] != (err == nil) {
				t.Errorf("%s: the first %d of %d bytes: error %v", tt.name, n, len(b), err)
			}
			if err != nil {
				decodeError(t, err)
			}
		}
	}
}

func sections(t testing.TB, values ...any) []byte {
	t.Helper()
	var b []byte
	for _, v := range values {
		b = append(b, encode(t, v)...)
	}
	return b
}

func TestMalformedMessages(t *testing.T) {
	header, data, value := described(0x70, list{}), described(0x75, []byte{1}), described(0x77, "x")
	sequence, footer, props := described(0x76, list{}), described(0x78, amqp.Map{}), described(0x73, list{})
	for _, tt := range []struct {
		name, field, reason string
		bytes               []byte
	}{
		{"performative", "", "amqp:open:list is no message section", sections(t, described(0x10, list{"x"}))},
		{"unknown section", "", "0x79 is no message section", sections(t, described(0x79, list{}))},
		{"not described", "", "a described type", []byte("hello")},
		{"header twice", "", "section amqp:header:list after amqp:header:list", sections(t, header, header)},
		{"header behind properties", "", "section amqp:header:list after amqp:properties:list", sections(t, props, header)},
		{"properties behind the body", "", "section amqp:properties:list after amqp:data:binary", sections(t, data, props)},
		{"data and value", "", "section amqp:amqp-value:* after amqp:data:binary", sections(t, data, value)},
		{"data and sequence", "", "section amqp:amqp-sequence:list after amqp:data:binary", sections(t, data, sequence)},
		{"sequence and value", "", "section amqp:amqp-value:* after amqp:amqp-sequence:list", sections(t, sequence, value)},
		{"two values", "", "section amqp:amqp-value:* after amqp:amqp-value:*", sections(t, value, value)},
		{"data behind the footer", "", "section amqp:data:binary after amqp:footer:map", sections(t, data, footer, data)},
		{"two footers", "", "section amqp:footer:map after amqp:footer:map", sections(t, footer, footer)},
		{"data is a string", "", "a binary", sections(t, described(0x75, "x"))},
		{"sequence is a map", "", "a list", sections(t, described(0x76, amqp.Map{}))},
		{"footer is a list", "", "a map", sections(t, described(0x78, list{}))},
		{"annotations are a list", "", "a map", sections(t, described(0x72, list{}))},
		{"annotations of odd count", "", "a key has no value", []byte{0, 0x53, 0x72, 0xc1, 2, 1, 0x40}},
		{"header is a map", "", "a list", sections(t, described(0x70, amqp.Map{}))},
		{"priority is a uint", "header.priority", "a ubyte", sections(t, described(0x70, list{nil, uint32(4)}))},
		{"ttl is a ulong", "header.ttl", "a uint", sections(t, described(0x70, list{nil, nil, uint64(4)}))},
		{"id is a uint", "properties.message-id", "type uint32 is none of", sections(t, described(0x73, list{uint32(1)}))},
		{"id is a list", "properties.correlation-id", "type amqp.List is none of", sections(t, described(0x73, list{nil, nil, nil, nil, nil, list{}}))},
		{"to is a symbol", "properties.to", "a string", sections(t, described(0x73, list{nil, nil, sym("x")}))},
		{"content-type is a string", "properties.content-type", "a symbol", sections(t, described(0x73, list{nil, nil, nil, nil, nil, nil, "x"}))},
		{"creation-time is a long", "properties.creation-time", "a timestamp", sections(t, described(0x73, list{nil, nil, nil, nil, nil, nil, nil, nil, nil, int64(1)}))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := amqp.DecodeMessage(tt.bytes)
			de := decodeError(t, err)
			if de.Field != tt.field || !strings.Contains(de.Reason, tt.reason) || m != nil {
				t.Errorf("got %v, %v, want field %q and reason %q", m, err, tt.field, tt.reason)
			}
		})
	}
}

func TestMessageAppendRefuses(t *testing.T) {
	bad := amqp.Map{{Key: "k", Value: struct{}{}}}
	for name, m := range map[string]amqp.Message{
		"message-id":             {Properties: &amqp.Properties{MessageID: 7}},
		"correlation-id":         {Properties: &amqp.Properties{CorrelationID: uint32(7)}},
		"delivery annotations":   {DeliveryAnnotations: bad},
		"message annotations":    {MessageAnnotations: bad},
		"application properties": {ApplicationProperties: bad},
		"sequence":               {Sequence: []list{{struct{}{}}}},
		"value":                  {Value: struct{}{}, HasValue: true},
		"footer":                 {Footer: bad},
	} {
		if b, err := m.Append(nil); err == nil {
			t.Errorf("%s: encoded to % x, want an error", name, b)
		}
	}
}

func TestTimestamp(t *testing.T) {
	if got := someStamp.Time(); !got.Equal(someTime) || got.Location() != time.UTC {
		t.Errorf("got %v, want %v", got, someTime)
	}
}
