package amqp_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/amqp"
)

const assertion = "registration-assertion"

// garbage is no AMQP at all behind the descriptor.
var garbage = []byte{0x00, 0x53, 0x75, 0xb0, 0xff, 0xff, 0xff, 0xff, 0x3f}

func TestScanSections(t *testing.T) {
	header := encode(t, described(0x70, list{true}))
	da := encode(t, described(0x71, amqp.Map{{Key: sym(assertion), Value: "token"}}))
	ma := encode(t, described(0x72, amqp.Map{{Key: sym("x"), Value: uint8(1)}}))
	props := encode(t, described(0x73, list{"id", nil, "to"}))
	ap := encode(t, described(0x74, amqp.Map{{Key: "k", Value: "v"}}))
	for _, tt := range []struct {
		name  string
		parts [5][]byte // in the order of Sections
		body  []byte
	}{
		{"nothing", [5][]byte{}, nil},
		{"body alone", [5][]byte{}, garbage},
		{"all and garbage", [5][]byte{header, da, ma, props, ap}, garbage},
		{"all and no body", [5][]byte{header, da, ma, props, ap}, nil},
		{"no header", [5][]byte{nil, da, nil, props, nil}, garbage},
		{"no delivery annotations", [5][]byte{header, nil, ma, nil, ap}, garbage},
		{"body is a value", [5][]byte{nil, nil, nil, props, nil}, []byte{0x00, 0x53, 0x77}},
		{"body is a sequence", [5][]byte{nil, nil, nil, props, nil}, []byte{0x00, 0x53, 0x76, 0xff}},
		{"footer alone", [5][]byte{header, nil, nil, nil, nil}, []byte{0x00, 0x53, 0x78, 0xff}},
		{"body by name", [5][]byte{nil, nil, ma, nil, nil}, append([]byte{0x00, 0xa3, 16}, "amqp:data:binary\xff"...)},
		{"longest forms", [5][]byte{wide{}.append(nil, decode(t, header)), wide{}.append(nil, decode(t, da)), nil, wide{}.append(nil, decode(t, props)), nil}, garbage},
		{"by name", [5][]byte{nil, wide{symbolic: true}.append(nil, decode(t, da)), nil, wide{symbolic: true}.append(nil, decode(t, props)), nil}, garbage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := append(bytes.Join(tt.parts[:], nil), tt.body...)
			s, err := amqp.ScanSections(m)
			if err != nil {
				t.Fatal(err)
			}
			for i, span := range []amqp.Span{s.Header, s.DeliveryAnnotations, s.MessageAnnotations, s.Properties, s.ApplicationProperties} {
				if !bytes.Equal(span.Of(m), tt.parts[i]) || span.Len() != len(tt.parts[i]) {
					t.Errorf("section %d is % x, want % x", i, span.Of(m), tt.parts[i])
				}
			}
			if !bytes.Equal(m[s.Body:], tt.body) {
				t.Errorf("body is % x, want % x", m[s.Body:], tt.body)
			}
		})
	}
}

func TestScanSectionsEveryPrefix(t *testing.T) {
	m := fullMessage()
	m.Data = [][]byte{[]byte("payload")}
	b := encodeMessage(t, &m)
	whole, err := amqp.ScanSections(b)
	if err != nil {
		t.Fatal(err)
	}
	ends := map[int]bool{0: true, whole.Header.End: true, whole.DeliveryAnnotations.End: true, whole.MessageAnnotations.End: true,
		whole.Properties.End: true, whole.ApplicationProperties.End: true}
	for n := range len(b) {
		_, err := amqp.ScanSections(b[:n:n])
		if want := ends[n] || n >= whole.Body+3; want != (err == nil) {
			t.Errorf("the first %d of %d bytes: error %v", n, len(b), err)
		}
		if err != nil {
			decodeError(t, err)
		}
	}
}

func TestScanSectionsRefuses(t *testing.T) {
	header, da, props := described(0x70, list{}), described(0x71, amqp.Map{}), described(0x73, list{})
	for _, tt := range []struct {
		name, reason string
		bytes        []byte
	}{
		{"out of order", "section amqp:header:list after amqp:delivery-annotations:map", sections(t, da, header)},
		{"twice", "section amqp:properties:list after amqp:properties:list", sections(t, props, props)},
		{"performative", "amqp:transfer:list is no message section", sections(t, described(0x14, list{uint32(1)}))},
		{"unknown section behind", "section 0x99 after amqp:header:list", sections(t, header, described(0x99, list{}))},
		{"not described", "a described type", []byte{0x45}},
		{"section beyond input", "size 200, 1 bytes left", []byte{0, 0x53, 0x70, 0xc0, 200, 0}},
		{"section without room for its count", "size 0", []byte{0, 0x53, 0x71, 0xc1, 0}},
		{"unknown constructor", "unknown constructor 0x99", []byte{0, 0x53, 0x70, 0x99}},
		{"descriptors for ever", "nested deeper than 32", nested([]byte{0}, 99, 0, 0x53, 0x70)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := amqp.ScanSections(append([]byte{}, tt.bytes...))
			if tt.name == "descriptors for ever" {
				_, err = amqp.ScanSections(append([]byte{0, 0x53, 0x70}, tt.bytes...))
			}
			if de := decodeError(t, err); !strings.Contains(de.Reason, tt.reason) {
				t.Errorf("got %v, want %q", err, tt.reason)
			}
		})
	}
}

// mapForms are one map section in every form of map, key and descriptor.
func mapForms(t testing.TB, m amqp.Map) map[string][]byte {
	stringKeys := make(amqp.Map, len(m))
	for i, p := range m {
		stringKeys[i] = p
		if s, ok := p.Key.(sym); ok {
			stringKeys[i].Key = string(s)
		}
	}
	return map[string][]byte{
		"map8, symbols":           encode(t, described(0x71, m)),
		"map8, strings":           encode(t, described(0x71, stringKeys)),
		"map32, symbols":          wide{}.append(nil, described(0x71, m)),
		"map32, strings":          wide{}.append(nil, described(0x71, stringKeys)),
		"map32, symbols, by name": wide{symbolic: true}.append(nil, described(0x71, m)),
	}
}

func TestMapValue(t *testing.T) {
	m := amqp.Map{
		{Key: uint64(1), Value: "number"}, {Key: sym("a"), Value: amqp.Map{{Key: sym(assertion), Value: "inner"}}},
		{Key: sym(assertion), Value: "token"}, {Key: sym("z"), Value: nil},
	}
	for form, section := range mapForms(t, m) {
		for key, want := range map[string]any{assertion: "token", "z": nil, "a": amqp.Map{{Key: sym(assertion), Value: "inner"}}} {
			got, err := amqp.MapValue(section, key)
			if err != nil {
				t.Fatalf("%s: %v", form, err)
			}
			if diff := cmp.Diff(want, decode(t, got)); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", form, key, diff)
			}
		}
		for _, key := range []string{"", "registration", assertion + "x", "1"} {
			if got, err := amqp.MapValue(section, key); got != nil || err != nil {
				t.Errorf("%s: %q is % x, %v, want none", form, key, []byte(got), err)
			}
		}
	}
	if got, err := amqp.MapValue(nil, "a"); got != nil || err != nil {
		t.Errorf("no section: got % x, %v", []byte(got), err)
	}
}

func TestAppendWithoutEntry(t *testing.T) {
	token := amqp.Pair{Key: sym(assertion), Value: strings.Repeat("t", 300)}
	a, b, c := amqp.Pair{Key: sym("a"), Value: uint8(1)}, amqp.Pair{Key: sym("b"), Value: list{"x"}}, amqp.Pair{Key: uint64(3), Value: "c"}
	for _, tt := range []struct {
		name    string
		in, out amqp.Map
	}{
		{"only entry", amqp.Map{token}, nil},
		{"first", amqp.Map{token, a, b}, amqp.Map{a, b}},
		{"middle", amqp.Map{a, token, b, c}, amqp.Map{a, b, c}},
		{"last", amqp.Map{a, b, token}, amqp.Map{a, b}},
		{"twice", amqp.Map{token, a, token, b, token}, amqp.Map{a, b}},
		{"twice and nothing else", amqp.Map{token, token}, nil},
		{"absent", amqp.Map{a, b}, amqp.Map{a, b}},
		{"empty", amqp.Map{}, amqp.Map{}},
	} {
		for form, section := range mapForms(t, tt.in) {
			t.Run(tt.name+", "+form, func(t *testing.T) {
				out, err := amqp.AppendWithoutEntry([]byte("before"), section, assertion)
				if err != nil {
					t.Fatal(err)
				}
				out, found := bytes.CutPrefix(out, []byte("before"))
				if !found {
					t.Fatalf("what was there is lost: %q", out)
				}
				if tt.out == nil {
					if len(out) > 0 {
						t.Errorf("got % x, want nothing", out)
					}
					return
				}
				want := tt.out
				if strings.Contains(form, "strings") {
					want = decode(t, mapForms(t, tt.out)["map8, strings"]).(amqp.Described).Value.(amqp.Map)
				}
				if diff := cmp.Diff(numeric(described(0x71, want)), numeric(decode(t, out))); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if len(tt.in) == len(tt.out) && !bytes.Equal(out, section) {
					t.Errorf("a section without the entry was changed")
				}
			})
		}
	}
	if out, err := amqp.AppendWithoutEntry(nil, nil, assertion); out != nil || err != nil {
		t.Errorf("no section: got % x, %v", out, err)
	}
}

// TestAppendWithoutEntryWidens keeps a large map large and a small one small.
func TestAppendWithoutEntryWidens(t *testing.T) {
	m := amqp.Map{{Key: sym(assertion), Value: "t"}}
	for i := range 200 {
		m = append(m, amqp.Pair{Key: sym(fmt.Sprint("k", i)), Value: int32(i)})
	}
	out, err := amqp.AppendWithoutEntry(nil, encode(t, described(0x71, m)), assertion)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(any(described(0x71, m[1:])), decode(t, out)); diff != "" {
		t.Error(diff)
	}
}

func TestMapSectionsRefuse(t *testing.T) {
	for _, tt := range []struct {
		name, reason string
		bytes        []byte
	}{
		{"a list", "a map", sections(t, described(0x71, list{}))},
		{"not described", "a described type", sections(t, amqp.Map{})},
		{"odd count", "a key has no value", []byte{0, 0x53, 0x71, 0xc1, 2, 1, 0x40}},
		{"count beyond size", "4 elements in 2 bytes", []byte{0, 0x53, 0x71, 0xc1, 3, 4, 0x40, 0x40}},
		{"value beyond the map", "wanted", []byte{0, 0x53, 0x71, 0xc1, 6, 2, 0xa3, 1, 'k', 0xa1, 3, 'a', 'b', 'c'}},
		{"key beyond the map", "wanted", []byte{0, 0x53, 0x71, 0xc1, 3, 2, 0xa3, 1, 'k', 0x40}},
		{"shorter than its size", "elements end 1 bytes", []byte{0, 0x53, 0x71, 0xc1, 4, 2, 0x43, 0x40, 0x40}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := amqp.MapValue(tt.bytes, "k")
			if de := decodeError(t, err); !strings.Contains(de.Reason, tt.reason) || v != nil {
				t.Errorf("MapValue: got % x, %v, want %q", []byte(v), err, tt.reason)
			}
			out, err := amqp.AppendWithoutEntry([]byte("before"), tt.bytes, "k")
			if de := decodeError(t, err); !strings.Contains(de.Reason, tt.reason) || string(out) != "before" {
				t.Errorf("AppendWithoutEntry: got %q, %v, want %q", out, err, tt.reason)
			}
		})
	}
	whole := encode(t, described(0x71, amqp.Map{{Key: sym("a"), Value: "b"}, {Key: sym("k"), Value: "v"}}))
	for n := 1; n < len(whole); n++ {
		_, err := amqp.MapValue(whole[:n:n], "k")
		decodeError(t, err)
		_, err = amqp.AppendWithoutEntry(nil, whole[:n:n], "k")
		decodeError(t, err)
	}
}

func TestPropertiesTo(t *testing.T) {
	for _, tt := range []struct {
		name  string
		value any
		want  []byte
	}{
		{"to", described(0x73, list{"id", []byte("u"), "telemetry/T"}), []byte("telemetry/T")},
		{"to alone", described(0x73, list{nil, nil, "t", nil, "r"}), []byte("t")},
		{"empty to", described(0x73, list{nil, nil, ""}), []byte{}},
		{"uuid before it", described(0x73, list{someUUID, nil, "t"}), []byte("t")},
		{"null", described(0x73, list{"id", nil, nil, "s"}), nil},
		{"short list", described(0x73, list{"id"}), nil},
		{"empty list", described(0x73, list{}), nil},
	} {
		for _, b := range [][]byte{encode(t, tt.value), wide{}.append(nil, tt.value), wide{symbolic: true}.append(nil, tt.value)} {
			got, err := amqp.PropertiesTo(b)
			if err != nil || !bytes.Equal(got, tt.want) || (got == nil) != (tt.want == nil) {
				t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, tt.want)
			}
		}
	}
	if got, err := amqp.PropertiesTo(nil); got != nil || err != nil {
		t.Errorf("no section: got %q, %v", got, err)
	}
	for name, b := range map[string][]byte{
		"a map":              sections(t, described(0x73, amqp.Map{})),
		"not described":      sections(t, list{}),
		"to is a symbol":     sections(t, described(0x73, list{nil, nil, sym("x")})),
		"to beyond the list": {0, 0x53, 0x73, 0xc0, 5, 3, 0x40, 0x40, 0xa1, 1, 'x'},
		"no element":         {0, 0x53, 0x73, 0xc0, 3, 2, 0xa0, 1, 1},
	} {
		if got, err := amqp.PropertiesTo(b); err == nil || got != nil {
			t.Errorf("%s: got %q, %v, want an error", name, got, err)
		}
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct {
		raw  amqp.Raw
		want []byte
	}{
		{raw(t, "text"), []byte("text")}, {raw(t, sym("text")), []byte("text")}, {raw(t, ""), []byte{}}, {wide{}.append(nil, "text"), []byte("text")},
		{wide{}.append(nil, sym("text")), []byte("text")}, {raw(t, []byte("text")), nil}, {raw(t, uint8(1)), nil}, {nil, nil}, {amqp.Raw{0xa1, 5, 'x'}, nil},
	} {
		if got := tt.raw.Text(); !bytes.Equal(got, tt.want) || (got == nil) != (tt.want == nil) {
			t.Errorf("Text(% x) = %q, want %q", []byte(tt.raw), got, tt.want)
		}
	}
}
