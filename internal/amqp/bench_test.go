package amqp_test

import (
	"bytes"
	"testing"

	"github.com/sluice-iot/sluice/internal/amqp"
)

// telemetry is like what an adapter sends for a device: 256 bytes of data.
func telemetry(t testing.TB) []byte {
	t.Helper()
	return encodeMessage(t, &amqp.Message{
		Header:              &amqp.Header{Durable: false, TTL: 60000, HasTTL: true},
		DeliveryAnnotations: amqp.Map{{Key: sym("x-opt-hop"), Value: uint32(1)}, {Key: sym(assertion), Value: string(bytes.Repeat([]byte("e"), 180))}},
		MessageAnnotations:  amqp.Map{{Key: sym("x-opt-jms-dest"), Value: int8(0)}},
		Properties: &amqp.Properties{
			To: "telemetry/DEMO", ContentType: "application/json", CreationTime: someStamp,
		},
		ApplicationProperties: amqp.Map{
			{Key: "device_id", Value: "4711"}, {Key: "tenant_id", Value: "DEMO"}, {Key: "orig_adapter", Value: "hono-http"},
			{Key: "orig_address", Value: "/telemetry"}, {Key: "qos", Value: uint8(1)},
		},
		Data: [][]byte{bytes.Repeat([]byte("d"), 256)},
	})
}

func frames() map[string]amqp.Performative {
	return map[string]amqp.Performative{
		"transfer": &amqp.Transfer{Handle: 1, DeliveryID: 70000, HasDeliveryID: true, DeliveryTag: []byte{0, 0, 0, 1},
			HasMessageFormat: true, Settled: false, HasSettled: true, Batchable: true},
		"disposition": &amqp.Disposition{Role: amqp.RoleReceiver, First: 70000, Last: 70010, Settled: true, State: amqp.StateAccepted},
		"flow": &amqp.Flow{NextIncomingID: 70000, HasNextIncomingID: true, IncomingWindow: 2048, NextOutgoingID: 1, OutgoingWindow: 2048,
			Handle: 1, HasHandle: true, DeliveryCount: 70000, HasDeliveryCount: true, LinkCredit: 100, HasLinkCredit: true},
	}
}

// TestNoAllocation holds what every delivery passes through to allocate nothing.
func TestNoAllocation(t *testing.T) {
	none := func(name string, do func()) {
		t.Helper()
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	out := make([]byte, 0, 4096)
	for name, p := range frames() {
		b := p.Append(nil)
		none("decode "+name, func() {
			if _, err := amqp.DecodeInto(b, p); err != nil {
				t.Fatal(err)
			}
		})
		none("append "+name, func() { out = amqp.AppendFrame(out[:0], amqp.FrameAMQP, 1, p) })
		frame := amqp.AppendFrame(nil, amqp.FrameAMQP, 1, p)
		none("parse "+name, func() {
			if _, n, err := amqp.ParseFrame(frame, 512); n == 0 || err != nil {
				t.Fatal(n, err)
			}
		})
	}
	m := telemetry(t)
	none("scan", func() {
		s, err := amqp.ScanSections(m)
		if err != nil {
			t.Fatal(err)
		}
		if to, err := amqp.PropertiesTo(s.Properties.Of(m)); err != nil || string(to) != "telemetry/DEMO" {
			t.Fatal(to, err)
		}
		v, err := amqp.MapValue(s.DeliveryAnnotations.Of(m), assertion)
		if err != nil || len(v.Text()) != 180 {
			t.Fatal(v, err)
		}
		if out, err = amqp.AppendWithoutEntry(out[:0], s.DeliveryAnnotations.Of(m), assertion); err != nil || len(out) == 0 {
			t.Fatal(out, err)
		}
	})
}

func BenchmarkDecodeInto(b *testing.B) {
	for name, p := range frames() {
		b.Run(name, func(b *testing.B) {
			in := p.Append(nil)
			b.ReportAllocs()
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				if _, err := amqp.DecodeInto(in, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendFrame(b *testing.B) {
	for name, p := range frames() {
		b.Run(name, func(b *testing.B) {
			out := amqp.AppendFrame(nil, amqp.FrameAMQP, 1, p)
			b.ReportAllocs()
			b.SetBytes(int64(len(out)))
			for b.Loop() {
				out = amqp.AppendFrame(out[:0], amqp.FrameAMQP, 1, p)
			}
		})
	}
}

func BenchmarkMessage256B(b *testing.B) {
	m := telemetry(b)
	s, err := amqp.ScanSections(m)
	if err != nil {
		b.Fatal(err)
	}
	section := s.DeliveryAnnotations.Of(m)
	out := make([]byte, 0, len(m))
	for name, do := range map[string]func() error{
		"ScanSections":       func() (err error) { _, err = amqp.ScanSections(m); return },
		"MapValue":           func() (err error) { _, err = amqp.MapValue(section, assertion); return },
		"PropertiesTo":       func() (err error) { _, err = amqp.PropertiesTo(s.Properties.Of(m)); return },
		"AppendWithoutEntry": func() (err error) { out, err = amqp.AppendWithoutEntry(out[:0], section, assertion); return },
		"DecodeMessage":      func() (err error) { _, err = amqp.DecodeMessage(m); return },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(m)))
			for b.Loop() {
				if err := do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
