package downstream_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters/downstream"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
)

// accepting returns a set and a message that a router on a pipe accepts at once.
// What the router keeps of a message is two allocations.
func accepting(b *testing.B) (*downstream.Set, *iot.Message) {
	r := newScripted(b, "r")
	r.answer = func(*received) amqp.Raw {
		r.got = r.got[:0]
		return amqp.StateAccepted
	}
	r.credit = 1000
	s, _ := start(b, downstream.Options{}, r)
	eventually(b, s.Ready)
	m := telemetry(iot.AtLeastOnce)
	m.Assertion, m.Payload = strings.Repeat("a", 300), make([]byte, 256)
	m.Adapter, m.Address, m.ContentType, m.Created = "hono-http", "/telemetry", "text/plain", time.Now()
	return s, m
}

func BenchmarkSend(b *testing.B) {
	s, m := accepting(b)
	b.Run("pipe/qos=1/256B", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := s.Send(b.Context(), m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("pipe/qos=1/256B/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if err := s.Send(b.Context(), m); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

func BenchmarkStart(b *testing.B) {
	s, m := accepting(b)
	for _, inFlight := range []int{1, 64} {
		b.Run(fmt.Sprintf("pipe/qos=1/256B/inflight=%d", inFlight), func(b *testing.B) {
			b.ReportAllocs()
			free := make(chan struct{}, inFlight)
			done := func(err error) {
				if err != nil {
					b.Error(err)
				}
				<-free
			}
			for b.Loop() {
				free <- struct{}{}
				s.Start(m, done)
			}
			for range inFlight {
				free <- struct{}{}
			}
		})
	}
}
