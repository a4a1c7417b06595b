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

// ingressFigures tell of the listeners for facts.
func ingressFigures(refused func() int64) []prometheus.Collector {
	return []prometheus.Collector{countedAs("sluice_router_ingress_refused_total", "Requests of the ingress that were not taken.", nil, func() float64 { return float64(refused()) })}
}
