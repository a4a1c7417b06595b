package router

import (
	"time"

	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/router/forward"
)

// MaxTenantSeries is how many tenants have metrics of their own.
const MaxTenantSeries = maxTenantSeries

// PatternOf returns the pattern that an address falls under, "" for none.
func PatternOf(given []config.Address, address string) string {
	if p := newPatterns(given, false).find(address); p != nil {
		return p.text
	}
	return ""
}

// Gone hands the counters of an address that went away to the metrics.
func (r *Router) Gone(a forward.AddressInfo) { r.usage.gone(a) }

// MaxStrangersPerAddress is how many connections of one address may be without log-in.
const MaxStrangersPerAddress = maxStrangersPerAddress

// TokenWait sets how long a connection of ScopeTokens may stay; it is called
// before there is one.
func (r *Router) TokenWait(d time.Duration) { r.standing.wait = d }
