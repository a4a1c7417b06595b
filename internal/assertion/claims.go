package assertion

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Audience is the "aud" claim of every assertion.
const Audience = "sluice"

// Claims is what a verified assertion says.
type Claims struct {
	Tenant   iot.TenantID
	Device   iot.DeviceID
	Gateway  iot.DeviceID // the gateway allowed to act, or ""
	IssuedAt time.Time
	Expires  time.Time
	ID       string // jti
	Rev      string // the tenant's feed position when it was issued; compares by bytes
}

// Matches reports whether the assertion is about this device of this tenant.
// An empty tenant or device matches nothing.
func (c Claims) Matches(tenant iot.TenantID, device iot.DeviceID) bool {
	return tenant != "" && device != "" && c.Tenant == tenant && c.Device == device
}

// wireClaims is the JSON form. Its Get methods exist for jwt.Claims; the times
// are checked by the verifier, against the time its caller names.
type wireClaims struct {
	Issuer   string           `json:"iss"`
	Audience audience         `json:"aud"`
	Device   iot.DeviceID     `json:"sub"`
	Tenant   iot.TenantID     `json:"ten"`
	Actor    *actor           `json:"act,omitempty"`
	IssuedAt *jwt.NumericDate `json:"iat"`
	Expires  *jwt.NumericDate `json:"exp"`
	ID       string           `json:"jti"`
	Rev      string           `json:"rev"`
}

// actor is RFC 8693, section 4.1.
type actor struct {
	Subject iot.DeviceID `json:"sub"`
}

// audience is one string when written; a list is read as well (RFC 7519, 4.1.3).
type audience []string

func (a audience) MarshalJSON() ([]byte, error) {
	if len(a) == 1 {
		return json.Marshal(a[0])
	}
	return json.Marshal([]string(a))
}

func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

func (c *wireClaims) GetExpirationTime() (*jwt.NumericDate, error) { return c.Expires, nil }
func (c *wireClaims) GetIssuedAt() (*jwt.NumericDate, error)       { return c.IssuedAt, nil }
func (c *wireClaims) GetNotBefore() (*jwt.NumericDate, error)      { return nil, nil }
func (c *wireClaims) GetIssuer() (string, error)                   { return c.Issuer, nil }
func (c *wireClaims) GetSubject() (string, error)                  { return string(c.Device), nil }
func (c *wireClaims) GetAudience() (jwt.ClaimStrings, error) {
	return jwt.ClaimStrings(c.Audience), nil
}

// claims checks everything but signature and time.
func (c *wireClaims) claims(issuer string) (Claims, error) {
	switch {
	case c.Issuer != issuer:
		return Claims{}, fmt.Errorf("issuer is %q, want %q", c.Issuer, issuer)
	case !slices.Contains(c.Audience, Audience):
		return Claims{}, fmt.Errorf("audience is not %q", Audience)
	case c.Device == "" || c.Tenant == "":
		return Claims{}, fmt.Errorf("claim sub or ten is missing")
	case c.IssuedAt == nil || c.Expires == nil || !c.Expires.After(c.IssuedAt.Time):
		return Claims{}, fmt.Errorf("claims iat and exp are not an interval")
	}
	out := Claims{Tenant: c.Tenant, Device: c.Device, IssuedAt: c.IssuedAt.Time, Expires: c.Expires.Time, ID: c.ID, Rev: c.Rev}
	if c.Actor != nil {
		if c.Actor.Subject == "" {
			return Claims{}, fmt.Errorf("claim act names no gateway")
		}
		out.Gateway = c.Actor.Subject
	}
	return out, nil
}
