package campaign_test

import (
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// tally counts calls of the event store by their type.
type tally struct {
	mu    sync.Mutex
	types map[string]int
	all   int
}

func (c *tally) count(typ string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.types[typ[strings.LastIndexByte(typ, '.')+1:]]++
	c.all++
	return 0
}

func (c *tally) now() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all
}

// reset begins anew, and returns what was counted.
func (c *tally) reset() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.types
	c.types, c.all = map[string]int{}, 0
	return was
}

// quiet waits until there was no call for a while.
func (c *tally) quiet(t *testing.T, d time.Duration) {
	t.Helper()
	last, since, began := c.now(), time.Now(), time.Now()
	for time.Since(since) < d {
		time.Sleep(10 * time.Millisecond)
		if now := c.now(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(began) > 2*patience {
			t.Fatalf("the event store is called again and again: %v", c.reset())
		}
	}
}

// idleTime is how long it is watched that nothing happens.
func idleTime() time.Duration {
	switch runs() {
	case some:
		return 30 * time.Second
	case full:
		return 11 * time.Minute
	}
	return 3 * time.Second
}

// TestEventsIdle counts the calls of the event store while there is nothing to do: none while a
// tenant has a backlog and nobody listens; none while somebody listens and nothing comes; and
// with two routers one for each in five minutes.
func TestEventsIdle(t *testing.T) {
	t.Parallel()
	const settles = 12 * time.Second // longer than a claim lasts
	s := newEventSite(t, 2, "")
	s.ingress = s.routers[0].ingress
	s.events = freeAddr(t)
	s.startEvents(t)
	calls := &tally{types: map[string]int{}}
	proxy := startEventProxy(t, s, calls.count)
	s.startFunction(t)
	r, other := s.routers[0], s.routers[1]
	s.routers = s.routers[:1]
	r.start(t, proxy)
	s.startAdapters(t)
	s.register(t, eventDevices)
	f := startLoad(t, s, eventDevices, devicePause, 0)
	f.await(t, "delivered", f.delivered.Load, 300)
	f.finish() // nobody listens
	f.await(t, "accepted", f.accepted.Load, 300)
	f.stop()
	calls.quiet(t, time.Second)
	t.Logf("with traffic: %v for %d events", calls.reset(), f.accepted.Load())

	idle := idleTime()
	time.Sleep(idle)
	if got := calls.reset(); len(got) > 0 {
		t.Errorf("a backlog and nobody who listens: %v in %s; want none", got, idle)
	}

	f.listen(r)
	f.drain(t)
	calls.quiet(t, time.Second)
	t.Logf("a consumer takes the backlog: %v", calls.reset())
	time.Sleep(idle)
	if got := calls.reset(); len(got) > 0 {
		t.Errorf("one router, a consumer and no traffic: %v in %s; want none", got, idle)
	}
	// What a router had that did not come to give it back is its own for a while, where nothing is in it.
	gone := ""
	for _, p := range s.stats(t).Partitions {
		gone = p.Holder
	}
	f.finish()
	r.part.stop(t)
	s.routers = append(s.routers, other)
	for _, r := range s.routers {
		r.start(t, proxy)
		f.listen(r)
	}
	// Whoever has everything learns that another waits when it settles something.
	client := &http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	var holders map[string]int
	defer func() {
		if t.Failed() {
			t.Logf("partitions by holder: %v; calls: %v", holders, calls.reset())
		}
	}()
	f.until(t, "sent until both routers have a share", func() bool {
		f.each(t, client)
		holders = map[string]int{}
		for _, p := range s.stats(t).Partitions {
			if p.Holder != "" && p.Holder != gone {
				holders[p.Holder]++
			}
		}
		return len(holders) == 2
	})
	f.drain(t)
	calls.quiet(t, settles)
	t.Logf("two routers share: %v", calls.reset())
	time.Sleep(idle)
	got := calls.reset()
	t.Logf("two routers, a consumer at each and no traffic: %v in %s", got, idle)
	most := 2 * (1 + int(idle/(5*time.Minute)))
	if want := map[string]int{"claim": got["claim"]}; got["claim"] > most || len(got) > 0 && !maps.Equal(got, want) {
		t.Errorf("two routers, a consumer at each and no traffic: %v in %s; want at most %d claims and nothing else", got, idle, most)
	}

	// What comes now goes out, whichever router stored it.
	f.each(t, client)
	f.drain(t)
	f.finish()
	f.check(t, func(first, again *gotEvent) bool { return true }) // consumers left in between
}

// each has every device send one event that is accepted.
func (f *fleetRun) each(t *testing.T, client *http.Client) {
	t.Helper()
	for i := range eventDevices {
		number := -1
		f.until(t, "accepted", func() bool {
			number = f.begin(i, 0)
			status, _, _ := sendEvent(client, f.site.device, "event", eventDevice(i), 0, f.body(i, number))
			return status == http.StatusAccepted
		})
		f.accept(i, number)
	}
}
