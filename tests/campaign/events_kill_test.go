package campaign_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/registry/pgtest"
)

// killedLife allows what came again because a router that had it was killed.
func killedLife(first, again *gotEvent) bool {
	return first.life.killed.Load() || again.life.killed.Load()
}

// await waits until a count has grown by a random number below n.
func (f *fleetRun) await(t *testing.T, what string, count func() int64, n int) {
	t.Helper()
	goal := count() + 1 + randomly(n)
	for last, since := count(), time.Now(); last < goal; time.Sleep(time.Millisecond) {
		if now := count(); now > last {
			last, since = now, time.Now()
		} else if time.Since(since) > patience {
			f.mu.Lock()
			defer f.mu.Unlock()
			t.Fatalf("no event was %s for %s; %v", what, patience, f.faults)
		}
	}
}

// moment waits for a random one: while events go out as they come in, while those that
// waited do, or before any does.
func (f *fleetRun) moment(t *testing.T, round int) {
	t.Helper()
	switch round % 3 {
	case 0:
		f.until(t, "delivered in time", func() bool { return f.left() < eventDevices })
		f.await(t, "delivered", f.delivered.Load, 300)
	case 1:
		f.await(t, "accepted", f.accepted.Load, 300)
	default:
		f.await(t, "delivered", f.delivered.Load, 300)
	}
}

// TestEventsUpKilled kills everything in one process at random moments: what devices were
// told is accepted comes at least once, in order, and nothing after its time to live.
func TestEventsUpKilled(t *testing.T) {
	t.Parallel()
	s := newEventSite(t, 1, "")
	s.startUp(t)
	s.register(t, eventDevices)
	f := startFleet(t, s)
	rounds := eventRounds()
	for round := range rounds {
		f.moment(t, round)
		s.routers[0].kill()
		f.epoch.Add(1)
		s.startUp(t)
	}
	f.await(t, "accepted", f.accepted.Load, 100)
	f.stop()
	f.drain(t)
	s.settled(t)
	f.finish()
	t.Logf("%d kills", rounds)
	f.check(t, killedLife)
}

// TestEventsPostgresKilled kills PostgreSQL below the event store: devices are told to come
// again, and everything goes on when it is back.
func TestEventsPostgresKilled(t *testing.T) {
	t.Parallel()
	db := pgtest.Start(t)
	s := newEventSite(t, 1, fmt.Sprintf("events: {store: postgres, url: %q}\n", db.URL))
	s.startParts(t)
	s.register(t, eventDevices)
	f := startFleet(t, s)
	rounds := eventRounds()
	for round := range rounds {
		f.moment(t, round)
		refused := f.refused.Load()
		db.Kill(t)
		f.epoch.Add(1)
		if round%2 == 0 { // else it may be back before anybody was told
			f.until(t, "refused", func() bool { return f.refused.Load() > refused })
		}
		db.Restart(t)
		f.epoch.Add(1)
	}
	f.await(t, "accepted", f.accepted.Load, 100)
	f.stop()
	f.drain(t)
	s.settled(t)
	f.finish()
	t.Logf("%d kills", rounds)
	f.check(t, func(first, again *gotEvent) bool { return first.epoch != again.epoch })
}

func (f *fleetRun) until(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * patience); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no event was %s", what)
		}
	}
}

// TestEventsRouterKilled kills one of two routers, whichever. The other takes its partitions.
func TestEventsRouterKilled(t *testing.T) {
	t.Parallel()
	s := newEventSite(t, 2, "")
	s.startParts(t)
	s.register(t, eventDevices)
	f := startFleet(t, s)
	rounds := eventRounds()
	for round := range rounds {
		f.moment(t, round)
		r := s.routers[randomly(len(s.routers))]
		r.kill()
		f.epoch.Add(1)
		if round%3 == 0 { // in others it is back before the other one has taken over
			f.await(t, "delivered", f.delivered.Load, 300)
		}
		r.start(t, s.events)
	}
	f.await(t, "accepted", f.accepted.Load, 100)
	f.stop()
	f.drain(t)
	s.settled(t)
	f.finish()
	t.Logf("%d kills", rounds)
	f.check(t, killedLife)
}
