package router

import (
	"fmt"
	"strings"

	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/router/forward"
)

// pattern is one of config.Address, prepared for matching.
type pattern struct {
	text     string
	segments []string
	kind     forward.Distribution
}

// patterns are tried in order; the first that matches wins.
type patterns []pattern

var kinds = map[string]forward.Distribution{
	config.Balanced: forward.Balanced, config.Closest: forward.Closest,
	config.Multicast: forward.Multicast, config.Closed: forward.Closed, config.Stored: forward.Stored,
}

// newPatterns puts what is configured before Hono's addresses. The
// configuration was checked; a distribution that is not known is a mistake of the caller.
// Without an event store what would be kept is closed.
func newPatterns(given []config.Address, keeps bool) patterns {
	var out patterns
	for _, a := range append(given[:len(given):len(given)], config.HonoAddresses()...) {
		kind, ok := kinds[a.Distribution]
		if !ok {
			panic(fmt.Sprintf("router: address %s: distribution %q", a.Pattern, a.Distribution))
		}
		if kind == forward.Stored && !keeps {
			kind = forward.Closed
		}
		out = append(out, pattern{a.Pattern, strings.Split(a.Pattern, "/"), kind})
	}
	return out
}

// find returns the pattern of an address, nil when there is no such address.
func (ps patterns) find(address string) *pattern {
	for i := range ps {
		if ps[i].matches(address) {
			return &ps[i]
		}
	}
	return nil
}

// matches compares segment by segment. A * is one segment that is not empty; at
// the end of the pattern whatever follows that one belongs to it.
func (p *pattern) matches(address string) bool {
	last := len(p.segments) - 1
	for i, want := range p.segments {
		got, rest, more := strings.Cut(address, "/")
		switch {
		case want == "*" && got == "", want != "*" && want != got:
			return false
		case i == last:
			return want == "*" || !more
		case !more:
			return false
		}
		address = rest
	}
	return false
}
