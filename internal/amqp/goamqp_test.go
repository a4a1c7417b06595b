package amqp_test

import (
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/amqp"
)

// crossRow is one message in our words and in those of go-amqp.
type crossRow struct {
	name   string
	ours   amqp.Message
	theirs goamqp.Message
	read   *goamqp.Message // what go-amqp reads, where it differs from what it writes
}

func ptr[T any](v T) *T { return &v }

// crossTypes are the types that both codecs have a word for; go-amqp has none
// for char and the decimals.
var crossTypes = []struct {
	name         string
	ours, theirs any
}{
	{"null", nil, nil},
	{"boolean", true, true},
	{"ubyte", uint8(200), uint8(200)},
	{"ushort", uint16(60000), uint16(60000)},
	{"uint0", uint32(0), uint32(0)},
	{"smalluint", uint32(200), uint32(200)},
	{"uint", uint32(1 << 31), uint32(1 << 31)},
	{"ulong0", uint64(0), uint64(0)},
	{"smallulong", uint64(200), uint64(200)},
	{"ulong", uint64(1 << 63), uint64(1 << 63)},
	{"byte", int8(-100), int8(-100)},
	{"short", int16(-30000), int16(-30000)},
	{"smallint", int32(-100), int32(-100)},
	{"int", int32(-1 << 31), int32(-1 << 31)},
	{"smalllong", int64(-100), int64(-100)},
	{"long", int64(-1 << 63), int64(-1 << 63)},
	{"float", float32(1.25), float32(1.25)},
	{"double", 1.1, 1.1},
	{"timestamp", someStamp, someTime},
	{"uuid", someUUID, goamqp.UUID(someUUID)},
	{"binary", []byte{0, 255}, []byte{0, 255}},
	{"string", "grüße", "grüße"},
	{"long string", string(make([]byte, 300)), string(make([]byte, 300))},
	{"symbol", sym("name"), goamqp.Symbol("name")},
}

func crossMessages() []crossRow {
	type row struct {
		name   string
		ours   amqp.Message
		theirs goamqp.Message
	}
	rows := []row{
		{"data", amqp.Message{Data: [][]byte{[]byte("one"), {}, make([]byte, 300)}}, goamqp.Message{Data: [][]byte{[]byte("one"), {}, make([]byte, 300)}}},
		{"sequence", amqp.Message{Sequence: []list{{"a", uint8(1), nil}, {}}}, goamqp.Message{Sequence: [][]any{{"a", uint8(1), nil}, {}}}},
		{"list value", amqp.Message{Value: list{"a", int64(1)}, HasValue: true}, goamqp.Message{Value: []any{"a", int64(1)}}},
		{"map value", amqp.Message{Value: amqp.Map{{Key: "k", Value: list{true}}}, HasValue: true}, goamqp.Message{Value: map[string]any{"k": []any{true}}}},
		{"array value", amqp.Message{Value: amqp.Array{Code: 0xa1, Values: []any{"x", "y"}}, HasValue: true}, goamqp.Message{Value: []string{"x", "y"}}},
		{"header", amqp.Message{Header: &amqp.Header{Durable: true, Priority: 7, HasPriority: true, TTL: 1500, HasTTL: true, FirstAcquirer: true, DeliveryCount: 2}},
			goamqp.Message{Header: &goamqp.MessageHeader{Durable: true, Priority: 7, TTL: 1500 * time.Millisecond, FirstAcquirer: true, DeliveryCount: 2}}},
		{"default header", amqp.Message{Header: &amqp.Header{}}, goamqp.Message{Header: &goamqp.MessageHeader{Priority: 4}}},
		{"annotations", amqp.Message{
			DeliveryAnnotations: amqp.Map{{Key: sym(assertion), Value: "token"}}, MessageAnnotations: amqp.Map{{Key: sym("x-opt"), Value: someUUID}},
			Footer: amqp.Map{{Key: sym("crc"), Value: []byte{1}}},
		}, goamqp.Message{
			DeliveryAnnotations: goamqp.Annotations{goamqp.Symbol(assertion): "token"}, Annotations: goamqp.Annotations{goamqp.Symbol("x-opt"): goamqp.UUID(someUUID)},
			Footer: goamqp.Annotations{goamqp.Symbol("crc"): []byte{1}},
		}},
		{"properties", amqp.Message{Properties: fullMessage().Properties}, goamqp.Message{Properties: &goamqp.MessageProperties{
			MessageID: "id", UserID: []byte("user"), To: ptr("telemetry/T"), Subject: ptr("s"), ReplyTo: ptr("r"), CorrelationID: uint64(77),
			ContentType: ptr("text/plain"), ContentEncoding: ptr("gzip"), AbsoluteExpiryTime: &someTime, CreationTime: ptr(someTime.Add(time.Millisecond)),
			GroupID: ptr("g"), GroupSequence: ptr(uint32(0)), ReplyToGroupID: ptr("rg"),
		}}},
	}
	for _, id := range []struct{ ours, theirs any }{
		{"text", "text"}, {uint64(0), uint64(0)}, {uint64(200), uint64(200)}, {uint64(1 << 40), uint64(1 << 40)},
		{someUUID, goamqp.UUID(someUUID)}, {[]byte{1, 2}, []byte{1, 2}},
	} {
		rows = append(rows, row{"ids", amqp.Message{Properties: &amqp.Properties{MessageID: id.ours, CorrelationID: id.ours}},
			goamqp.Message{Properties: &goamqp.MessageProperties{MessageID: id.theirs, CorrelationID: id.theirs}}})
	}
	for _, v := range crossTypes {
		rows = append(rows, row{"property of " + v.name, amqp.Message{ApplicationProperties: amqp.Map{{Key: "k", Value: v.ours}}},
			goamqp.Message{ApplicationProperties: map[string]any{"k": v.theirs}}})
		if v.ours != nil { // go-amqp has no word for a null body when decoding
			rows = append(rows, row{"value of " + v.name, amqp.Message{Value: v.ours, HasValue: true}, goamqp.Message{Value: v.theirs}})
		}
	}
	cross := make([]crossRow, len(rows))
	for i, r := range rows {
		cross[i] = crossRow{r.name, r.ours, r.theirs, theyRead(r.name)}
	}
	return cross
}

// theyRead tells where go-amqp reads a message in other words than it writes
// it: it takes symbols for strings and an empty list for none.
func theyRead(name string) *goamqp.Message {
	switch name {
	case "sequence":
		return &goamqp.Message{Sequence: [][]any{{"a", uint8(1), nil}, nil}}
	case "property of symbol":
		return &goamqp.Message{ApplicationProperties: map[string]any{"k": "name"}}
	case "value of symbol":
		return &goamqp.Message{Value: "name"}
	case "annotations":
		return &goamqp.Message{
			DeliveryAnnotations: goamqp.Annotations{assertion: "token"}, Annotations: goamqp.Annotations{"x-opt": goamqp.UUID(someUUID)},
			Footer: goamqp.Annotations{"crc": []byte{1}},
		}
	}
	return nil
}

// theirPrivates leaves the delivery out, of which a coded message knows nothing.
var theirPrivates = cmp.FilterPath(func(p cmp.Path) bool {
	f, ok := p.Last().(cmp.StructField)
	return ok && p.Index(-2).Type().String() == "amqp.Message" && f.Name()[0] >= 'a'
}, cmp.Ignore())

func TestGoAMQPReadsOurs(t *testing.T) {
	for _, tt := range crossMessages() {
		t.Run(tt.name, func(t *testing.T) {
			var got goamqp.Message
			if err := got.UnmarshalBinary(encodeMessage(t, &tt.ours)); err != nil {
				t.Fatal(err)
			}
			want := tt.theirs
			if tt.read != nil {
				want = *tt.read
			}
			if diff := cmp.Diff(want, got, theirPrivates); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWeReadGoAMQPs(t *testing.T) {
	for _, tt := range crossMessages() {
		t.Run(tt.name, func(t *testing.T) {
			b, err := tt.theirs.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			got, err := amqp.DecodeMessage(b)
			if err != nil {
				t.Fatal(err)
			}
			want := tt.ours
			if diff := cmp.Diff(&want, got, shortArrays); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if _, err := amqp.ScanSections(b); err != nil {
				t.Errorf("ScanSections: %v", err)
			}
		})
	}
}

// shortArrays takes arrays of strings in either width for the same.
var shortArrays = cmp.Comparer(func(a, b amqp.Array) bool { return a32(a.Code) == a32(b.Code) && cmp.Equal(a.Values, b.Values) })

// TestNullBodyFromGoAMQP has a body whose value is null.
func TestNullBodyFromGoAMQP(t *testing.T) {
	b, err := (&goamqp.Message{Value: goamqp.Null{}}).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	m, err := amqp.DecodeMessage(b)
	if err != nil || !m.HasValue || m.Value != nil {
		t.Errorf("got %+v, %v, want a null value", m, err)
	}
}
