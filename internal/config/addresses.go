package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-iot/sluice/internal/config/strictyaml"
)

// Address says what the router does with the messages sent to the addresses
// that its pattern matches.
type Address struct {
	// Pattern is an address in which a * stands for one segment, and at the end
	// for one or more: command_response/* matches command_response/T/R.
	Pattern      string `yaml:"pattern" json:"pattern"`
	Distribution string `yaml:"distribution" json:"distribution"` // one of Distributions
}

// The distributions of addresses.
const (
	Balanced  = "balanced"  // each message to the receiver with the least backlog
	Closest   = "closest"   // each message to one of the receivers, by turns
	Multicast = "multicast" // a copy to every receiver
	Closed    = "closed"    // receivers may attach, senders get no credit
	Stored    = "stored"    // kept until a receiver takes it; closed where there is no event store
)

// Distributions lists them.
var Distributions = []string{Balanced, Closest, Multicast, Closed, Stored}

// HonoAddresses are the addresses that are there without being configured.
func HonoAddresses() []Address {
	return []Address{
		{"telemetry/*", Balanced},
		{"event/*", Stored},
		{"command/*", Balanced},
		{"command_response/*", Balanced},
		{"command_internal/*", Balanced},
		{"notification/*", Multicast},
	}
}

// reservedAddresses are the router's own, and those of services.
var reservedAddresses = []string{"_dynamic", "tenant", "registration", "credentials", "cmd_router", "cbs", "device_directory"}

func (l *Loaded) checkAddresses() error {
	for i, a := range l.Addresses {
		path := fmt.Sprintf("addresses[%d]", i)
		if err := checkAddressPattern(a.Pattern); err != nil {
			return l.errorf(path, "pattern %q: %v", a.Pattern, err)
		}
		if first, _, _ := strings.Cut(a.Pattern, "/"); a.Distribution == Stored && first != "event" {
			return l.errorf(path, "distribution stored of %s: what is kept are the events of a tenant, addresses event/TENANT", a.Pattern)
		}
		if !slices.Contains(Distributions, a.Distribution) {
			return l.errorf(path, "distribution %q of %s: expected one of %s; nearest: %q", a.Distribution, a.Pattern,
				strings.Join(Distributions, ", "), strictyaml.Nearest(a.Distribution, Distributions))
		}
		for k, b := range l.Addresses[:i] {
			if hides(b.Pattern, a.Pattern) {
				return l.errorf(path, "pattern %s is never reached: addresses[%d], %s, matches all of it", a.Pattern, k, b.Pattern)
			}
		}
	}
	return nil
}

func checkAddressPattern(pattern string) error {
	if pattern == "" {
		return fmt.Errorf("empty; expected an address such as alarms/*")
	}
	first, _, _ := strings.Cut(pattern, "/")
	if strings.HasPrefix(first, "$") || slices.Contains(reservedAddresses, first) {
		return fmt.Errorf("addresses that begin with %s are the router's own", first)
	}
	for segment := range strings.SplitSeq(pattern, "/") {
		switch {
		case segment == "":
			return fmt.Errorf("a segment is empty")
		case segment != "*" && strings.Contains(segment, "*"):
			return fmt.Errorf("* stands for whole segments; expected %s", strings.ReplaceAll(pattern, segment, "*"))
		case strings.ContainsFunc(segment, func(r rune) bool { return r <= ' ' || r == 0x7f }):
			return fmt.Errorf("blanks and control characters do not belong in an address")
		}
	}
	return nil
}

// hides reports whether every address that b matches is one that a matches.
func hides(a, b string) bool {
	for {
		x, restA, moreA := strings.Cut(a, "/")
		y, restB, moreB := strings.Cut(b, "/")
		if x == "*" && !moreA {
			return true
		}
		if x != "*" && x != y || x == "*" && y == "*" && !moreB {
			return false
		}
		if !moreA || !moreB {
			return moreA == moreB
		}
		a, b = restA, restB
	}
}
