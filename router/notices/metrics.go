package notices

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-iot/sluice/events"
)

// counters are those of one follower.
type counters struct {
	facts     [5]atomic.Int64 // by kinds
	found     atomic.Int64    // by the feed only
	again     atomic.Int64
	gaps      atomic.Int64
	announced atomic.Int64
	unheard   atomic.Int64
	stuck     atomic.Int64

	calls         atomic.Int64
	confirmations atomic.Int64
	failures      atomic.Int64
}

var kinds = [...]string{events.TypeTenantChanged, events.TypeDeviceChanged, events.TypeCredentialsChanged,
	events.TypeDevicesDeleted, events.TypeDeviceProvisioned}

// took counts a fact.
func (m *counters) took(typ string, from origin, fresh bool) {
	switch {
	case !fresh:
		m.again.Add(1)
		return
	case from == fromFeed:
		m.found.Add(1)
	}
	for i, k := range kinds {
		if k == typ {
			m.facts[i].Add(1)
		}
	}
}

var (
	factsDesc         = desc("facts_total", "Facts taken for the first time, however they came.", "type")
	foundDesc         = desc("missed_total", "Changes that only the feed told of.")
	againDesc         = desc("repeated_total", "Facts that had been taken before.")
	gapsDesc          = desc("gaps_total", "Gaps in a tenant's sequence that were asked for.")
	callsDesc         = desc("calls_total", "Questions to the change feed.")
	confirmationsDesc = desc("confirmations_total", "Times that the feed confirmed that nothing was missed.")
	failuresDesc      = desc("failures_total", "Questions to the change feed that failed.")
	ageDesc           = desc("confirmation_age_seconds", "Time since the last confirmation; -1 = there was none.")
	announcedDesc     = desc("notifications_total", "Notifications to adapters by what became of them; stuck counts waits given up.", "result")
	queuedDesc        = desc("notifications_queued", "Notifications that wait to be sent.")
	tenantsDesc       = desc("tenants", "Tenants whose position is known.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sluice_router_notices_"+name, help, labels, nil)
}

// Describe implements [prometheus.Collector].
func (f *Follower) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{factsDesc, foundDesc, againDesc, gapsDesc, callsDesc, confirmationsDesc, failuresDesc,
		ageDesc, announcedDesc, queuedDesc, tenantsDesc} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (f *Follower) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n *atomic.Int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.Load()), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	for i, k := range kinds {
		counter(factsDesc, &f.m.facts[i], k)
	}
	counter(foundDesc, &f.m.found)
	counter(againDesc, &f.m.again)
	counter(gapsDesc, &f.m.gaps)
	counter(callsDesc, &f.m.calls)
	counter(confirmationsDesc, &f.m.confirmations)
	counter(failuresDesc, &f.m.failures)
	counter(announcedDesc, &f.m.announced, "sent")
	counter(announcedDesc, &f.m.unheard, "unheard")
	counter(announcedDesc, &f.m.stuck, "stuck")
	age := -1.0
	if at := f.feed.age.Load(); at != 0 {
		age = time.Since(time.UnixMilli(at)).Seconds()
	}
	gauge(ageDesc, age)
	gauge(queuedDesc, float64(len(f.announce.queue)))
	f.mu.Lock()
	tenants := len(f.positions.m)
	f.mu.Unlock()
	gauge(tenantsDesc, float64(tenants))
}
