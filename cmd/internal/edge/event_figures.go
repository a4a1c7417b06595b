package edge

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-iot/sluice/router/stored"
)

// eventFigures tell what becomes of events in this process's router.
func eventFigures(figures func() stored.Figures) prometheus.Collector {
	c := &eventCollector{figures: figures}
	for _, f := range []struct {
		name, help string
		kind       prometheus.ValueType
		labels     []string
		read       func(stored.Figures) []float64
	}{
		{"received_total", "Events that senders brought, by what became of them.", prometheus.CounterValue, []string{"accepted", "refused", "over-quota", "failed", "overflow"},
			func(f stored.Figures) []float64 {
				return []float64{float64(f.Accepted), float64(f.Refused), float64(f.OverQuota), float64(f.Failed), float64(f.Overflow)}
			}},
		{"calls_total", "Calls of the event store.", prometheus.CounterValue, []string{"append", "claim", "read", "settle", "release"},
			func(f stored.Figures) []float64 {
				return []float64{float64(f.Appends), float64(f.Claims), float64(f.Reads), float64(f.Settles), float64(f.Releases)}
			}},
		{"append_seconds_total", "Time that appends took.", prometheus.CounterValue, nil, func(f stored.Figures) []float64 { return []float64{f.AppendSeconds} }},
		{"delivered_total", "Events sent to receivers, again or for the first time.", prometheus.CounterValue, nil, func(f stored.Figures) []float64 { return []float64{float64(f.Delivered)} }},
		{"live_total", "Events made ready from memory, right after they were stored.", prometheus.CounterValue, nil, func(f stored.Figures) []float64 { return []float64{float64(f.Live)} }},
		{"expired_total", "Events that expired while they waited in memory.", prometheus.CounterValue, nil, func(f stored.Figures) []float64 { return []float64{float64(f.Expired)} }},
		{"dead_total", "Events that became dead letters.", prometheus.CounterValue, nil, func(f stored.Figures) []float64 { return []float64{float64(f.Dead)} }},
		{"claims_lost_total", "Partitions that another router took.", prometheus.CounterValue, nil, func(f stored.Figures) []float64 { return []float64{float64(f.LostClaims)} }},
		{"queued_bytes", "Bytes that wait to be stored.", prometheus.GaugeValue, nil, func(f stored.Figures) []float64 { return []float64{float64(f.Queued)} }},
		{"prefetched_bytes", "Bytes in memory that wait for receivers.", prometheus.GaugeValue, nil, func(f stored.Figures) []float64 { return []float64{float64(f.Prefetched)} }},
		{"tenants", "Tenants whose events somebody receives.", prometheus.GaugeValue, nil, func(f stored.Figures) []float64 { return []float64{float64(f.Tenants)} }},
	} {
		var names []string
		if f.labels != nil {
			names = []string{"kind"}
		}
		c.rows = append(c.rows, eventRow{prometheus.NewDesc("sluice_router_events_"+f.name, f.help, names, nil), f.kind, f.labels, f.read})
	}
	return c
}

type eventRow struct {
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	labels []string
	read   func(stored.Figures) []float64
}

type eventCollector struct {
	figures func() stored.Figures
	rows    []eventRow
}

// Describe implements [prometheus.Collector].
func (c *eventCollector) Describe(out chan<- *prometheus.Desc) {
	for i := range c.rows {
		out <- c.rows[i].desc
	}
}

// Collect implements [prometheus.Collector].
func (c *eventCollector) Collect(out chan<- prometheus.Metric) {
	f := c.figures()
	for i := range c.rows {
		r := &c.rows[i]
		for n, value := range r.read(f) {
			if r.labels == nil {
				out <- prometheus.MustNewConstMetric(r.desc, r.kind, value)
				continue
			}
			out <- prometheus.MustNewConstMetric(r.desc, r.kind, value, r.labels[n])
		}
	}
}
