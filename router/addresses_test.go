package router_test

import (
	"testing"

	goamqp "github.com/Azure/go-amqp"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/router"
)

func TestPatterns(t *testing.T) {
	given := []config.Address{
		{Pattern: "telemetry/A", Distribution: config.Multicast}, {Pattern: "jobs", Distribution: config.Closest},
		{Pattern: "a/*/b", Distribution: config.Balanced}, {Pattern: "a/*", Distribution: config.Closed},
	}
	for address, want := range map[string]string{
		"telemetry/A": "telemetry/A", "telemetry/A/x": "telemetry/*", "telemetry/B": "telemetry/*", "telemetry/B/x/y": "telemetry/*",
		"telemetry": "", "telemetry/": "", "telemetry//x": "", "Telemetry/A": "", "telemetryx/A": "",
		"jobs": "jobs", "jobs/": "", "jobs/1": "",
		"a/1/b": "a/*/b", "a/1/c": "a/*", "a/1/b/c": "a/*", "a/1": "a/*", "a//b": "", "a": "",
		"command_response/T/R": "command_response/*", "command_response/T/R/x": "command_response/*",
		"notification/registry-tenant": "notification/*", "": "", "/": "", "*": "", "unknown/T": "",
	} {
		if got := router.PatternOf(given, address); got != want {
			t.Errorf("%q: got %q, want %q", address, got, want)
		}
	}
	if got := router.PatternOf([]config.Address{{Pattern: "*", Distribution: config.Closest}}, "event/T"); got != "*" {
		t.Errorf("got %q: what is given stands first", got)
	}
}

func TestConfiguredAddresses(t *testing.T) {
	s := serve(t, []config.Address{{Pattern: "alarms/*", Distribution: config.Multicast}, {Pattern: "event/*", Distribution: config.Balanced}},
		map[string][]auth.Authority{"u": {may(auth.Read|auth.Write, "*")}})
	x := s.session(t, "u")
	receivers := func(address string, n int) (out []*goamqp.Receiver) {
		t.Helper()
		for range n {
			r, err := x.NewReceiver(t.Context(), address, nil)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, r)
		}
		return out
	}
	send := func(address string) {
		t.Helper()
		w, err := x.NewSender(t.Context(), address, &goamqp.SenderOptions{SettlementMode: goamqp.SenderSettleModeSettled.Ptr()})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Send(t.Context(), goamqp.NewMessage([]byte("x")), nil); err != nil {
			t.Fatal(err)
		}
	}
	all := receivers("alarms/fire", 2)
	send("alarms/fire")
	for _, r := range all { // each has a copy
		if _, err := r.Receive(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	one := receivers("event/T", 1) // closed by default
	send("event/T")
	if _, err := one[0].Receive(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for _, unknown := range []string{"alarms", "alarms/", "other/T", "telemetry/"} {
		if _, err := x.NewSender(t.Context(), unknown, nil); condition(err) != "amqp:not-found" && condition(err) != "amqp:unauthorized-access" {
			t.Errorf("%s: got %v, want amqp:not-found", unknown, err)
		}
	}
	if _, err := x.NewReceiver(t.Context(), "other/T", nil); condition(err) != "amqp:not-found" {
		t.Errorf("got %v, want amqp:not-found", err)
	}
}
