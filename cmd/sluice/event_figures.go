package main

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-iot/sluice/internal/eventstore"
)

const (
	// figuresEvery is how often tenants' events are counted at most, however often metrics are read.
	figuresEvery = 15 * time.Second
	figuresTime  = 5 * time.Second
	// maxFigures bounds the tenants with metrics of their own, in the order of their names.
	maxFigures = 1000
)

// backlogs tell how the events of each tenant stand.
type backlogs struct {
	log *eventstore.Log

	mu   sync.Mutex
	at   time.Time
	last []*eventstore.Stats
}

var (
	waitingDesc  = prometheus.NewDesc("sluice_events_waiting", "Events that are kept for applications.", []string{"tenant"}, nil)
	inFlightDesc = prometheus.NewDesc("sluice_events_in_flight", "Of those, the ones that were delivered and are not settled.", []string{"tenant"}, nil)
	bytesDesc    = prometheus.NewDesc("sluice_events_bytes", "Bytes of kept events.", []string{"tenant"}, nil)
	deadDesc     = prometheus.NewDesc("sluice_events_dead_letters", "Events that nobody takes any more.", []string{"tenant"}, nil)
	oldestDesc   = prometheus.NewDesc("sluice_events_oldest_seconds", "Age of the event that waits longest; 0 = none waits.", []string{"tenant"}, nil)
)

// Describe implements [prometheus.Collector].
func (b *backlogs) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{waitingDesc, inFlightDesc, bytesDesc, deadDesc, oldestDesc} {
		out <- d
	}
}

// Collect implements [prometheus.Collector]. Where the store does not answer, what it said last is told.
func (b *backlogs) Collect(out chan<- prometheus.Metric) {
	now := time.Now()
	for _, s := range b.stats(now) {
		tell := func(d *prometheus.Desc, value float64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, string(s.Tenant))
		}
		oldest := 0.0
		if s.Oldest != nil {
			oldest = max(0, now.Sub(*s.Oldest).Seconds())
		}
		tell(waitingDesc, float64(s.Waiting))
		tell(inFlightDesc, float64(s.InFlight))
		tell(bytesDesc, float64(s.Bytes))
		tell(deadDesc, float64(s.DeadLetters))
		tell(oldestDesc, oldest)
	}
}

func (b *backlogs) stats(now time.Time) []*eventstore.Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.at) < figuresEvery {
		return b.last
	}
	b.at = now
	ctx, cancel := context.WithTimeout(context.Background(), figuresTime)
	defer cancel()
	tenants, err := b.log.Tenants(ctx, "", maxFigures)
	if err != nil {
		return b.last
	}
	list := make([]*eventstore.Stats, 0, len(tenants))
	for _, tenant := range tenants {
		s, err := b.log.Stats(ctx, tenant)
		if err != nil {
			return b.last
		}
		list = append(list, s)
	}
	b.last = list
	return list
}
