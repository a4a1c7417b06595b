package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	posthttp "github.com/sluice-iot/sluice/events/post/http"
)

var (
	factsDesc = prometheus.NewDesc("sluice_facts_posted_total",
		"Facts by where they were posted and what became of them, once for each router.", []string{"to", "result"}, nil)
	unresolvedDesc = prometheus.NewDesc("sluice_facts_router_names_unresolved_total", "Times that the name of routers did not resolve.", nil, nil)
)

type collector struct{ poster *posthttp.Poster }

// Of returns the figures of a poster.
func Of(p *posthttp.Poster) prometheus.Collector { return collector{p} }

// Describe implements [prometheus.Collector].
func (collector) Describe(ch chan<- *prometheus.Desc) { ch <- factsDesc; ch <- unresolvedDesc }

// Collect implements [prometheus.Collector].
func (c collector) Collect(ch chan<- prometheus.Metric) {
	facts, unresolved := c.poster.Counts()
	for _, f := range facts {
		ch <- prometheus.MustNewConstMetric(factsDesc, prometheus.CounterValue, float64(f.Facts), f.To, f.Result)
	}
	ch <- prometheus.MustNewConstMetric(unresolvedDesc, prometheus.CounterValue, float64(unresolved))
}
