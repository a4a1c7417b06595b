package downstream_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/downstream"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/iot"
)

// BenchmarkCommand is a command's way from a router on a pipe to the handler, and
// its outcome's way back.
func BenchmarkCommand(b *testing.B) {
	r, h := newScripted(b, "r"), &counting{}
	serve(b, h, r)
	message := encoded(b, aCommand(func(m *amqp.Message) { m.Data[0] = make([]byte, 256) }))
	eventually(b, func() bool { return r.deliver(b, false, message) == 1 })
	outcomes := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.outcomes)
	}
	eventually(b, func() bool { return outcomes() == 1 })
	b.ReportAllocs()
	b.ResetTimer()
	for done, before := 0, outcomes(); outcomes()-before < b.N; {
		n := 0
		r.each(inbox, func(l *peer.Link) {
			for done+n < b.N && l.Send(&peer.Outgoing{Tail: message}) == peer.Sent {
				n++
			}
		})
		if done += n; n == 0 {
			time.Sleep(10 * time.Microsecond)
		}
	}
}

// counting is a CommandHandler that accepts and keeps nothing.
type counting struct{ all []adapters.Announcement }

func (*counting) Command(_ *adapters.Command, done func(error)) { done(nil) }

func (c *counting) Subscribed() []adapters.Announcement { return c.all }

func (*counting) Superseded(iot.TenantID, iot.DeviceID, int64, bool) {}

// BenchmarkAnnounceAll is what a router that comes back costs a process with 15,000
// subscriptions.
func BenchmarkAnnounceAll(b *testing.B) {
	const n = 15_000
	h := &counting{}
	for i := range n {
		h.all = append(h.all, adapters.Announcement{Tenant: "DEFAULT_TENANT", Device: iot.DeviceID(fmt.Sprintf("device-%08d", i)),
			At: 1_700_000_000_000 + int64(i), Adapter: "hono-mqtt"})
	}
	r := newScripted(b, "r")
	rows := 0
	r.answer = func(d *received) amqp.Raw { rows += len(d.payload); r.got = nil; return amqp.StateAccepted }
	r.credit = 0
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer() // everything is there but the router's credit
		s, stop := serve(b, h, r)
		eventually(b, func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.links[deviceDirectory]) > 0
		})
		time.Sleep(20 * time.Millisecond)
		rows = 0
		b.StartTimer()
		r.give(deviceDirectory, 1000)
		done := make(chan struct{})
		s.Announce(nil, func() { close(done) })
		<-done
		b.StopTimer()
		if rows < n*40 {
			b.Fatalf("%d bytes announced", rows)
		}
		stop()
		eventually(b, func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.links[deviceDirectory]) == 0
		})
		b.StartTimer()
	}
	b.ReportMetric(n, "subscriptions/op")
}

// BenchmarkAnnounce is one subscription that a router is told of and that waits for
// it, on the way that Commands takes.
func BenchmarkAnnounce(b *testing.B) {
	r := newScripted(b, "r")
	r.answer = func(*received) amqp.Raw { r.got = r.got[:0]; return amqp.StateAccepted }
	s, _ := serve(b, &counting{}, r)
	eventually(b, s.Ready)
	done := make(chan struct{}, 1)
	a := []adapters.Announcement{device("D", 1)}
	b.ReportAllocs()
	for b.Loop() {
		s.Announce(a, func() { done <- struct{}{} })
		<-done
	}
}

// BenchmarkResponse is a command response to one of a few addresses.
func BenchmarkResponse(b *testing.B) {
	r := newScripted(b, "r")
	r.answer = func(*received) amqp.Raw { r.got = r.got[:0]; return amqp.StateAccepted }
	r.credit = 1000
	s, _ := start(b, downstream.Options{}, r)
	eventually(b, s.Ready)
	m := response("D/0123456789")
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Send(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}
