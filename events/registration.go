package events

import (
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// TypeRegistrationAssert asks whether a device may act, by itself or through a
// gateway (contract: events 4.1, messaging 4).
const TypeRegistrationAssert = "io.sluice.registration.assert"

// RegistrationAssert names the device; the tenant is its real id, never an alias.
type RegistrationAssert struct {
	TenantID  iot.TenantID `json:"-"` // attribute tenantid
	DeviceID  iot.DeviceID `json:"device-id"`
	GatewayID iot.DeviceID `json:"gateway-id,omitempty"`
}

// EventType implements [Request].
func (RegistrationAssert) EventType() string { return TypeRegistrationAssert }

// Tenant implements [Request].
func (r RegistrationAssert) Tenant() iot.TenantID { return r.TenantID }

// ReplyType implements [RequestOf].
func (RegistrationAssert) ReplyType() *RegistrationAsserted { return nil }

func (r RegistrationAssert) subject() iot.DeviceID { return r.DeviceID }
func (r RegistrationAssert) withTenant(t iot.TenantID) Request {
	r.TenantID = t
	return r
}

// RegistrationAsserted is the registration with the token that vouches for it.
type RegistrationAsserted struct {
	Registration
	Assertion        string        `json:"assertion"` // JWT
	AssertionExpires time.Time     `json:"assertion-expires"`
	CacheFor         time.Duration `json:"-"`
}

// MaxAge implements [Reply].
func (r *RegistrationAsserted) MaxAge() time.Duration     { return r.CacheFor }
func (r *RegistrationAsserted) setMaxAge(d time.Duration) { r.CacheFor = d }
