package metrics_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	posthttp "github.com/sluice-iot/sluice/events/post/http"
	"github.com/sluice-iot/sluice/events/post/http/metrics"
)

func TestEveryCountIsShown(t *testing.T) {
	p, err := posthttp.New(posthttp.Config{Name: "sluice.test"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(metrics.Of(p))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	facts, _ := p.Counts()
	if len(families) != 2 || len(families[0].Metric) != len(facts) || len(facts) == 0 {
		t.Errorf("got %v for %v", families, facts)
	}
}
