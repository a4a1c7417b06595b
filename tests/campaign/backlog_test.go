package campaign_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

const (
	// firstWithin is how soon a receiver has the first event of a backlog.
	firstWithin = 100 * time.Millisecond
	// backlogMemory is how much more may be resident than was after the first tenth of a backlog.
	backlogMemory = 64 << 20
	backlogLinks  = 8
)

// beside lets a test run beside others, unless it is there for its figures.
func beside(t *testing.T) {
	t.Helper()
	if runs() < full {
		t.Parallel()
	}
}

// backlogSite is everything in one process, for whoever sends and receives without assertions.
func backlogSite(t *testing.T) *eventSite {
	t.Helper()
	s := newEventSite(t, 1, "events: {store: sqlite, max-bytes: 0}\n")
	writeFile(t, s.identities, fmt.Sprintf(`identities:
  - name: %s
    secret: "{plain}%s"
    assertions: optional
    limits: {connections: 1000, links: 200000}
    authorities:
      - {address: "event/*", may: [read, write]}
operators:
  - {name: admin, secret: "{plain}%s", scopes: [{tenant: "*", may: [read, write]}]}
`, user, secret, secret))
	s.startUp(t)
	return s
}

// process is the one that has everything.
func (s *eventSite) process() *part { return s.routers[0].part }

// stored is how many bytes the files of the event store have.
func (s *eventSite) stored(t *testing.T) (bytes int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.data("function-identity-0"), "events.db*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("the files of the event store are not there: %v", err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		bytes += info.Size()
	}
	return bytes
}

// cost is what so many events took.
type cost struct {
	events   int
	took     time.Duration
	cpu      time.Duration
	resident int
}

func (c cost) rate() float64 { return float64(c.events) / c.took.Seconds() }
func (c cost) each() float64 { return float64(c.cpu) / float64(c.events) / 1e3 }

func (c cost) String() string {
	return fmt.Sprintf("%d events, %.0f a second, %.2f us of a processor each, %.1f MB resident, load %s",
		c.events, c.rate(), c.each(), float64(c.resident)/1e6, systemLoad())
}

// costs is what f costs the process.
func (s *eventSite) costs(t *testing.T, events int, f func()) cost {
	t.Helper()
	before, began := s.process().used(t), time.Now()
	f()
	took, after := time.Since(began), s.process().used(t)
	return cost{events, took, after.processor - before.processor, after.resident}
}

// TestBacklog has nobody take what comes, for long: that changes neither what an event costs nor
// what is held in memory, and whoever comes at last gets the first events at once, and all
// of them once, in the order of their devices.
func TestBacklog(t *testing.T) {
	beside(t)
	events, devices := 20_000, 100
	switch runs() {
	case some:
		events = 200_000
	case full:
		events, devices = 10_000_000, 1000
	}
	s := backlogSite(t)
	fed := newNumbered(t, devices)
	tenths := s.fill(t, fed, events)
	first, last := tenths[0], tenths[9]
	t.Logf("%d bytes of file for each event, of which %d are payload", s.stored(t)/int64(events), eventPayload)
	if runs() == full {
		if grown := last.each() / first.each(); grown > 1.5 {
			t.Errorf("the last tenth cost %.2f us of a processor each, the first one %.2f", last.each(), first.each())
		}
		most := slices.MaxFunc(tenths, func(a, b cost) int { return a.resident - b.resident })
		if most.resident > first.resident+backlogMemory {
			t.Errorf("up to %d MB were resident, after the first tenth %d", most.resident>>20, first.resident>>20)
		}
	}
	got := &checked{got: make([]uint64, devices)}
	const attaches = 5
	var times []time.Duration
	for range attaches {
		times = append(times, attachUntilFirst(t, s.routers[0].northbound, eventAddress(0), got.take))
	}
	t.Logf("first event after attaching: %v, load %s", times, systemLoad())
	if longest := slices.Max(times); runs() == full && longest > firstWithin {
		t.Errorf("the first event came after %v, want %v", longest, firstWithin)
	}
	s.drain(t, events-attaches, got.take)
	if !slices.Equal(got.got, fed.sent) {
		t.Errorf("of each device came %v events, %v were sent", got.got, fed.sent)
	}
	s.settled(t)
	t.Logf("%d MB of files afterwards, %.1f MB resident", s.stored(t)>>20, float64(s.process().used(t).resident)/1e6)
}

func eventAddress(tenant int) string { return "event/" + backlogTenant(tenant) }

func backlogTenant(tenant int) string {
	if tenant == 0 {
		return eventTenant
	}
	return fmt.Sprintf("%s-%d", eventTenant, tenant)
}

// fill sends events, and returns what each tenth of them cost.
func (s *eventSite) fill(t *testing.T, fed *numbered, events int) (tenths []cost) {
	t.Helper()
	f := newFeeder(t, s.routers[0].northbound, slices.Repeat([]string{eventAddress(0)}, backlogLinks))
	sent := 0
	for range 10 {
		c := s.costs(t, events/10, func() {
			f.send(t, events/10, func(int) (int, []byte) {
				device := sent % len(fed.sent)
				sent++
				return device % backlogLinks, fed.next(device)
			})
		})
		t.Logf("sent %v, %d MB of files", c, s.stored(t)>>20)
		tenths = append(tenths, c)
	}
	f.close()
	return tenths
}

// drain takes events, and logs what that cost.
func (s *eventSite) drain(t *testing.T, events int, take func([]byte) error) {
	t.Helper()
	var tenths []time.Duration
	c := s.costs(t, events, func() { tenths = drain(t, s.routers[0].northbound, eventAddress(0), events, take) })
	t.Logf("taken %v; the first tenth at %.0f a second, the last one at %.0f", c,
		float64(events/10)/tenths[0].Seconds(), float64(events/10)/(tenths[9]-tenths[8]).Seconds())
}
