package amqp_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/amqp"
)

type (
	list = amqp.List
	sym  = amqp.Symbol
)

// primitives is Part 1, section 1.6: every encoding of every type. compact is
// what we send for the value, nil when it is the same bytes.
var primitives = []struct {
	name    string
	bytes   []byte
	value   any
	compact []byte
}{
	{"null", []byte{0x40 /* null */}, nil, nil},
	{"true", []byte{0x41 /* true */}, true, nil},
	{"false", []byte{0x42 /* false */}, false, nil},
	{"boolean true", []byte{0x56 /* boolean */, 0x01 /* true */}, true, []byte{0x41}},
	{"boolean false", []byte{0x56 /* boolean */, 0x00 /* false */}, false, []byte{0x42}},
	{"ubyte", []byte{0x50 /* ubyte */, 0xfe /* 254 */}, uint8(254), nil},
	{"ushort", []byte{0x60 /* ushort */, 0x12, 0x34 /* big endian */}, uint16(0x1234), nil},
	{"uint0", []byte{0x43 /* uint 0 */}, uint32(0), nil},
	{"smalluint", []byte{0x52 /* smalluint */, 0xff /* 255 */}, uint32(255), nil},
	{"uint", []byte{0x70 /* uint */, 0x00, 0x00, 0x01, 0x00 /* 256 */}, uint32(256), nil},
	{"uint of small value", []byte{0x70 /* uint */, 0x00, 0x00, 0x00, 0x07 /* 7 */}, uint32(7), []byte{0x52, 7}},
	{"uint max", []byte{0x70 /* uint */, 0xff, 0xff, 0xff, 0xff /* 2^32-1 */}, uint32(1<<32 - 1), nil},
	{"ulong0", []byte{0x44 /* ulong 0 */}, uint64(0), nil},
	{"smallulong", []byte{0x53 /* smallulong */, 0x80 /* 128 */}, uint64(128), nil},
	{"ulong", []byte{0x80 /* ulong */, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08 /* big endian */}, uint64(0x0102030405060708), nil},
	{"ulong of zero", []byte{0x80 /* ulong */, 0, 0, 0, 0, 0, 0, 0, 0 /* 0 */}, uint64(0), []byte{0x44}},
	{"byte", []byte{0x51 /* byte */, 0x80 /* -128 */}, int8(-128), nil},
	{"short", []byte{0x61 /* short */, 0xff, 0xfe /* -2 */}, int16(-2), nil},
	{"smallint", []byte{0x54 /* smallint */, 0x80 /* -128 */}, int32(-128), nil},
	{"int", []byte{0x71 /* int */, 0xff, 0xff, 0xff, 0x7f /* -129 */}, int32(-129), nil},
	{"int of small value", []byte{0x71 /* int */, 0xff, 0xff, 0xff, 0xff /* -1 */}, int32(-1), []byte{0x54, 0xff}},
	{"int 128", []byte{0x71 /* int */, 0x00, 0x00, 0x00, 0x80 /* 128 */}, int32(128), nil},
	{"smalllong", []byte{0x55 /* smalllong */, 0xff /* -1 */}, int64(-1), nil},
	{"long", []byte{0x81 /* long */, 0x80, 0, 0, 0, 0, 0, 0, 0 /* -2^63 */}, int64(-1 << 63), nil},
	{"long of small value", []byte{0x81 /* long */, 0, 0, 0, 0, 0, 0, 0, 0x7f /* 127 */}, int64(127), []byte{0x55, 0x7f}},
	{"float", []byte{0x72 /* float */, 0x3f, 0xc0, 0x00, 0x00 /* 1.5 */}, float32(1.5), nil},
	{"double", []byte{0x82 /* double */, 0xc0, 0x04, 0, 0, 0, 0, 0, 0 /* -2.5 */}, float64(-2.5), nil},
	{"decimal32", []byte{0x74 /* decimal32 */, 1, 2, 3, 4 /* as it is */}, amqp.Decimal32{1, 2, 3, 4}, nil},
	{"decimal64", []byte{0x84 /* decimal64 */, 1, 2, 3, 4, 5, 6, 7, 8 /* as it is */}, amqp.Decimal64{1, 2, 3, 4, 5, 6, 7, 8}, nil},
	{"decimal128", []byte{0x94 /* decimal128 */, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 /* as it is */},
		amqp.Decimal128{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, nil},
	{"char", []byte{0x73 /* char */, 0x00, 0x01, 0xf6, 0x00 /* U+1F600 */}, amqp.Char(0x1f600), nil},
	{"timestamp", []byte{0x83 /* timestamp */, 0x00, 0x00, 0x01, 0x31, 0x1e, 0x4c, 0x00, 0x00 /* milliseconds */}, amqp.Timestamp(0x01311e4c0000), nil},
	{"timestamp before the epoch", []byte{0x83 /* timestamp */, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff /* -1 ms */}, amqp.Timestamp(-1), nil},
	{"uuid", []byte{0x98 /* uuid */, 0xf8, 0x1d, 0x4f, 0xae, 0x7d, 0xec, 0x11, 0xd0, 0xa7, 0x65, 0x00, 0xa0, 0xc9, 0x1e, 0x6b, 0xf6 /* 16 bytes */},
		amqp.UUID{0xf8, 0x1d, 0x4f, 0xae, 0x7d, 0xec, 0x11, 0xd0, 0xa7, 0x65, 0x00, 0xa0, 0xc9, 0x1e, 0x6b, 0xf6}, nil},
	{"vbin8", []byte{0xa0 /* vbin8 */, 0x02 /* 2 bytes */, 0x00, 0xff /* content */}, []byte{0x00, 0xff}, nil},
	{"vbin8 empty", []byte{0xa0 /* vbin8 */, 0x00 /* 0 bytes */}, []byte{}, nil},
	{"vbin32", []byte{0xb0 /* vbin32 */, 0, 0, 0, 0x01 /* 1 byte */, 0x2a /* content */}, []byte{0x2a}, []byte{0xa0, 1, 0x2a}},
	{"str8-utf8", []byte{0xa1 /* str8 */, 0x03 /* 3 bytes */, 0xe2, 0x82, 0xac /* the euro sign */}, "€", nil},
	{"str32-utf8", []byte{0xb1 /* str32 */, 0, 0, 0, 0x02 /* 2 bytes */, 'o', 'k' /* content */}, "ok", []byte{0xa1, 2, 'o', 'k'}},
	{"sym8", []byte{0xa3 /* sym8 */, 0x01 /* 1 byte */, 'x' /* content */}, sym("x"), nil},
	{"sym32", []byte{0xb3 /* sym32 */, 0, 0, 0, 0x01 /* 1 byte */, 'x' /* content */}, sym("x"), []byte{0xa3, 1, 'x'}},
	{"list0", []byte{0x45 /* list0 */}, list{}, nil},
	{"list8", []byte{0xc0 /* list8 */, 0x03 /* size */, 0x02 /* count */, 0x41 /* true */, 0x40 /* null */}, list{true, nil}, nil},
	{"list8 empty", []byte{0xc0 /* list8 */, 0x01 /* size */, 0x00 /* count */}, list{}, []byte{0x45}},
	{"list32", []byte{0xd0 /* list32 */, 0, 0, 0, 0x05 /* size */, 0, 0, 0, 0x01 /* count */, 0x43 /* uint 0 */}, list{uint32(0)},
		[]byte{0xc0, 2, 1, 0x43}},
	{"map8", []byte{0xc1 /* map8 */, 0x05 /* size */, 0x02 /* count: key and value */, 0xa3, 0x01, 'k' /* symbol */, 0x41 /* true */},
		amqp.Map{{Key: sym("k"), Value: true}}, nil},
	{"map8 empty", []byte{0xc1 /* map8 */, 0x01 /* size */, 0x00 /* count */}, amqp.Map{}, nil},
	{"map32", []byte{0xd1 /* map32 */, 0, 0, 0, 0x06 /* size */, 0, 0, 0, 0x02 /* count */, 0x43 /* uint 0 */, 0x40 /* null */},
		amqp.Map{{Key: uint32(0), Value: nil}}, []byte{0xc1, 3, 2, 0x43, 0x40}},
	{"array8", []byte{0xe0 /* array8 */, 0x04 /* size */, 0x02 /* count */, 0x50 /* ubyte */, 0x01, 0x02 /* elements */},
		amqp.Array{Code: 0x50, Values: []any{uint8(1), uint8(2)}}, nil},
	{"array8 empty", []byte{0xe0 /* array8 */, 0x02 /* size */, 0x00 /* count */, 0xa3 /* sym8 */}, amqp.Array{Code: 0xa3, Values: []any{}}, nil},
	{"array32", []byte{0xf0 /* array32 */, 0, 0, 0, 0x06 /* size */, 0, 0, 0, 0x01 /* count */, 0x51 /* byte */, 0xff /* -1 */},
		amqp.Array{Code: 0x51, Values: []any{int8(-1)}}, []byte{0xe0, 3, 1, 0x51, 0xff}},
}

// composed are described types, arrays of every kind, and the figures of Part
// 1, sections 1.2 and 1.3.
var composed = []struct {
	name    string
	bytes   []byte
	value   any
	compact []byte
}{
	{"primitive of section 1.2", bytes.Join([][]byte{
		{0xa1 /* str8 */, 0x1e /* 30 bytes */}, []byte("Hello Glorious Messaging World"),
	}, nil), "Hello Glorious Messaging World", nil},
	{"described of section 1.2", bytes.Join([][]byte{
		{0x00 /* described */, 0xa1 /* str8 */, 0x03 /* 3 bytes */}, []byte("URL"),
		{0xa1 /* str8 */, 0x1e /* 30 bytes */}, []byte("http://example.org/hello-world"),
	}, nil), amqp.Described{Descriptor: "URL", Value: "http://example.org/hello-world"}, nil},
	{"book of section 1.3", bytes.Join([][]byte{
		{0x00 /* described */, 0xa3 /* sym8 */, 0x11 /* 17 bytes */}, []byte("example:book:list"),
		{0xc0 /* list8 */, 0x40 /* size */, 0x03 /* count */},
		{0xa1 /* str8 */, 0x15 /* 21 bytes */}, []byte("AMQP for & by Dummies"),
		{0xe0 /* array8 */, 0x25 /* size */, 0x02 /* count */, 0xa1 /* str8 */},
		{0x0e /* 14 bytes */}, []byte("Rob J. Godfrey"),
		{0x13 /* 19 bytes */}, []byte("Rafael H. Schloming"),
		{0x40 /* null */},
	}, nil), amqp.Described{Descriptor: sym("example:book:list"), Value: list{
		"AMQP for & by Dummies",
		amqp.Array{Code: 0xa1, Values: []any{"Rob J. Godfrey", "Rafael H. Schloming"}},
		nil,
	}}, nil},
	{"described descriptor", []byte{
		0x00 /* described */, 0x00 /* descriptor is described */, 0x44 /* ulong 0 */, 0x53, 0x01, /* ulong 1 */
		0x41, /* the value: true */
	}, amqp.Described{Descriptor: amqp.Described{Descriptor: uint64(0), Value: uint64(1)}, Value: true}, nil},
	{"described value of a described value", []byte{
		0x00 /* described */, 0x53, 0x01 /* ulong 1 */, 0x00 /* described */, 0x53, 0x02 /* ulong 2 */, 0x45, /* list0 */
	}, described(1, described(2, list{})), nil},
	{"array of described", []byte{
		0xe0 /* array8 */, 0x07 /* size */, 0x02 /* count */, 0x00, 0x53, 0x70 /* descriptor */, 0x50 /* ubyte */, 0x01, 0x02, /* elements */
	}, amqp.Array{Code: 0x50, Desc: uint64(0x70), Values: []any{uint8(1), uint8(2)}}, nil},
	{"array of arrays", []byte{
		0xe0 /* array8 */, 0x0b /* size */, 0x02 /* count */, 0xe0, /* array8 */
		0x04 /* size */, 0x02 /* count */, 0x50 /* ubyte */, 0x01, 0x02, /* first */
		0x03 /* size */, 0x01 /* count */, 0x51 /* byte */, 0xff, /* second */
	}, amqp.Array{Code: 0xe0, Values: []any{
		amqp.Array{Code: 0x50, Values: []any{uint8(1), uint8(2)}},
		amqp.Array{Code: 0x51, Values: []any{int8(-1)}},
	}}, nil},
	{"array of wide arrays", []byte{
		0xe0 /* array8 */, 0x0d /* size */, 0x01 /* count */, 0xf0, /* array32 */
		0, 0, 0, 0x07 /* size */, 0, 0, 0, 0x02 /* count */, 0x50 /* ubyte */, 0x01, 0x02, /* elements */
	}, amqp.Array{Code: 0xf0, Values: []any{amqp.Array{Code: 0x50, Values: []any{uint8(1), uint8(2)}}}}, nil},
	{"array of lists", []byte{
		0xe0 /* array8 */, 0x07 /* size */, 0x02 /* count */, 0xc0, /* list8 */
		0x02, 0x01, 0x41 /* [true] */, 0x01, 0x00, /* [] */
	}, amqp.Array{Code: 0xc0, Values: []any{list{true}, list{}}}, nil},
	{"array of wide lists", []byte{
		0xe0 /* array8 */, 0x13 /* size */, 0x02 /* count */, 0xd0, /* list32 */
		0, 0, 0, 0x05, 0, 0, 0, 0x01, 0x41, /* [true] */
		0, 0, 0, 0x04, 0, 0, 0, 0x00, /* [] */
	}, amqp.Array{Code: 0xd0, Values: []any{list{true}, list{}}}, nil},
	{"array of maps", []byte{
		0xe0 /* array8 */, 0x07 /* size */, 0x01 /* count */, 0xc1, /* map8 */
		0x04 /* size */, 0x02 /* count */, 0x52, 0x07 /* 7 */, 0x42, /* false */
	}, amqp.Array{Code: 0xc1, Values: []any{amqp.Map{{Key: uint32(7), Value: false}}}}, nil},
	{"array of wide maps", []byte{
		0xe0 /* array8 */, 0x0c /* size */, 0x01 /* count */, 0xd1, /* map32 */
		0, 0, 0, 0x06 /* size */, 0, 0, 0, 0x02 /* count */, 0x43 /* 0 */, 0x42, /* false */
	}, amqp.Array{Code: 0xd1, Values: []any{amqp.Map{{Key: uint32(0), Value: false}}}}, nil},
	{"array of booleans", []byte{0xe0 /* array8 */, 0x04 /* size */, 0x02 /* count */, 0x56 /* boolean */, 0x01, 0x00},
		amqp.Array{Code: 0x56, Values: []any{true, false}}, nil},
	{"array of no width", []byte{0xe0 /* array8 */, 0x02 /* size */, 0xc8 /* count */, 0x41 /* true */},
		amqp.Array{Code: 0x41, Values: repeat(true, 200)}, nil},
	{"array of uints", []byte{0xe0 /* array8 */, 0x0a /* size */, 0x02 /* count */, 0x70 /* uint */, 0, 0, 0, 1, 0, 0, 0, 0},
		amqp.Array{Code: 0x70, Values: []any{uint32(1), uint32(0)}}, nil},
	{"array of smalluints", []byte{0xe0 /* array8 */, 0x04 /* size */, 0x02 /* count */, 0x52 /* smalluint */, 1, 0},
		amqp.Array{Code: 0x52, Values: []any{uint32(1), uint32(0)}}, nil},
	{"array of ulongs", []byte{0xe0 /* array8 */, 0x0a /* size */, 0x01 /* count */, 0x80 /* ulong */, 0, 0, 0, 0, 0, 0, 0, 1},
		amqp.Array{Code: 0x80, Values: []any{uint64(1)}}, nil},
	{"array of smallulongs", []byte{0xe0 /* array8 */, 0x03 /* size */, 0x01 /* count */, 0x53 /* smallulong */, 0},
		amqp.Array{Code: 0x53, Values: []any{uint64(0)}}, nil},
	{"array of ints", []byte{0xe0 /* array8 */, 0x06 /* size */, 0x01 /* count */, 0x71 /* int */, 0xff, 0xff, 0xff, 0xff},
		amqp.Array{Code: 0x71, Values: []any{int32(-1)}}, nil},
	{"array of longs", []byte{0xe0 /* array8 */, 0x0a /* size */, 0x01 /* count */, 0x81 /* long */, 0, 0, 0, 0, 0, 0, 0, 5},
		amqp.Array{Code: 0x81, Values: []any{int64(5)}}, nil},
	{"array of wide binaries", []byte{0xe0 /* array8 */, 0x07 /* size */, 0x01 /* count */, 0xb0 /* vbin32 */, 0, 0, 0, 1, 9},
		amqp.Array{Code: 0xb0, Values: []any{[]byte{9}}}, nil},
	{"array of wide strings", []byte{0xe0 /* array8 */, 0x07 /* size */, 0x01 /* count */, 0xb1 /* str32 */, 0, 0, 0, 1, 'a'},
		amqp.Array{Code: 0xb1, Values: []any{"a"}}, nil},
	{"array of wide symbols", []byte{0xe0 /* array8 */, 0x07 /* size */, 0x01 /* count */, 0xb3 /* sym32 */, 0, 0, 0, 1, 'a'},
		amqp.Array{Code: 0xb3, Values: []any{sym("a")}}, nil},
}

func repeat(v any, n int) []any {
	out := make([]any, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func TestValues(t *testing.T) {
	for _, tt := range append(primitives, composed...) {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.value, decode(t, tt.bytes)); diff != "" {
				t.Fatalf("decoded (-want +got):\n%s", diff)
			}
			want := tt.bytes
			if tt.compact != nil {
				want = tt.compact
			}
			if got := encode(t, tt.value); !bytes.Equal(got, want) {
				t.Errorf("encoded % x, want % x", got, want)
			}
		})
	}
}

func TestValueEveryPrefix(t *testing.T) {
	for _, tt := range append(primitives, composed...) {
		for n := range len(tt.bytes) {
			v, rest, err := amqp.DecodeValue(tt.bytes[:n])
			if err == nil {
				t.Errorf("%s: the first %d of %d bytes decode to %#v, rest % x", tt.name, n, len(tt.bytes), v, rest)
				continue
			}
			decodeError(t, err)
		}
	}
}

// TestCompoundWidens crosses the limits of the 8-bit forms.
func TestCompoundWidens(t *testing.T) {
	for _, tt := range []struct {
		name  string
		value any
		code  byte
	}{
		{"list of 255 bytes", list{strings.Repeat("x", 252)}, 0xc0},
		{"list of 256 bytes", list{strings.Repeat("x", 253)}, 0xd0},
		{"list of 254 nulls", make(list, 254), 0xc0},
		{"list of 255 nulls", make(list, 255), 0xd0},
		{"list of 256 nulls", make(list, 256), 0xd0},
		{"map of 256 bytes", amqp.Map{{Key: "k", Value: strings.Repeat("x", 250)}}, 0xd1},
		{"map of 255 bytes", amqp.Map{{Key: "k", Value: strings.Repeat("x", 249)}}, 0xc1},
		{"array of 255 elements of no width", amqp.Array{Code: 0x40, Values: make([]any, 255)}, 0xe0},
		{"array of 256 elements of no width", amqp.Array{Code: 0x40, Values: make([]any, 256)}, 0xf0},
		{"binary of 255", bytes.Repeat([]byte{1}, 255), 0xa0},
		{"binary of 256", bytes.Repeat([]byte{1}, 256), 0xb0},
		{"string of 256", strings.Repeat("s", 256), 0xb1},
		{"symbol of 256", sym(strings.Repeat("s", 256)), 0xb3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := encode(t, tt.value)
			if b[0] != tt.code {
				t.Errorf("constructor 0x%02x, want 0x%02x", b[0], tt.code)
			}
			if diff := cmp.Diff(tt.value, decode(t, b)); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAppendValueRefuses(t *testing.T) {
	for name, v := range map[string]any{
		"type without encoding":     struct{}{},
		"inside a list":             list{struct{}{}},
		"key of a map":              amqp.Map{{Key: struct{}{}}},
		"value of a map":            amqp.Map{{Key: "k", Value: struct{}{}}},
		"descriptor":                amqp.Described{Descriptor: struct{}{}},
		"described value":           amqp.Described{Value: struct{}{}},
		"array without constructor": amqp.Array{},
		"array of unknown code":     amqp.Array{Code: 0x99, Values: []any{nil}},
		"array with two types":      amqp.Array{Code: 0x50, Values: []any{uint8(1), "x"}},
		"array of narrow uints":     amqp.Array{Code: 0x52, Values: []any{uint32(256)}},
		"array of narrow strings":   amqp.Array{Code: 0xa1, Values: []any{strings.Repeat("x", 256)}},
		"array of narrow lists":     amqp.Array{Code: 0xc0, Values: []any{make(list, 300)}},
		"array of unknown":          amqp.Array{Code: 0x50, Values: []any{struct{}{}}},
		"array of bad descriptor":   amqp.Array{Code: 0x50, Desc: struct{}{}},
		"array of described":        amqp.Array{Code: 0x50, Values: []any{described(1, uint8(1))}},
	} {
		if b, err := amqp.AppendValue(nil, v); err == nil {
			t.Errorf("%s: encoded to % x, want an error", name, b)
		}
	}
}

func TestAppendValueOther(t *testing.T) {
	for _, tt := range []struct {
		name  string
		value any
		want  []byte
	}{
		{"int as long", 7, []byte{0x55, 7}},
		{"symbols", []sym{"a", "b"}, []byte{0xe0, 6, 2, 0xa3, 1, 'a', 1, 'b'}},
		{"no symbols", []sym{}, []byte{0xe0, 2, 0, 0xa3}},
		{"raw", amqp.Raw{0x41}, []byte{0x41}},
		{"no raw", amqp.Raw(nil), []byte{0x40}},
		{"array of raw", amqp.Array{Code: 0x50, Values: []any{amqp.Raw{0x50, 9}}}, []byte{0xe0, 3, 1, 0x50, 9}},
		{"array of symbol slices", amqp.Array{Code: 0xf0, Values: []any{[]sym{"a"}}},
			[]byte{0xe0, 0x0d, 1, 0xf0, 0, 0, 0, 7, 0, 0, 0, 1, 0xa3, 1, 'a'}},
	} {
		if got := encode(t, tt.value); !bytes.Equal(got, tt.want) {
			t.Errorf("%s: encoded % x, want % x", tt.name, got, tt.want)
		}
	}
}

func TestAppendSymbolsWide(t *testing.T) {
	long := []sym{"a", sym(strings.Repeat("b", 300))}
	b := amqp.AppendSymbols(nil, long)
	want := amqp.Array{Code: 0xb3, Values: []any{long[0], long[1]}}
	if diff := cmp.Diff(any(want), decode(t, b)); diff != "" {
		t.Error(diff)
	}
}

func TestMapGet(t *testing.T) {
	m := amqp.Map{{Key: uint32(1), Value: "number"}, {Key: sym("s"), Value: "symbol"}, {Key: "t", Value: "string"}}
	for key, want := range map[string]any{"s": "symbol", "t": "string", "": nil, "x": nil} {
		if got := m.Get(key); got != want {
			t.Errorf("Get(%q) = %v, want %v", key, got, want)
		}
	}
}

func nested(open []byte, depth int, core ...byte) []byte {
	return append(bytes.Repeat(open, depth), core...)
}

func lists(depth int) any {
	v := any(list{})
	for range depth {
		v = list{v}
	}
	return v
}

func TestMalformedValues(t *testing.T) {
	for _, tt := range []struct {
		name   string
		bytes  []byte
		offset int
		reason string
	}{
		{"nothing", nil, 0, "input ends"},
		{"unknown constructor", []byte{0x3f}, 0, "unknown constructor 0x3f"},
		{"reserved width", []byte{0x57, 1}, 0, "unknown constructor 0x57"},
		{"boolean of two", []byte{0x56, 2}, 1, "boolean 0x02"},
		{"binary8 beyond input", []byte{0xa0, 3, 1, 2}, 2, "3 bytes wanted, 2 left"},
		{"binary32 beyond input", []byte{0xb0, 0xff, 0xff, 0xff, 0xff, 1}, 5, "size 4294967295, 1 bytes left"},
		{"string is no UTF-8", []byte{0xa1, 2, 0xc3, 0x28}, 2, "string is not valid UTF-8"},
		{"string has a surrogate", []byte{0xa1, 3, 0xed, 0xa0, 0x80}, 2, "string is not valid UTF-8"},
		{"symbol is not ASCII", []byte{0xa3, 2, 'a', 0x80}, 2, "symbol is not ASCII"},
		{"list8 without room for the count", []byte{0xc0, 0}, 2, "size 0"},
		{"list32 without room for the count", []byte{0xd0, 0, 0, 0, 3, 0, 0, 0}, 5, "size 3"},
		{"list8 beyond input", []byte{0xc0, 9, 1, 0x40}, 2, "size 9, 2 bytes left"},
		{"list32 beyond input", []byte{0xd0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0x40}, 5, "size 2147483647, 5 bytes left"},
		{"list8 count beyond size", []byte{0xc0, 2, 2, 0x40}, 3, "2 elements in 1 bytes"},
		{"list32 count beyond size", []byte{0xd0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40}, 9, "4294967295 elements in 1 bytes"},
		{"list ends after its size", []byte{0xc0, 2, 1, 0x50, 0x07}, 5, "elements end -1 bytes"},
		{"list ends before its size", []byte{0xc0, 3, 1, 0x40, 0x40}, 4, "elements end 1 bytes"},
		{"map8 of odd count", []byte{0xc1, 2, 1, 0x40}, 3, "a key has no value"},
		{"map32 of odd count", []byte{0xd1, 0, 0, 0, 7, 0, 0, 0, 3, 0x40, 0x40, 0x40}, 9, "a key has no value"},
		{"map ends before its size", []byte{0xc1, 4, 2, 0x40, 0x40, 0x40}, 5, "elements end 1 bytes"},
		{"array8 beyond input", []byte{0xe0, 9, 1, 0x50}, 2, "size 9, 2 bytes left"},
		{"array count beyond size", []byte{0xe0, 3, 2, 0x50, 1}, 4, "array of 2 elements in 1 bytes"},
		{"array without constructor", []byte{0xe0, 1, 0, 0x50}, 4, "ends before its constructor"},
		{"array of unknown constructor", []byte{0xe0, 2, 0, 0x99}, 3, "array of constructor 0x99"},
		{"array with two descriptors", []byte{0xe0, 6, 0, 0, 0x44, 0, 0x44, 0x50}, 5, "array of constructor 0x00"},
		{"array of countless nulls", []byte{0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40}, 10, "array of 4294967295 elements of no width"},
		{"array of maps of odd count", []byte{0xe0, 5, 1, 0xc1, 2, 1, 0x40}, 6, "a key has no value"},
		{"array ends before its size", []byte{0xe0, 4, 1, 0x50, 1, 1}, 5, "elements end 1 bytes"},
		{"inner array beyond the outer", []byte{0xe0, 5, 1, 0xe0, 4, 2, 0x50, 1, 2}, 9, "elements end -2 bytes"},
		{"descriptor without value", []byte{0x00, 0x44}, 2, "input ends"},
		{"descriptors for ever", nested([]byte{0}, 100), 33, "nested deeper than 32"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, rest, err := amqp.DecodeValue(tt.bytes)
			if err == nil {
				t.Fatalf("decoded to %#v, want an error", v)
			}
			de := decodeError(t, err)
			if !strings.Contains(de.Reason, tt.reason) || de.Offset != tt.offset {
				t.Errorf("got %q at %d, want %q at %d", de.Reason, de.Offset, tt.reason, tt.offset)
			}
			if v != nil || rest != nil {
				t.Errorf("got %v and % x beside the error", v, rest)
			}
		})
	}
}

func TestDepth(t *testing.T) {
	arrays := func(n int) any {
		a := amqp.Array{Code: 0x50, Values: []any{uint8(1)}}
		for range n {
			a = amqp.Array{Code: 0xf0, Values: []any{a}}
		}
		return a
	}
	maps := func(n int) any {
		v := any(true)
		for range n {
			v = amqp.Map{{Key: "k", Value: v}}
		}
		return v
	}
	for _, tt := range []struct {
		name    string
		value   any
		tooDeep any
	}{
		{"lists", lists(32), lists(33)},
		{"arrays", arrays(31), arrays(32)},
		{"maps", maps(32), maps(33)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// cmp.Diff takes time exponential in the depth.
			if got := decode(t, encode(t, tt.value)); !reflect.DeepEqual(got, tt.value) {
				t.Errorf("decoded to %#v", got)
			}
			_, _, err := amqp.DecodeValue(encode(t, tt.tooDeep))
			if err == nil || !strings.Contains(err.Error(), "nested deeper than 32") {
				t.Errorf("got error %v, want one on depth", err)
			}
		})
	}
}

// TestEmptyElementsAreBounded spreads elements of no width over many arrays.
func TestEmptyElementsAreBounded(t *testing.T) {
	var l list
	for range 8 {
		l = append(l, amqp.Array{Code: 0x40, Values: make([]any, 200)})
	}
	_, _, err := amqp.DecodeValue(encode(t, l))
	if err == nil || !strings.Contains(err.Error(), "elements of no width") {
		t.Errorf("got error %v, want one on the elements of no width", err)
	}
}
