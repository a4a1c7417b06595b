package http

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// results count facts by what became of them.
type results struct {
	by      [len(verdicts)]atomic.Int64
	skipped atomic.Int64 // not even tried
}

type counters struct {
	ingress, sink results
	unresolved    atomic.Int64
}

var (
	factsDesc = prometheus.NewDesc("sluice_facts_posted_total",
		"Facts by where they were posted and what became of them, once for each router.", []string{"to", "result"}, nil)
	unresolvedDesc = prometheus.NewDesc("sluice_facts_router_names_unresolved_total", "Times that the name of routers did not resolve.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (p *Poster) Describe(ch chan<- *prometheus.Desc) { ch <- factsDesc; ch <- unresolvedDesc }

// Collect implements [prometheus.Collector].
func (p *Poster) Collect(ch chan<- prometheus.Metric) {
	for to, r := range map[string]*results{"router": &p.m.ingress, "sink": &p.m.sink} {
		for i, verdict := range verdicts {
			ch <- prometheus.MustNewConstMetric(factsDesc, prometheus.CounterValue, float64(r.by[i].Load()), to, verdict)
		}
		ch <- prometheus.MustNewConstMetric(factsDesc, prometheus.CounterValue, float64(r.skipped.Load()), to, "skipped")
	}
	ch <- prometheus.MustNewConstMetric(unresolvedDesc, prometheus.CounterValue, float64(p.m.unresolved.Load()))
}
