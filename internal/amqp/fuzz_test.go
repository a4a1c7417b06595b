package amqp_test

import (
	"bytes"
	"errors"
	"runtime/metrics"
	"testing"

	"github.com/sluice-iot/sluice/internal/amqp"
)

// Decoding may allocate this much: a number of bytes for each byte of input
// (a list of empty lists is the worst) and a constant, for errors, the
// elements of no width and what others allocate meanwhile.
const (
	allocPerByte = 150
	allocAtAll   = 512 << 10
)

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// bounded runs do and checks what it allocates.
func bounded(t *testing.T, input []byte, do func()) {
	t.Helper()
	before := allocated()
	do()
	if got, most := allocated()-before, uint64(allocAtAll+allocPerByte*len(input)); got > most {
		t.Fatalf("%d bytes of input took %d bytes of memory, at most %d expected", len(input), got, most)
	}
}

// checkError holds that an error is one that a caller can expect.
func checkError(t *testing.T, input []byte, err error) {
	t.Helper()
	var de *amqp.DecodeError
	if !errors.As(err, &de) || de.Offset < 0 || de.Offset > len(input) {
		t.Fatalf("% x: got %#v, want a *amqp.DecodeError inside of the input", input, err)
	}
}

func FuzzDecodeValue(f *testing.F) {
	for _, tt := range append(primitives, composed...) {
		f.Add(tt.bytes)
	}
	f.Add(encode(f, lists(32)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v any
		var rest []byte
		var err error
		bounded(t, b, func() { v, rest, err = amqp.DecodeValue(b) })
		if err != nil {
			checkError(t, b, err)
			return
		}
		if !bytes.HasSuffix(b, rest) {
			t.Fatalf("the rest % x is not the end of % x", rest, b)
		}
		once := encode(t, v)
		if len(once) > len(b)-len(rest) {
			t.Fatalf("% x grew to % x", b, once)
		}
		if twice := encode(t, decode(t, once)); !bytes.Equal(once, twice) {
			t.Fatalf("encoded % x, then % x", once, twice)
		}
	})
}

func FuzzDecodePerformative(f *testing.F) {
	for _, c := range composites(f) {
		f.Add(c.full.Append(nil))
		f.Add(c.min.Append(nil))
		f.Add(wide{symbolic: true}.append(nil, described(c.desc, c.list(all))))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p amqp.Performative
		var err error
		bounded(t, b, func() { p, _, err = amqp.DecodePerformative(b) })
		if err != nil {
			checkError(t, b, err)
			return
		}
		once := p.Append(nil)
		again, rest, err := amqp.DecodePerformative(once)
		if err != nil || len(rest) > 0 {
			t.Fatalf("% x, encoded from %+v: rest % x, error %v", once, p, rest, err)
		}
		if twice := again.Append(nil); !bytes.Equal(once, twice) {
			t.Fatalf("encoded % x, then % x", once, twice)
		}
		if payload, err := amqp.DecodeInto(once, p); err != nil || len(payload) > 0 {
			t.Fatalf("DecodeInto: payload % x, error %v", payload, err)
		}
	})
}

func FuzzDecodeMessage(f *testing.F) {
	for _, tt := range messages() {
		f.Add(encodeMessage(f, &tt.m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m *amqp.Message
		var err error
		bounded(t, b, func() { m, err = amqp.DecodeMessage(b) })
		if err != nil {
			checkError(t, b, err)
			return
		}
		if _, err := amqp.ScanSections(b); err != nil {
			t.Fatalf("% x decodes, but does not scan: %v", b, err)
		}
		once := encodeMessage(t, m)
		again, err := amqp.DecodeMessage(once)
		if err != nil {
			t.Fatalf("% x, encoded from %+v: %v", once, m, err)
		}
		if twice := encodeMessage(t, again); !bytes.Equal(once, twice) {
			t.Fatalf("encoded % x, then % x", once, twice)
		}
	})
}

func FuzzScanSections(f *testing.F) {
	for _, tt := range messages() {
		f.Add(encodeMessage(f, &tt.m), assertion)
	}
	f.Add(append(encode(f, described(0x71, amqp.Map{{Key: sym("a"), Value: 1}, {Key: "a", Value: 2}})), garbage...), "a")
	f.Fuzz(func(t *testing.T, b []byte, key string) {
		var s amqp.Sections
		var err error
		bounded(t, b, func() { s, err = amqp.ScanSections(b) })
		if err != nil {
			checkError(t, b, err)
			return
		}
		joined := bytes.Join([][]byte{s.Header.Of(b), s.DeliveryAnnotations.Of(b), s.MessageAnnotations.Of(b),
			s.Properties.Of(b), s.ApplicationProperties.Of(b), b[s.Body:]}, nil)
		if !bytes.Equal(joined, b) {
			t.Fatalf("the sections of % x are % x together", b, joined)
		}
		if _, err := amqp.PropertiesTo(s.Properties.Of(b)); err != nil {
			checkError(t, b, err)
		}
		for _, span := range []amqp.Span{s.DeliveryAnnotations, s.MessageAnnotations, s.ApplicationProperties, s.Properties} {
			checkWithout(t, span.Of(b), key)
		}
	})
}

// checkWithout holds that an entry is gone when it was taken out, and that
// the others are left as they were.
func checkWithout(t *testing.T, section []byte, key string) {
	t.Helper()
	value, valueErr := amqp.MapValue(section, key)
	value.Text()
	out, err := amqp.AppendWithoutEntry(nil, section, key)
	if err != nil {
		checkError(t, section, err)
		return
	}
	if valueErr != nil {
		t.Fatalf("% x: an entry can be taken out, but not be found: %v", section, valueErr)
	}
	if value == nil && !bytes.Equal(out, section) {
		t.Fatalf("% x without an entry that it has not: % x", section, out)
	}
	left, err := amqp.MapValue(out, key)
	if left != nil || err != nil {
		t.Fatalf("% x without %q still has % x, error %v", section, key, []byte(left), err)
	}
	if again, err := amqp.AppendWithoutEntry(nil, out, key); err != nil || !bytes.Equal(again, out) {
		t.Fatalf("% x changed to % x, error %v", out, again, err)
	}
}

func FuzzParseFrame(f *testing.F) {
	f.Add(amqp.AppendHeartbeat(nil), uint32(512))
	f.Add([]byte(amqp.HeaderAMQP), uint32(1<<32-1))
	for _, c := range composites(f) {
		f.Add(amqp.AppendFrame(nil, amqp.FrameAMQP, 7, c.full), uint32(4096))
	}
	f.Fuzz(func(t *testing.T, b []byte, most uint32) {
		var frame amqp.Frame
		var n int
		var err error
		bounded(t, nil, func() { frame, n, err = amqp.ParseFrame(b, most) })
		var fe *amqp.FrameError
		switch {
		case err != nil:
			if !errors.As(err, &fe) || n != 0 {
				t.Fatalf("got %d, %#v, want a *amqp.FrameError", n, err)
			}
		case n == 0:
			if frame.Body != nil {
				t.Fatalf("an incomplete frame has the body % x", frame.Body)
			}
		default:
			if n < 8 || n > len(b) || uint64(n) > uint64(most) || !bytes.HasSuffix(b[:n], frame.Body) || len(frame.Body) > n-8 || frame.Type > 1 {
				t.Fatalf("% x: got %v, length %d", b, frame, n)
			}
			out := amqp.CloseFrame(append(amqp.OpenFrame(nil, frame.Type, frame.Channel), frame.Body...), 0)
			again, _, err := amqp.ParseFrame(out, most)
			if err != nil || again.Type != frame.Type || again.Channel != frame.Channel || !bytes.Equal(again.Body, frame.Body) {
				t.Fatalf("% x: got %v, %v, want %v", out, again, err, frame)
			}
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	for _, tt := range states(f) {
		f.Add([]byte(tt.bytes))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v any
		var err error
		bounded(t, b, func() { v, err = amqp.DecodeState(b) })
		if err != nil {
			checkError(t, b, err)
			return
		}
		once := appendState(v)
		again, err := amqp.DecodeState(once)
		if err != nil {
			t.Fatalf("% x, encoded from %+v: %v", once, v, err)
		}
		if twice := appendState(again); !bytes.Equal(once, twice) {
			t.Fatalf("encoded % x, then % x", once, twice)
		}
		if len(b) > 0 && amqp.Raw(once).Terminal() != amqp.Raw(b).Terminal() {
			t.Fatalf("% x and % x differ in being terminal", b, once)
		}
	})
}

func appendState(v any) amqp.Raw {
	switch v := v.(type) {
	case amqp.Accepted:
		return amqp.StateAccepted
	case amqp.Released:
		return amqp.StateReleased
	case *amqp.Rejected:
		return amqp.AppendRejected(nil, v.Error)
	case *amqp.Modified:
		return v.Append(nil)
	case *amqp.Received:
		return v.Append(nil)
	}
	return nil
}
