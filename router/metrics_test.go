package router_test

import (
	"fmt"
	"strings"
	"testing"

	goamqp "github.com/Azure/go-amqp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/router"
	"github.com/sluice-iot/sluice/router/forward"
)

// gather returns every sample by name{label values}.
func gather(t *testing.T, r prometheus.Collector) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(r)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels string
			for i, l := range m.Label {
				if i > 0 {
					labels += ","
				}
				labels += l.GetValue()
			}
			out[fmt.Sprintf("%s{%s}", f.GetName(), labels)] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

func TestMetrics(t *testing.T) {
	s := serve(t, nil, map[string][]auth.Authority{"u": {may(auth.Read|auth.Write, "*")}, "v": {may(auth.Read|auth.Write, "*")}})
	c := s.dial(t, "u")
	x, err := c.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	recv, err := x.NewReceiver(t.Context(), "telemetry/A", &goamqp.ReceiverOptions{Credit: 10})
	if err != nil {
		t.Fatal(err)
	}
	send, err := x.NewSender(t.Context(), "telemetry/A", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := send.SendWithReceipt(t.Context(), goamqp.NewMessage([]byte("x")), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := recv.Receive(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	anonymous, err := s.session(t, "v").NewSender(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	to := "telemetry/B" // where nobody receives
	receipt, err := anonymous.SendWithReceipt(t.Context(), &goamqp.Message{Properties: &goamqp.MessageProperties{To: &to}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if state, err := receipt.Wait(t.Context()); err != nil || fmt.Sprintf("%T", state) != "*encoding.StateReleased" {
		t.Fatalf("got %T, %v, want released", state, err)
	}
	want := map[string]float64{
		"sluice_router_connections{application}": 2, "sluice_router_connections_accepted_total{northbound}": 2,
		"sluice_router_addresses{telemetry/*}": 2, "sluice_router_links{telemetry/*,receiver}": 1, "sluice_router_links{telemetry/*,sender}": 2,
		"sluice_router_deliveries_total{telemetry/*,forwarded}": 3, "sluice_router_deliveries_total{telemetry/*,released}": 1,
		"sluice_router_deliveries_total{event/*,forwarded}": 0, "sluice_router_surplus_deliveries{telemetry/*}": 0,
		"sluice_router_tenant_deliveries_total{forwarded,A}": 3, "sluice_router_tenant_deliveries_total{released,B}": 1,
		"sluice_router_receivers_overrun_total{telemetry/*}": 0,
	}
	hold := func(want map[string]float64) {
		t.Helper()
		got := gather(t, s.Router)
		for name, n := range want {
			if v, ok := got[name]; !ok || v != n {
				t.Errorf("%s: got %v (%v), want %v", name, v, ok, n)
			}
		}
	}
	hold(want)
	if got := s.Stats(); got != (forward.Counts{Forwarded: 3, Released: 1}) {
		t.Errorf("Stats: %+v", got)
	}
	// What was counted outlives the address.
	for _, close := range []func() error{func() error { return recv.Close(t.Context()) }, func() error { return send.Close(t.Context()) },
		func() error { return anonymous.Close(t.Context()) }} {
		if err := close(); err != nil {
			t.Fatal(err)
		}
	}
	want["sluice_router_addresses{telemetry/*}"] = 0
	want["sluice_router_links{telemetry/*,receiver}"], want["sluice_router_links{telemetry/*,sender}"] = 0, 0
	hold(want)
	if got := s.Stats(); got != (forward.Counts{Forwarded: 3, Released: 1}) {
		t.Errorf("Stats: %+v", got)
	}
}

func TestTenantSeriesAreBounded(t *testing.T) {
	r := router.New(router.Options{Name: "r"})
	const extra = 500
	for round := range 2 {
		for i := range router.MaxTenantSeries + extra {
			r.Gone(forward.AddressInfo{Name: fmt.Sprintf("telemetry/t%d", i), Counts: forward.Counts{Forwarded: 2}})
			r.Gone(forward.AddressInfo{Name: fmt.Sprintf("command_internal/a%d", i), Counts: forward.Counts{Forwarded: 1}})
			r.Gone(forward.AddressInfo{Name: fmt.Sprintf("event/idle%d", i)}) // nothing was sent: takes no room
		}
		got := gather(t, r)
		tenants := 0
		for name := range got {
			if strings.HasPrefix(name, "sluice_router_tenant_deliveries_total{") {
				tenants++
			}
		}
		if tenants != 4*(router.MaxTenantSeries+1) {
			t.Errorf("got %d series of tenants, want those of %d tenants and of the others", tenants, router.MaxTenantSeries)
		}
		n := float64(round + 1)
		for name, want := range map[string]float64{
			"sluice_router_tenant_deliveries_total{forwarded,t0}":          2 * n,
			"sluice_router_tenant_deliveries_total{forwarded,other}":       2 * n * extra,
			"sluice_router_deliveries_total{telemetry/*,forwarded}":        2 * n * (router.MaxTenantSeries + extra),
			"sluice_router_deliveries_total{command_internal/*,forwarded}": n * (router.MaxTenantSeries + extra),
		} {
			if got[name] != want {
				t.Errorf("%s: got %v, want %v", name, got[name], want)
			}
		}
	}
}
