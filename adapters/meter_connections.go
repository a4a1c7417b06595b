package adapters

import (
	"errors"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// durationEvery is how often the time of open connections is recorded
// (contract: adapters 16).
const durationEvery = 10 * time.Second

// connectionFigures integrate the number of a tenant's open connections over
// time: what a timer per connection would add up, without one.
type connectionFigures struct {
	open     int64
	since    time.Duration // up to here it is recorded
	duration summary
}

// advance records the whole periods that have passed, as if somebody had done
// so at the end of each.
func (c *connectionFigures) advance(now time.Duration) {
	if c.open == 0 {
		c.since = max(c.since, now)
		return
	}
	periods := (now - c.since) / durationEvery
	if periods <= 0 {
		return
	}
	c.since += periods * durationEvery
	each := durationEvery.Seconds() * float64(c.open)
	c.duration.count += uint64(periods)
	c.duration.sum += float64(periods) * each
	c.duration.peak(c.since, each)
}

// change records up to now, and goes on with another number of connections.
func (c *connectionFigures) change(now time.Duration, by int64) {
	c.advance(now)
	if rest := now - c.since; c.open > 0 && rest > 0 {
		c.duration.record(now, rest.Seconds()*float64(c.open))
		c.since = now
	}
	c.open = max(0, c.open+by)
}

func (t *tenantFigures) open() int64 {
	if t.connections == nil {
		return 0
	}
	return t.connections.open
}

// hasConnections makes connections show, none included: adapters that have
// none show no meters of them.
func (m *Meter) hasConnections() {
	if m != nil {
		m.connects.Store(true)
	}
}

// Connected counts a connection of a device of tenant, "" = of one that did
// not say who it is. Each has to be followed by [Meter.Disconnected].
func (m *Meter) Connected(tenant iot.TenantID) { m.connection(tenant, 1) }

// Disconnected takes back what [Meter.Connected] counted.
func (m *Meter) Disconnected(tenant iot.TenantID) { m.connection(tenant, -1) }

func (m *Meter) connection(tenant iot.TenantID, by int64) {
	if m == nil {
		return
	}
	m.hasConnections()
	if tenant == "" {
		m.anonymous.Add(by)
		return
	}
	now := m.now()
	s, t := m.lock(tenant, now)
	defer s.mu.Unlock()
	if t.connections == nil {
		t.connections = &connectionFigures{since: now}
	}
	t.connections.change(now, by)
}

// attempt is an attempt to connect, by its tags.
type attempt struct{ outcome, cipher string }

// Attempted counts an attempt to connect; nil = it succeeded, and tenant is the
// one that the admission named, "" for an anonymous connection. Where it failed
// tenant is what the device claims, which counts only if devices of that tenant
// were admitted of late. cipher is the name of the TLS cipher suite, "" = none.
func (m *Meter) Attempted(tenant iot.TenantID, cipher string, err error) {
	if m == nil {
		return
	}
	m.hasConnections()
	if err != nil && !m.known(tenant) {
		tenant = unknownLabel
	}
	if cipher = strings.ToValidUTF8(cipher, "\uFFFD"); cipher == "" {
		cipher = unknownLabel
	}
	s, t := m.lock(tenant, m.now())
	defer s.mu.Unlock()
	if t.attempts == nil {
		t.attempts = make(map[attempt]uint64)
	}
	t.attempts[attempt{attemptOutcome(err), cipher}]++
}

// attemptOutcome is the tag of how an attempt to connect ended (contract:
// adapters 16). Where both a tenant that is disabled and an adapter that is for
// its devices are forbidden, either is shown as the latter.
func attemptOutcome(err error) string {
	if err == nil {
		return "succeeded"
	}
	for _, row := range [...]struct {
		err error
		tag string
	}{
		{ErrTenantConnections, "tenant-connections-exceeded"},
		{ErrInstanceConnections, "adapter-connections-exceeded"},
		{iot.ErrForbidden, "adapter-disabled"},
		{iot.ErrNotFound, "registration-assertion-failure"},
		{iot.ErrUnauthenticated, "unauthorized"},
		{iot.ErrInvalid, "unauthorized"},
		{iot.ErrQuota, "unauthorized"}, // too many failed attempts
		{iot.ErrUnavailable, "unavailable"},
		{iot.ErrTimeout, "unavailable"},
	} {
		if errors.Is(err, row.err) {
			return row.tag
		}
	}
	return "unknown"
}
