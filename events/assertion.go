package events

import (
	"encoding/json"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// The types about registration assertions (contract: events, section 4.1).
const (
	TypeAssertionSign   = "io.sluice.assertion.sign"
	TypeAssertionKeys   = "io.sluice.assertion.keys"
	TypeAssertionRotate = "io.sluice.assertion.rotate"
)

// AssertionSign asks for a token. It is never reachable from outside the
// process that links the function.
type AssertionSign struct {
	TenantID  iot.TenantID   `json:"tenant-id"`
	DeviceID  iot.DeviceID   `json:"device-id"`
	GatewayID iot.DeviceID   `json:"gateway-id,omitempty"`
	Defaults  map[string]any `json:"defaults,omitempty"`
	Rev       string         `json:"rev,omitempty"` // the tenant's feed position
}

// EventType implements [Request].
func (AssertionSign) EventType() string { return TypeAssertionSign }

// Tenant implements [Request].
func (s AssertionSign) Tenant() iot.TenantID { return s.TenantID }

// ReplyType implements [RequestOf].
func (AssertionSign) ReplyType() *AssertionSigned { return nil }

func (s AssertionSign) subject() iot.DeviceID { return s.DeviceID }

// AssertionSigned is a signed token; it is not to be cached by a caller.
type AssertionSigned struct {
	Assertion string    `json:"assertion"` // JWT
	Expires   time.Time `json:"expires"`
}

// MaxAge implements [Reply].
func (*AssertionSigned) MaxAge() time.Duration { return 0 }

// AssertionKeys asks for the public keys that verify tokens.
type AssertionKeys struct{}

// EventType implements [Request].
func (AssertionKeys) EventType() string { return TypeAssertionKeys }

// Tenant implements [Request]: the keys are the installation's.
func (AssertionKeys) Tenant() iot.TenantID { return "" }

// ReplyType implements [RequestOf].
func (AssertionKeys) ReplyType() *KeySet { return nil }

func (AssertionKeys) noData() {}

// KeySet is a JWK set (RFC 7517, section 5).
type KeySet struct {
	Keys     []json.RawMessage `json:"keys"`
	CacheFor time.Duration     `json:"-"`
}

// MaxAge implements [Reply].
func (s *KeySet) MaxAge() time.Duration     { return s.CacheFor }
func (s *KeySet) setMaxAge(d time.Duration) { s.CacheFor = d }

// AssertionRotate asks for a new signing key; once per UTC day of At, however
// often it comes. Keys in use before verify for the overlap more.
type AssertionRotate struct {
	OverlapSeconds int       `json:"overlap-seconds"`
	At             time.Time `json:"-"` // attribute time; zero = now
}

// EventType implements [Request].
func (AssertionRotate) EventType() string { return TypeAssertionRotate }

// Tenant implements [Request]: the keys are the installation's.
func (AssertionRotate) Tenant() iot.TenantID { return "" }

// ReplyType implements [RequestOf].
func (AssertionRotate) ReplyType() *AssertionRotated { return nil }

func (r AssertionRotate) eventTime() time.Time { return r.At }
func (r AssertionRotate) withTime(t time.Time) Request {
	r.At = t
	return r
}

// AssertionRotated names the key that signs now.
type AssertionRotated struct {
	KID string `json:"kid"`
}

// MaxAge implements [Reply].
func (*AssertionRotated) MaxAge() time.Duration { return 0 }
