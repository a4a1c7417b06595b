package config_test

import (
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/config"
)

func TestAddresses(t *testing.T) {
	for _, tt := range []struct {
		name, list string
		want       string // in the error; "" = none
	}{
		{"none", `[]`, ""},
		{"several", `[{pattern: "alarms/*", distribution: multicast}, {pattern: jobs, distribution: closest}, {pattern: "a/*/b", distribution: balanced}]`, ""},
		{"Hono's overridden", `[{pattern: "event/*", distribution: balanced}, {pattern: "telemetry/*", distribution: closed}]`, ""},
		{"narrow before wide", `[{pattern: "telemetry/A", distribution: multicast}, {pattern: "telemetry/*", distribution: closest}]`, ""},
		{"no pattern", `[{distribution: multicast}]`, `addresses[0]: pattern "": empty; expected an address such as alarms/*`},
		{"no distribution", `[{pattern: a}]`, `addresses[0]: distribution "" of a: expected one of balanced, closest, multicast, closed`},
		{"slip", `[{pattern: a, distribution: multicst}]`, `nearest: "multicast"`},
		{"part of a segment", `[{pattern: "a/b*", distribution: balanced}]`, "* stands for whole segments; expected a/*"},
		{"empty segment", `[{pattern: "a//b", distribution: balanced}]`, "a segment is empty"},
		{"ends in a slash", `[{pattern: "a/", distribution: balanced}]`, "a segment is empty"},
		{"blank", `[{pattern: "a b", distribution: balanced}]`, "blanks and control characters"},
		{"management", `[{pattern: "$management", distribution: balanced}]`, "addresses that begin with $management are the router's own"},
		{"service", `[{pattern: "credentials/*", distribution: balanced}]`, "addresses that begin with credentials are the router's own"},
		{"dynamic", `[{pattern: "_dynamic/*", distribution: balanced}]`, "the router's own"},
		{"twice", `[{pattern: a, distribution: balanced}, {pattern: a, distribution: closest}]`, "addresses[1]: pattern a is never reached: addresses[0], a, matches all of it"},
		{"wide before narrow", `[{pattern: "a/*", distribution: balanced}, {pattern: "a/b/c", distribution: closest}]`, "pattern a/b/c is never reached"},
		{"longer before wide", `[{pattern: "a/*/c", distribution: balanced}, {pattern: "a/*", distribution: closest}]`, ""},
		{"unknown key", `[{patern: a, distribution: balanced}]`, "pattern"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := config.Load(config.Options{Env: []string{"XDG_DATA_HOME=/d"},
				Flags: []config.Flag{{Path: "addresses", Value: tt.list, Name: "--set addresses"}}})
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v, want none", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got error %v, want %q", err, tt.want)
			case tt.want == "" && len(l.Addresses) != strings.Count(tt.list, "pattern"):
				t.Errorf("got %v", l.Addresses)
			}
		})
	}
}

func TestHonoAddressesAreValid(t *testing.T) {
	for _, a := range config.HonoAddresses() {
		_, err := config.Load(config.Options{Env: []string{"XDG_DATA_HOME=/d"}, Flags: []config.Flag{
			{Path: "addresses", Value: `[{pattern: "` + a.Pattern + `", distribution: ` + a.Distribution + `}]`, Name: "x"}}})
		if err != nil {
			t.Errorf("%v: %v", a, err)
		}
	}
}
