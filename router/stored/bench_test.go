package stored_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/sqlitestore"
	"github.com/sluice-iot/sluice/internal/eventstore/storetest"
	"github.com/sluice-iot/sluice/router/stored"
)

// BenchmarkStored is an event's way from a producer into the store and on to a consumer, ten
// producers and the consumers at once, 256 bytes each. The CPU is that of the whole process, so also
// of the peers.
func BenchmarkStored(b *testing.B) {
	for _, store := range []string{"memory", "sqlite"} {
		for _, consumers := range []int{0, 1, 10} {
			b.Run(fmt.Sprintf("%s/consumers=%d", store, consumers), func(b *testing.B) {
				var st eventstore.Store = &storetest.Memory{}
				if store == "sqlite" {
					file, err := sqlitestore.Open(b.Context(), filepath.Join(b.TempDir(), "events.db"), sqlitestore.Options{})
					if err != nil {
						b.Fatal(err)
					}
					b.Cleanup(func() { file.Close() })
					st = file
				}
				benchmark(b, eventstore.New(st, eventstore.Options{}), consumers)
			})
		}
	}
}

func benchmark(b *testing.B, log *eventstore.Log, consumers int) {
	const producers, credit = 10, 400
	s := newSite(b, log, stored.Options{})
	var accepted, refused, delivered atomic.Int64
	done := make(chan struct{}, 2)
	count := func(n *atomic.Int64) {
		if n.Add(1) == int64(b.N) {
			done <- struct{}{}
		}
	}
	for range consumers {
		a := peer.Attachment{Name: "r", Role: amqp.RoleReceiver, SenderSettleMode: amqp.SenderMixed, Credit: credit}
		a.Source, a.Target = terminus("event/T")
		s.connect(a, func(ev *peer.Event) {
			if ev.Kind != peer.EventDelivery {
				return
			}
			ev.Link.Settle(ev.ID, amqp.StateAccepted, true)
			if ev.Link.Credit() <= credit/2 {
				ev.Link.SetCredit(credit)
			}
			count(&delivered)
		}, nil)
	}
	var sending atomic.Int64
	sending.Store(1 << 60) // not yet
	ends := make([]*end, producers)
	for i := range producers {
		messages := make([][]byte, 100)
		for n := range messages {
			m := message(fmt.Sprintf("d%d/%d", i*100+n, n), 0)
			messages[n] = message(fmt.Sprintf("d%d/%d/%s", i*100+n, n, strings.Repeat("x", max(0, 256-len(m)))), 0)
		}
		n := 0
		var e *end
		pump := func() {
			for e.link.Credit() > 0 && sending.Add(1) <= int64(b.N) {
				if e.link.Send(&peer.Outgoing{Tail: messages[n%len(messages)]}) != peer.Sent {
					sending.Add(-1)
					return
				}
				n++
			}
		}
		a := peer.Attachment{Name: "s", Role: amqp.RoleSender, SenderSettleMode: amqp.SenderMixed}
		a.Source, a.Target = terminus("event/T")
		e = s.connect(a, func(ev *peer.Event) {
			switch ev.Kind {
			case peer.EventOutcome:
				if ev.State.StateKind() != amqp.DescAccepted {
					refused.Add(1)
				}
				count(&accepted)
			case peer.EventCredit:
				if e != nil {
					pump()
				}
			}
		}, func() { pump() })
		ends[i] = e
		e.writable = pump
	}
	time.Sleep(100 * time.Millisecond)
	cpu, began := used(), time.Now()
	b.ReportAllocs()
	b.ResetTimer()
	sending.Store(0)
	for _, e := range ends {
		e.do(e.writable)
	}
	<-done
	if consumers > 0 {
		<-done
	}
	b.StopTimer()
	took := time.Since(began)
	if n := refused.Load(); n > 0 {
		b.Errorf("%d of %d were refused", n, b.N)
	}
	f := s.server.Figures()
	b.ReportMetric(float64(b.N)/took.Seconds(), "events/s")
	b.ReportMetric(float64((used()-cpu).Microseconds())/float64(b.N), "cpu-us/event")
	b.ReportMetric(float64(b.N)/float64(f.Appends), "events/append")
	b.ReportMetric(float64(f.Live)/float64(b.N), "live/event")
	b.ReportMetric(float64(f.Settles)/float64(b.N), "settles/event")
}

// used is the CPU time of the process.
func used() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
