package adapters

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// maxSlots periods of maxPeriod are how long a maximum is told: between two
	// and three minutes, then it makes room for smaller ones.
	maxSlots  = 3
	maxPeriod = time.Minute
)

// summary is what Micrometer keeps of a timer or a distribution: how many, how
// much in all (seconds or bytes), and the largest of late. The caller locks.
type summary struct {
	count  uint64
	sum    float64
	period int64 // the latest with a slot of its own
	max    [maxSlots]float64
}

// record adds one value at now, the time since the meter was made.
func (s *summary) record(now time.Duration, v float64) {
	s.count++
	s.sum += v
	s.peak(now, v)
}

// peak counts v among the largest values only.
func (s *summary) peak(now time.Duration, v float64) {
	s.roll(now)
	if slot := &s.max[s.period%maxSlots]; v > *slot {
		*slot = v
	}
}

// roll empties the slots of periods that are over. A late recorder may bring
// an earlier time than the one before it; its value counts as of now.
func (s *summary) roll(now time.Duration) {
	period := int64(now / maxPeriod)
	if period-s.period >= maxSlots {
		s.max = [maxSlots]float64{}
		s.period = period
	}
	for s.period < period {
		s.period++
		s.max[s.period%maxSlots] = 0
	}
}

// largest is the largest value of late.
func (s *summary) largest(now time.Duration) float64 {
	s.roll(now)
	return max(s.max[0], s.max[1], s.max[2])
}

// summaryDescs are the two families of a summary.
type summaryDescs struct{ of, max *prometheus.Desc }

func (d summaryDescs) describe(ch chan<- *prometheus.Desc) {
	ch <- d.of
	ch <- d.max
}

// collect shows s as Micrometer's exporter does: a summary without quantiles,
// and the maximum as a gauge beside it.
func (d summaryDescs) collect(ch chan<- prometheus.Metric, now time.Duration, s *summary, labels ...string) {
	m, err := prometheus.NewConstSummary(d.of, s.count, s.sum, nil, labels...)
	show(ch, d.of, m, err)
	gauge(ch, d.max, s.largest(now), labels...)
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	m, err := prometheus.NewConstMetric(d, prometheus.GaugeValue, v, labels...)
	show(ch, d, m, err)
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, n uint64, labels ...string) {
	m, err := prometheus.NewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	show(ch, d, m, err)
}

// show hands m on, or what is wrong with it: a label must never end the process.
func show(ch chan<- prometheus.Metric, d *prometheus.Desc, m prometheus.Metric, err error) {
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	ch <- m
}
