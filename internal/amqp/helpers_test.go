package amqp_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/amqp"
)

// encode returns v encoded.
func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := amqp.AppendValue(nil, v)
	if err != nil {
		t.Fatalf("AppendValue(%#v): %v", v, err)
	}
	return b
}

// decode returns the one value in b.
func decode(t testing.TB, b []byte) any {
	t.Helper()
	v, rest, err := amqp.DecodeValue(b)
	if err != nil {
		t.Fatalf("DecodeValue(% x): %v", b, err)
	}
	if len(rest) != 0 {
		t.Fatalf("DecodeValue(% x) left % x", b, rest)
	}
	return v
}

func raw(t testing.TB, v any) amqp.Raw { return encode(t, v) }

// described is a value with a numeric descriptor.
func described(d amqp.Descriptor, v any) amqp.Described {
	return amqp.Described{Descriptor: uint64(d), Value: v}
}

func decodeError(t testing.TB, err error) *amqp.DecodeError {
	t.Helper()
	var de *amqp.DecodeError
	if !errors.As(err, &de) {
		t.Fatalf("got error %v (%T), want a *amqp.DecodeError", err, err)
	}
	if de.Reason == "" || de.Offset < 0 {
		t.Fatalf("got error %#v, want a reason and an offset", de)
	}
	return de
}

// sameRaw compares encoded values by what they mean, not by their encoding.
var sameRaw = cmp.Comparer(func(a, b amqp.Raw) bool {
	if bytes.Equal(a, b) { // also what is a plain []byte
		return (a == nil) == (b == nil)
	}
	va, _, errA := amqp.DecodeValue(a)
	vb, _, errB := amqp.DecodeValue(b)
	return errA == nil && errB == nil && cmp.Equal(numeric(va), numeric(vb))
})

// numeric replaces the symbolic descriptors in v with their numbers.
func numeric(v any) any {
	switch v := v.(type) {
	case amqp.Described:
		if s, ok := v.Descriptor.(amqp.Symbol); ok {
			for d := amqp.Descriptor(0); d < 0x100; d++ {
				if d.String() == string(s) {
					return amqp.Described{Descriptor: uint64(d), Value: numeric(v.Value)}
				}
			}
		}
		return amqp.Described{Descriptor: v.Descriptor, Value: numeric(v.Value)}
	case amqp.List:
		out := make(amqp.List, len(v))
		for i, e := range v {
			out[i] = numeric(e)
		}
		return out
	case amqp.Map:
		out := make(amqp.Map, len(v))
		for i, p := range v {
			out[i] = amqp.Pair{Key: p.Key, Value: numeric(p.Value)}
		}
		return out
	}
	return v
}

// wide encodes v in the longest form of each type, with symbolic descriptors
// when asked for.
type wide struct{ symbolic bool }

func (w wide) append(b []byte, v any) []byte {
	be := binary.BigEndian
	switch v := v.(type) {
	case bool:
		if v {
			return append(b, 0x56, 1)
		}
		return append(b, 0x56, 0)
	case uint32:
		return be.AppendUint32(append(b, 0x70), v)
	case uint64:
		return be.AppendUint64(append(b, 0x80), v)
	case int32:
		return be.AppendUint32(append(b, 0x71), uint32(v))
	case int64:
		return be.AppendUint64(append(b, 0x81), uint64(v))
	case []byte:
		return append(be.AppendUint32(append(b, 0xb0), uint32(len(v))), v...)
	case string:
		return append(be.AppendUint32(append(b, 0xb1), uint32(len(v))), v...)
	case amqp.Symbol:
		return append(be.AppendUint32(append(b, 0xb3), uint32(len(v))), v...)
	case amqp.List:
		var body []byte
		for _, e := range v {
			body = w.append(body, e)
		}
		return w.compound(b, 0xd0, len(v), body)
	case amqp.Map:
		var body []byte
		for _, p := range v {
			body = w.append(w.append(body, p.Key), p.Value)
		}
		return w.compound(b, 0xd1, 2*len(v), body)
	case amqp.Array:
		body := []byte{a32(v.Code)}
		for _, e := range v.Values {
			body = append(body, w.append(nil, e)[1:]...)
		}
		return w.compound(b, 0xf0, len(v.Values), body)
	case amqp.Described:
		b = append(b, 0)
		d, known := v.Descriptor.(uint64)
		if w.symbolic && known && amqp.Descriptor(d).String()[0] == 'a' {
			b = w.append(b, amqp.Symbol(amqp.Descriptor(d).String()))
		} else {
			b = w.append(b, v.Descriptor)
		}
		return w.append(b, v.Value)
	}
	b, err := amqp.AppendValue(b, v)
	if err != nil {
		panic(err)
	}
	return b
}

func (wide) compound(b []byte, code byte, count int, body []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, code), uint32(len(body)+4))
	return append(binary.BigEndian.AppendUint32(b, uint32(count)), body...)
}

// a32 is the 32-bit constructor that belongs to a constructor of variable width.
func a32(code byte) byte {
	switch code {
	case 0xa0, 0xa1, 0xa3, 0xc0, 0xc1, 0xe0:
		return code + 0x10
	}
	return code
}
