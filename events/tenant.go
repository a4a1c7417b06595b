package events

import (
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// TypeTenantGet asks for a tenant (contract: events 4.1, messaging 3).
const TypeTenantGet = "io.sluice.tenant.get"

// TenantGet names a tenant by one of its members; ID wins where both are set.
type TenantGet struct {
	ID        iot.TenantID `json:"tenant-id,omitempty"`  // or an alias
	SubjectDN string       `json:"subject-dn,omitempty"` // RFC 2253, of a trust anchor
}

// EventType implements [Request].
func (TenantGet) EventType() string { return TypeTenantGet }

// Tenant implements [Request]; what it returns may be an alias.
func (g TenantGet) Tenant() iot.TenantID { return g.ID }

// ReplyType implements [RequestOf].
func (TenantGet) ReplyType() *TenantGot { return nil }

func (TenantGet) refersToTenant() {}

// TenantGot is the tenant, enabled or not: who asks has to look.
type TenantGot struct {
	TenantObject
	CacheFor time.Duration `json:"-"`
}

// MaxAge implements [Reply].
func (g *TenantGot) MaxAge() time.Duration     { return g.CacheFor }
func (g *TenantGot) setMaxAge(d time.Duration) { g.CacheFor = d }
func (g *TenantGot) tenantID() iot.TenantID    { return g.ID }
