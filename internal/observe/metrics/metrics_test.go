package metrics_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-iot/sluice/internal/observe"
	"github.com/sluice-iot/sluice/internal/observe/metrics"
)

func TestMetrics(t *testing.T) {
	m := metrics.New()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "sluice_test_total"})
	m.MustRegister(c)
	c.Add(3)
	h := observe.NewHandler(observe.NewHealth(), metrics.Handler(m))
	for _, path := range []string{"/prometheus", "/metrics"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		code, body := w.Code, w.Body.String()
		for _, want := range []string{"sluice_test_total 3", "sluice_build_info{", "go_goroutines", "process_resident_memory_bytes"} {
			if code != 200 || !strings.Contains(body, want) {
				t.Errorf("%s: %d, %s is missing", path, code, want)
			}
		}
	}
}
