package adapters

import (
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Cached counts the answers in memory, expired ones included.
func (a *Admissions) Cached() int { return a.cache.len() }

// Watched counts the auth-ids and addresses that failed attempts are counted for.
func (a *Admissions) Watched() int { return a.auth.Len() + a.address.Len() }

// Indexed counts the answers that notices find.
func (a *Admissions) Indexed() int { return a.follow.index.len() }

// Pretend counts subscriptions that there are not.
func (s *Commands) Pretend(n int64) { s.open.Add(n) }

// LastGateways is what is remembered of what routers were told.
type LastGateways struct{ l lastGateways }

// News reports whether routers have to be told.
func (l *LastGateways) News(tenant iot.TenantID, device, gateway iot.DeviceID, now time.Time) bool {
	return l.l.news(commandKey{tenant, device}, gateway, now)
}

// Len counts the devices.
func (l *LastGateways) Len() int { return len(l.l.recent) + len(l.l.older) }

// Chained returns how many notices the chains of a Presence hold, those that were dropped included.
func (p *Presence) Chained() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.chains {
		n += len(c.list)
	}
	return n
}
