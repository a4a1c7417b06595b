package edge

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-iot/sluice/adapters"
)

// countedAs and gaugeOf read what was counted elsewhere, when somebody asks.
func countedAs(name, help string, labels prometheus.Labels, value func() float64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, value)
}

func gaugeOf(name, help string, labels prometheus.Labels, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value)
}

// admissionFigures tell how devices of an adapter are let in.
func admissionFigures(adapter string, counts func() adapters.AdmissionCounts) []prometheus.Collector {
	const name, help = "sluice_adapter_admissions_total", "Admissions by whether the cache answered."
	labels := prometheus.Labels{"adapter": adapter}
	return []prometheus.Collector{
		countedAs(name, help, prometheus.Labels{"adapter": adapter, "result": "hit"}, func() float64 { return float64(counts().Hits) }),
		countedAs(name, help, prometheus.Labels{"adapter": adapter, "result": "miss"}, func() float64 { return float64(counts().Misses) }),
		gaugeOf("sluice_adapter_admissions_kept", "Admissions in the cache.", labels, func() float64 { return float64(counts().Kept) }),
		gaugeOf("sluice_adapter_admission_calls", "Calls of the admission function under way.", labels, func() float64 { return float64(counts().Asking) }),
		gaugeOf("sluice_adapter_registry_followed", "1 while every change of the registry is heard of, so that admissions are kept as long as they say.", labels, func() float64 {
			if counts().Following {
				return 1
			}
			return 0
		}),
	}
}

// commandFigures tell of devices that take commands, and of what applications hear of them.
func commandFigures(c *adapters.Commands, presence func() adapters.PresenceCounts) []prometheus.Collector {
	figures := []prometheus.Collector{
		gaugeOf("sluice_adapter_command_subscriptions", "Subscriptions for commands.", nil, func() float64 { return float64(c.Len()) }),
		gaugeOf("sluice_adapter_commands_in_flight", "Commands that devices have and whose outcome is not known yet.", nil, func() float64 { return float64(c.InFlight()) }),
		gaugeOf("sluice_adapter_notifications_waiting", "Notifications of presence that are not sent yet.", nil, func() float64 { return float64(presence().Waiting) }),
		countedAs("sluice_adapter_notification_calls_total", "Calls of the notification function.", nil, func() float64 { return float64(presence().Calls) }),
	}
	for _, result := range []struct {
		name string
		of   func(adapters.PresenceCounts) uint64
	}{
		{"sent", func(n adapters.PresenceCounts) uint64 { return n.Sent }},
		{"failed", func(n adapters.PresenceCounts) uint64 { return n.Failed }},
		{"dropped", func(n adapters.PresenceCounts) uint64 { return n.Dropped }},
		{"repeated", func(n adapters.PresenceCounts) uint64 { return n.Repeated }},
	} {
		figures = append(figures, countedAs("sluice_adapter_notifications_total", "Notifications of presence, by what became of them; repeated ones are counted again at their end.",
			prometheus.Labels{"result": result.name}, func() float64 { return float64(result.of(presence())) }))
	}
	return figures
}

// ingressFigures tell of the listeners for facts.
func ingressFigures(refused func() int64) []prometheus.Collector {
	return []prometheus.Collector{countedAs("sluice_router_ingress_refused_total", "Requests of the ingress that were not taken.", nil, func() float64 { return float64(refused()) })}
}
