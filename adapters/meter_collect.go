package adapters

import (
	"maps"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var _ prometheus.Collector = (*Meter)(nil)

// meterDescs are the families of a meter.
type meterDescs struct {
	authenticated, unauthenticated, attempts *prometheus.Desc
	connected, processing, payload, delivery summaryDescs
	commandProcessing, commandPayload        summaryDescs
	noCredit, timeout                        *prometheus.Desc
}

func newMeterDescs(adapterType string) meterDescs {
	host, err := os.Hostname()
	if err != nil {
		host = unknownLabel
	}
	common := prometheus.Labels{"host": host, "component_type": "adapter", "component_name": adapterType}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("hono_"+name, help, labels, common)
	}
	summary := func(name, help string, labels ...string) summaryDescs {
		return summaryDescs{desc(name, help, labels...), desc(name+"_max", help+" The largest of the last two to three minutes.", labels...)}
	}
	upload := []string{"type", "tenant", "status", "qos", "ttd"}
	command := []string{"direction", "tenant", "status"}
	return meterDescs{
		authenticated:     desc("connections_authenticated", "Open connections of devices that said who they are.", "tenant"),
		unauthenticated:   desc("connections_unauthenticated", "Open connections of devices that did not say who they are."),
		attempts:          desc("connections_attempts_total", "Attempts of devices to connect.", "tenant", "outcome", "cipher_suite"),
		connected:         summary("connections_authenticated_duration_seconds", "Time that a tenant's devices were connected.", "tenant"),
		processing:        summary("telemetry_processing_duration_seconds", "Time from an upload to its outcome.", upload...),
		payload:           summary("telemetry_payload_bytes", "Payload of uploads, rounded up to the tenant's minimum message size.", upload...),
		commandProcessing: summary("command_processing_duration_seconds", "Time from a command for a device, or a device's response, to its outcome.", command...),
		commandPayload:    summary("command_payload_bytes", "Payload of commands and responses, rounded up to the tenant's minimum message size.", command...),
		delivery:          summary("amqp_delivery_duration_seconds", "Time from a message for a router to its outcome.", "type", "tenant", "outcome"),
		noCredit:          desc("amqp_nocredit_total", "Messages that no application gave credit for.", "type", "tenant"),
		timeout:           desc("amqp_timeout_total", "Messages without an outcome in time.", "type", "tenant"),
	}
}

// Describe implements [prometheus.Collector].
func (m *Meter) Describe(ch chan<- *prometheus.Desc) {
	d := &m.descs
	for _, one := range []*prometheus.Desc{d.authenticated, d.unauthenticated, d.attempts, d.noCredit, d.timeout} {
		ch <- one
	}
	for _, two := range []summaryDescs{d.connected, d.processing, d.payload, d.commandProcessing, d.commandPayload, d.delivery} {
		two.describe(ch)
	}
}

// Collect implements [prometheus.Collector].
func (m *Meter) Collect(ch chan<- prometheus.Metric) {
	now := m.now()
	all := m.snapshot(now)
	if m.connects.Load() {
		gauge(ch, m.descs.unauthenticated, float64(m.anonymous.Load()))
	}
	for i := range all {
		t := &all[i]
		m.collectConnections(ch, now, t)
		m.collectUploads(ch, now, t)
		m.collectCommands(ch, now, t)
		m.collectDeliveries(ch, now, t)
	}
}

func (m *Meter) collectConnections(ch chan<- prometheus.Metric, now time.Duration, t *tenantFigures) {
	if c := t.connections; c != nil {
		gauge(ch, m.descs.authenticated, float64(c.open), t.name)
		m.descs.connected.collect(ch, now, &c.duration, t.name)
	}
	for a, n := range t.attempts {
		counter(ch, m.descs.attempts, n, t.name, a.outcome, a.cipher)
	}
}

func (m *Meter) collectUploads(ch chan<- prometheus.Metric, now time.Duration, t *tenantFigures) {
	for kind := range t.uploads {
		for outcome := range t.uploads[kind] {
			for qos := range t.uploads[kind][outcome] {
				for ttd, f := range t.uploads[kind][outcome][qos] {
					if f == nil {
						continue
					}
					tags := []string{typeTags[kind], t.name, statusTags[outcome], qosTags[qos], ttdTags[ttd]}
					m.descs.processing.collect(ch, now, &f.duration, tags...)
					m.descs.payload.collect(ch, now, &f.payload, tags...)
				}
			}
		}
	}
}

func (m *Meter) collectCommands(ch chan<- prometheus.Metric, now time.Duration, t *tenantFigures) {
	for direction := range t.commands {
		for outcome, f := range t.commands[direction] {
			if f == nil {
				continue
			}
			tags := []string{directionTags[direction], t.name, statusTags[outcome]}
			m.descs.commandProcessing.collect(ch, now, &f.duration, tags...)
			m.descs.commandPayload.collect(ch, now, &f.payload, tags...)
		}
	}
}

func (m *Meter) collectDeliveries(ch chan<- prometheus.Metric, now time.Duration, t *tenantFigures) {
	for kind, f := range t.deliveries {
		if f == nil {
			continue
		}
		for outcome := range f.duration {
			if s := &f.duration[outcome]; s.count > 0 {
				m.descs.delivery.collect(ch, now, s, typeTags[kind], t.name, outcomeTags[outcome])
			}
		}
		counter(ch, m.descs.noCredit, f.noCredit, typeTags[kind], t.name)
		counter(ch, m.descs.timeout, f.timeouts, typeTags[kind], t.name)
	}
}

// clone copies t, brought up to now. The shard of t is locked.
func (t *tenantFigures) clone(now time.Duration) tenantFigures {
	c := *t
	c.attempts = maps.Clone(t.attempts)
	if t.connections != nil {
		t.connections.advance(now)
		c.connections = copied(t.connections)
	}
	for kind := range t.uploads {
		c.deliveries[kind] = copied(t.deliveries[kind])
		for outcome := range t.uploads[kind] {
			for qos := range t.uploads[kind][outcome] {
				for ttd, f := range t.uploads[kind][outcome][qos] {
					c.uploads[kind][outcome][qos][ttd] = copied(f)
				}
			}
		}
	}
	for direction := range t.commands {
		for outcome, f := range t.commands[direction] {
			c.commands[direction][outcome] = copied(f)
		}
	}
	return c
}

func copied[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}
