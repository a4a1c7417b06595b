package campaign_test

import (
	"slices"
	"testing"
	"time"
)

const (
	backlogDevices = 8               // of each tenant
	backlogSamples = 50              // tenants whose first event is waited for
	backlogIdle    = 3 * time.Second // that nothing happens
)

// TestBacklogTenants has more and more tenants, each with a backlog: it tells what an event costs
// that is one of many tenants', and how soon a receiver of one of them has the first one.
func TestBacklogTenants(t *testing.T) {
	beside(t)
	stages, events := []int{1, 10, 100}, 6000
	switch runs() {
	case some:
		stages, events = []int{1, 10, 100, 1000}, 20_000
	case full:
		stages, events = []int{1, 10, 100, 1000, 10_000}, 100_000
	}
	s := backlogSite(t)
	fed := make([]*numbered, stages[len(stages)-1])
	got := make([]*checked, len(fed))
	for tenant := range fed {
		fed[tenant], got[tenant] = newNumbered(t, backlogDevices), &checked{got: make([]uint64, backlogDevices)}
	}
	for _, tenants := range stages {
		c := s.fillTenants(t, fed[:tenants], events)
		times := s.firstOf(t, got[:tenants])
		idle := s.costs(t, 1, func() { time.Sleep(backlogIdle) })
		t.Logf("%d tenants: %v; first event after attaching p50 %v, longest %v of %d; %d ms of a processor in %v with nobody there; %d MB of files",
			tenants, c, times[len(times)/2], times[len(times)-1], len(times), idle.cpu.Milliseconds(), backlogIdle, s.stored(t)>>20)
		if middle := times[len(times)/2]; runs() == full && middle > firstWithin {
			t.Errorf("of %d tenants, the first event came after %v, want %v", tenants, middle, firstWithin)
		}
	}
	// Nothing is lost of any of them: a few are enough to see that.
	for tenant := 0; tenant < len(fed); tenant += max(1, len(fed)/10) {
		drain(t, s.routers[0].northbound, eventAddress(tenant), sum(fed[tenant].sent)-sum(got[tenant].got), got[tenant].take)
		if !slices.Equal(fed[tenant].sent, got[tenant].got) {
			t.Errorf("the devices of tenant %d sent %v events, and of them came %v", tenant, fed[tenant].sent, got[tenant].got)
		}
	}
}

func sum(counts []uint64) (n int) {
	for _, c := range counts {
		n += int(c)
	}
	return n
}

// fillTenants sends events of tenants by turns.
func (s *eventSite) fillTenants(t *testing.T, fed []*numbered, events int) cost {
	t.Helper()
	addresses := make([]string, len(fed))
	for tenant := range fed {
		addresses[tenant] = eventAddress(tenant)
	}
	f := newFeeder(t, s.routers[0].northbound, addresses)
	defer f.close()
	f.ready(t)
	return s.costs(t, events, func() {
		f.send(t, events, func(i int) (int, []byte) { return i % len(fed), fed[i%len(fed)].next(i / len(fed) % backlogDevices) })
	})
}

// ready waits until every link has credit.
func (f *feeder) ready(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.err == nil && slices.ContainsFunc(f.links, func(l feedLink) bool { return l.limit == l.count }) {
		f.change.Wait()
	}
	if f.err != nil {
		t.Fatal(f.err)
	}
}

// firstOf attaches to some of the tenants, one after the other, and returns how long the first
// events took, in order of that.
func (s *eventSite) firstOf(t *testing.T, got []*checked) (times []time.Duration) {
	t.Helper()
	n := min(len(got), backlogSamples)
	for i := range n {
		tenant := i * len(got) / n
		times = append(times, attachUntilFirst(t, s.routers[0].northbound, eventAddress(tenant), got[tenant].take))
	}
	slices.Sort(times)
	return times
}
