package events

import (
	"encoding/json"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// TypeAdmit asks for everything an adapter must know before it lets a device
// in (contract: events, section 4.1).
const TypeAdmit = "io.sluice.admission.admit"

// Admit is one device at the door of one adapter: the function verifies the
// credential, reads tenant, credentials and registration in one snapshot and
// signs the assertion. It carries a secret: only by direct call over TLS or in-process.
type Admit struct {
	Adapter    string         `json:"adapter"` // adapter type, such as hono-http
	TenantRef  TenantRef      `json:"tenant"`
	Credential *Credential    `json:"credential,omitempty"` // nil = the tenant lets this adapter work without
	Context    map[string]any `json:"context,omitempty"`    // client context, matched against the credentials' ext
	DeviceID   iot.DeviceID   `json:"device-id,omitempty"`  // the device acted for, where it differs from the credential's
}

// TenantRef names a tenant in one of three ways: one member is set, but with a
// certificate none need be, and SNI may tell apart the tenants that SubjectDN finds.
type TenantRef struct {
	ID        iot.TenantID `json:"id,omitempty"`
	SubjectDN string       `json:"subject-dn,omitempty"` // RFC 2253
	SNI       string       `json:"sni,omitempty"`
}

// Credential is what the device proves itself with.
type Credential struct {
	Type        string `json:"type"` // hashed-password, x509-cert, psk, rpk, ...
	AuthID      string `json:"auth-id"`
	Password    string `json:"password,omitempty"`
	Certificate []byte `json:"certificate,omitempty"` // DER
	JWT         string `json:"jwt,omitempty"`
	SecretID    string `json:"secret-id,omitempty"` // re-check of the secret it came in with
}

// EventType implements [Request].
func (Admit) EventType() string { return TypeAdmit }

// Tenant implements [Request].
func (a Admit) Tenant() iot.TenantID { return a.TenantRef.ID }

// ReplyType implements [RequestOf].
func (Admit) ReplyType() *Admitted { return nil }

// Admitted is the reply to [Admit].
type Admitted struct {
	TenantObject     TenantObject `json:"tenant"`
	DeviceID         iot.DeviceID `json:"device-id"`
	GatewayID        iot.DeviceID `json:"gateway-id,omitempty"`
	Registration     Registration `json:"registration"`
	Assertion        string       `json:"assertion"` // JWT
	AssertionExpires time.Time    `json:"assertion-expires"`
	SecretID         string       `json:"secret-id,omitempty"`
	PSK              []byte       `json:"psk,omitempty"`

	CacheFor time.Duration `json:"-"` // maxage of the CloudEvent
}

// MaxAge implements [Reply].
func (a *Admitted) MaxAge() time.Duration { return a.CacheFor }

// TenantObject is the tenant as the Tenant API shows it (contract: messaging,
// section 3.1), as far as adapters act on it; the rest is kept in Raw by the
// tenant function only.
type TenantObject struct {
	ID                 iot.TenantID      `json:"tenant-id"`
	Enabled            bool              `json:"enabled"`
	Adapters           []TenantAdapter   `json:"adapters,omitempty"` // absent = every adapter enabled with defaults
	Defaults           map[string]any    `json:"defaults,omitempty"`
	MinimumMessageSize int               `json:"minimum-message-size,omitempty"`
	ResourceLimits     json.RawMessage   `json:"resource-limits,omitempty"`
	Tracing            json.RawMessage   `json:"tracing,omitempty"`
	TrustedCA          []json.RawMessage `json:"trusted-ca,omitempty"`
	Ext                map[string]any    `json:"ext,omitempty"`
}

// TenantAdapter configures one adapter type for a tenant.
type TenantAdapter struct {
	Type                         string         `json:"type"`
	Enabled                      bool           `json:"enabled"`
	DeviceAuthenticationRequired *bool          `json:"device-authentication-required,omitempty"` // default true
	Ext                          map[string]any `json:"ext,omitempty"`
}

// Registration is the registration assertion's content (contract: messaging, section 4).
type Registration struct {
	DeviceID                iot.DeviceID    `json:"device-id"`
	Via                     []iot.DeviceID  `json:"via,omitempty"` // via plus resolved viaGroups, in order, no duplicates
	Defaults                map[string]any  `json:"defaults,omitempty"`
	DownstreamMessageMapper string          `json:"downstream-message-mapper,omitempty"`
	UpstreamMessageMapper   string          `json:"upstream-message-mapper,omitempty"`
	CommandEndpoint         json.RawMessage `json:"command-endpoint,omitempty"`
}
