package stored_test

import (
	"context"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/router/stored"
)

// TestConsumerLeaves: what one router gives back the other that waits has at once, in
// either way: its consumer has gone, or the process ends.
func TestConsumerLeaves(t *testing.T) {
	for name, leave := range map[string]func(*site, *consumer){
		"the consumer": func(_ *site, c *consumer) { c.kill() },
		"its credit":   func(_ *site, c *consumer) { c.credit(0) },
		"the router":   func(s *site, _ *consumer) { s.stop(time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				_, log := newLog()
				r := &routers{t: t, log: log}
				a, b, other := r.start("a"), r.start("b"), r.start("c")
				ca := a.consumer("event/T", 100, accept)
				time.Sleep(time.Second)
				cb := b.consumer("event/T", 100, accept)
				time.Sleep(time.Minute)
				ca.keep = 0
				leave(a, ca)
				time.Sleep(5 * time.Second)
				n := len(cb.list())
				p := other.producer("event/T")
				for i := range 16 {
					p.send(numbered("d"+string(rune('a'+i)), 1, 2)...)
				}
				time.Sleep(time.Second)
				if got := len(cb.list()) - n; got != 32 {
					t.Errorf("%d of 32 are delivered", got)
				}
			})
		})
	}
}

// TestWaitingCostsNothing: of two routers with nothing to deliver neither asks, whoever has the partitions.
func TestWaitingCostsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		a, b, _ := pair(t, log)
		a.consumer("event/T", 100, accept)
		time.Sleep(time.Second)
		b.consumer("event/T", 100, accept)
		time.Sleep(time.Hour) // they have shared by then
		calls := a.log.all() + b.log.all()
		time.Sleep(time.Hour)
		if n := a.log.all() + b.log.all() - calls; n > 2*13 {
			t.Errorf("%d calls within an hour", n)
		}
	})
}

// TestKilledIsReplacedAsSoonAsItMay: what a router that is no more had is taken when its claim ends.
func TestKilledIsReplacedAsSoonAsItMay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		a, b, _ := pair(t, log)
		a.consumer("event/T", 10, nothing)
		b.producer("event/T").send(numbered("d", 1, 5)...)
		time.Sleep(7500 * time.Millisecond)
		a.kill()
		dead := time.Now()
		time.Sleep(1300 * time.Millisecond)
		cb := b.consumer("event/T", 10, accept)
		time.Sleep(30 * time.Second)
		list := cb.list()
		if len(list) != 5 {
			t.Fatalf("%d deliveries", len(list))
		}
		if d := list[0].at.Sub(dead); d > 10*time.Second+100*time.Millisecond {
			t.Errorf("the first after %s", d)
		}
	})
}

// TestPoll: a router that no fact reaches asks.
func TestPoll(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, log := newLog()
		s := newSite(t, log, stored.Options{Poll: 10 * time.Second})
		c := s.consumer("event/T", 10, accept)
		other := newSite(t, log, stored.Options{Tell: func(context.Context, string, eventstore.Holding) error { return nil }})
		p := other.producer("event/T")
		time.Sleep(time.Minute)
		p.send("d/1")
		time.Sleep(11 * time.Second)
		equal(t, "delivered", c.names(), []string{"d/1"})
	})
}
