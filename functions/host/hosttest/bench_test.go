package hosttest_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/events"
	invokehttp "github.com/sluice-iot/sluice/events/invoke/http"
)

// roundTrips measures calls of one caller and reports how long they take.
func roundTrips(b *testing.B, inv events.Invoker) {
	b.ReportAllocs()
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := inv.Invoke(b.Context(), events.TenantGet{ID: "T"}); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

// BenchmarkHTTP is one CloudEvent there and back, over loopback with mutual TLS.
func BenchmarkHTTP(b *testing.B) {
	url, clients := serve(b)
	inv, err := invokehttp.New(invokehttp.Config{URL: url, Source: "//sluice.test/routers/0", TLS: clients["router"]})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(inv.Close)
	roundTrips(b, inv)
}

// BenchmarkLambda is the same through the Invoke API, the Runtime API and the
// runtime client of a process.
func BenchmarkLambda(b *testing.B) {
	inv, _ := onLambda(b, 1, nil)
	roundTrips(b, inv)
}
