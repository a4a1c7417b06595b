package router

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/router/forward"
)

const (
	// maxTenantSeries bounds the tenants with metrics of their own; the others
	// are summed up as otherTenants. A tenant that has them keeps them, so that no
	// counter ever falls.
	maxTenantSeries = 1000
	otherTenants    = "other"
	// Addresses without a pattern of the configuration.
	dynamicPattern = "_dynamic/*"
)

// ofTenants are the endpoints whose second segment is a tenant.
var ofTenants = map[string]bool{"telemetry": true, "event": true, "command": true, "command_response": true}

// usage keeps what was counted on addresses that are gone.
type usage struct {
	patterns patterns

	mu       sync.Mutex
	byPast   map[string]forward.Counts // by pattern
	byTenant map[string]forward.Counts
}

func newUsage(ps patterns) *usage {
	return &usage{patterns: ps, byPast: map[string]forward.Counts{}, byTenant: map[string]forward.Counts{}}
}

// pattern is the label for an address.
func (u *usage) pattern(a *forward.AddressInfo) string {
	if a.Dynamic {
		return dynamicPattern
	}
	if p := u.patterns.find(a.Name); p != nil {
		return p.text
	}
	first, _, _ := strings.Cut(a.Name, "/")
	return first
}

// tenant is the label for the tenant of an address, "" when it has none. A new
// one is named while there is room. u is locked.
func (u *usage) tenant(a *forward.AddressInfo) string {
	endpoint, rest, _ := strings.Cut(a.Name, "/")
	if !ofTenants[endpoint] || a.Counts == (forward.Counts{}) {
		return ""
	}
	tenant, _, _ := strings.Cut(rest, "/")
	if _, ok := u.byTenant[tenant]; ok {
		return tenant
	}
	if len(u.byTenant) >= maxTenantSeries {
		return otherTenants
	}
	u.byTenant[tenant] = forward.Counts{}
	return tenant
}

// gone takes over the counters of an address; see [forward.Router.OnGone].
func (u *usage) gone(a forward.AddressInfo) {
	if a.Counts == (forward.Counts{}) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	add(u.byPast, u.pattern(&a), a.Counts)
	if t := u.tenant(&a); t != "" {
		add(u.byTenant, t, a.Counts)
	}
}

func add(m map[string]forward.Counts, key string, c forward.Counts) {
	sum := m[key]
	sum.Add(c)
	m[key] = sum
}

// state is all that is told at one time.
type state struct {
	patterns map[string]*patternState
	tenants  map[string]forward.Counts
}

// patternState sums up the addresses of one pattern.
type patternState struct {
	addresses, senders, receivers, surplus int
	counts                                 forward.Counts
}

// now adds up what is gone and what is there.
func (u *usage) now(r *forward.Router) *state {
	s := &state{map[string]*patternState{}, map[string]forward.Counts{}}
	of := func(pattern string) *patternState {
		p := s.patterns[pattern]
		if p == nil {
			p = &patternState{}
			s.patterns[pattern] = p
		}
		return p
	}
	for i := range u.patterns {
		of(u.patterns[i].text) // those that nobody used yet are told too
	}
	begin := func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		for pattern, c := range u.byPast {
			of(pattern).counts.Add(c)
		}
		for tenant, c := range u.byTenant {
			s.tenants[tenant] = c
		}
	}
	r.Addresses(begin, func(a forward.AddressInfo) {
		p := of(u.pattern(&a))
		p.addresses++
		p.senders += a.Senders
		p.receivers += a.Receivers
		p.surplus += a.Surplus
		p.counts.Add(a.Counts)
		u.mu.Lock()
		t := u.tenant(&a)
		u.mu.Unlock()
		if t != "" {
			add(s.tenants, t, a.Counts)
		}
	})
	return s
}

// The metrics.
var (
	connectionsDesc = desc("connections", "Open connections.", "kind")
	openedDesc      = desc("connections_accepted_total", "Connections accepted on sockets.", "role")
	addressesDesc   = desc("addresses", "Addresses with links.", "pattern")
	linksDesc       = desc("links", "Links by what the peer is.", "pattern", "role")
	surplusDesc     = desc("surplus_deliveries", "Deliveries that await a receiver's credit.", "pattern")
	deliveriesDesc  = desc("deliveries_total", "Deliveries by what became of them; a multicast counts once per receiver.", "pattern", "result")
	overrunDesc     = desc("receivers_overrun_total", "Multicast receivers detached because they fell behind.", "pattern")
	refusedDesc     = desc("logins_refused_total", "Log-ins not looked at because too many before them had failed.")
	requestsDesc    = desc("service_requests_total", "Requests to the addresses of the registry by the status of the reply; rejected and released ones had none.", "endpoint", "status")
	commandsDesc    = desc("commands_total", "Commands of applications by the outcome that they were given.", "outcome")
	directoryDesc   = desc("device_directory_entries", "Devices that adapters have announced, by each adapter that has.")
	tenantDesc      = desc("tenant_deliveries_total", "Deliveries per tenant; tenants without room for series of their own are summed up as other.", "tenant", "result")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sluice_router_"+name, help, labels, nil)
}

// Describe implements [prometheus.Collector].
func (r *Router) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{connectionsDesc, openedDesc, addressesDesc, linksDesc, surplusDesc, deliveriesDesc, overrunDesc, refusedDesc, requestsDesc, commandsDesc, directoryDesc, tenantDesc} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector]. What is told was counted where it
// happened; nothing is done per message for it.
func (r *Router) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	counter := func(d *prometheus.Desc, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for kind, n := range r.connectionsByKind() {
		gauge(connectionsDesc, n, kind)
	}
	for role, n := range r.accepted() {
		counter(openedDesc, n, role)
	}
	if r.directory != nil {
		counter(refusedDesc, r.directory.Refused())
	}
	if r.services != nil {
		for k, n := range r.services.Counts() {
			counter(requestsDesc, n, k.Endpoint, k.Status)
		}
	}
	if r.commands != nil {
		for outcome, n := range r.commands.server.Counts() {
			counter(commandsDesc, n, outcome)
		}
		gauge(directoryDesc, r.commands.directory.Len())
	}
	s := r.usage.now(r.forward)
	for pattern, p := range s.patterns {
		gauge(addressesDesc, p.addresses, pattern)
		gauge(linksDesc, p.senders, pattern, "sender")
		gauge(linksDesc, p.receivers, pattern, "receiver")
		gauge(surplusDesc, p.surplus, pattern)
		counter(overrunDesc, p.counts.Overrun, pattern)
		for result, n := range results(&p.counts) {
			counter(deliveriesDesc, n, pattern, result)
		}
	}
	for tenant, c := range s.tenants {
		for result, n := range results(&c) {
			counter(tenantDesc, n, tenant, result)
		}
	}
}

func results(c *forward.Counts) map[string]int64 {
	return map[string]int64{"forwarded": c.Forwarded, "rejected": c.Rejected, "released": c.Released, "dropped": c.Dropped}
}

func (r *Router) connectionsByKind() map[string]int {
	kinds := map[string]int{string(auth.Application): 0, string(auth.Adapter): 0}
	for _, c := range r.forward.Connections() {
		if id, _ := c.Conn.Identity().(*auth.Identity); id != nil {
			kinds[string(id.Kind)]++
		}
	}
	return kinds
}
