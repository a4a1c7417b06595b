package events

import (
	"context"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Fact is something that happened and that its receivers need only take: one
// Go type per fact of the catalogue.
type Fact interface {
	// FactType is the CloudEvent type, such as io.sluice.registry.device.changed.
	FactType() string
	// Tenant is the tenant it is about.
	Tenant() iot.TenantID
	// Time is when it happened, not when it is sent.
	Time() time.Time
	// key is the natural key that the CloudEvent's id is derived from.
	key() []string
}

// Poster brings facts to whom they concern. Posting again does no harm. Safe
// for concurrent use.
type Poster interface {
	// Post returns when every receiver has taken the facts, or with an error
	// when ctx ends or a receiver could not be reached; the others have them.
	Post(ctx context.Context, facts []Fact) error
}

// The types of facts about the registry (contract: events, section 4.2).
const (
	TypeTenantChanged      = "io.sluice.registry.tenant.changed"
	TypeDeviceChanged      = "io.sluice.registry.device.changed"
	TypeCredentialsChanged = "io.sluice.registry.credentials.changed"
	TypeDevicesDeleted     = "io.sluice.registry.devices.deleted"
	TypeDeviceProvisioned  = "io.sluice.device.provisioned"
)

// RegistryChanged is one change of the registry's feed. Its data is Hono's
// notification (contract: messaging, section 14).
type RegistryChanged struct {
	Type            string // one of the first four types above
	TenantID        iot.TenantID
	Sequence        uint64       // dense per tenant, from 1; attribute sequence
	DeviceID        iot.DeviceID // for TypeDeviceChanged and TypeCredentialsChanged
	Change          string       // CREATE, UPDATE or DELETE, for TypeTenantChanged and TypeDeviceChanged
	Enabled         bool         // the same two: effective value after the change, false after a deletion
	InvalidateCache bool         // TypeTenantChanged: its ext member invalidate-cache-on-update; true after a deletion
	At              time.Time
}

// FactType implements [Fact].
func (c RegistryChanged) FactType() string { return c.Type }

// Tenant implements [Fact].
func (c RegistryChanged) Tenant() iot.TenantID { return c.TenantID }

// Time implements [Fact].
func (c RegistryChanged) Time() time.Time { return c.At }

func (c RegistryChanged) key() []string { return []string{string(c.TenantID), Sequence(c.Sequence)} }

// The methods by which a device comes to be registered by itself.
const (
	ByCertificate = "certificate"
	ByGateway     = "gateway"
)

// DeviceProvisioned says that a device was registered by itself. The router
// that takes it sends the event of messaging 12.3.
type DeviceProvisioned struct {
	TenantID  iot.TenantID `json:"tenant-id"`
	DeviceID  iot.DeviceID `json:"device-id"`
	GatewayID iot.DeviceID `json:"gateway-id,omitempty"`
	Method    string       `json:"method"` // ByCertificate or ByGateway
	At        time.Time    `json:"-"`
}

// FactType implements [Fact].
func (DeviceProvisioned) FactType() string { return TypeDeviceProvisioned }

// Tenant implements [Fact].
func (p DeviceProvisioned) Tenant() iot.TenantID { return p.TenantID }

// Time implements [Fact].
func (p DeviceProvisioned) Time() time.Time { return p.At }

func (p DeviceProvisioned) key() []string {
	return []string{string(p.TenantID), string(p.DeviceID)}
}
