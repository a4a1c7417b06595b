package adapters

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// The form of devices' tokens (contract: adapters 2.5).
const (
	maxToken      = 16 << 10         // bytes
	tokenAudience = "hono-adapter"   // the token itself names tenant and auth-id
	tokenSkew     = 10 * time.Minute // between the clocks of a device and ours
)

// IsToken reports whether s has the form of a device's token: a compact JWS
// whose header says typ JWT. What does not may still be a password.
func IsToken(s string) bool {
	_, _, ok := tokenParts(s)
	return ok
}

// tokenParts decodes header and payload; ok only for a compact JWS of typ JWT.
func tokenParts(s string) (header, payload []byte, ok bool) {
	if len(s) > maxToken || strings.Count(s, ".") != 2 {
		return nil, nil, false
	}
	first, rest, _ := strings.Cut(s, ".")
	second, signature, _ := strings.Cut(rest, ".")
	header, err1 := base64.RawURLEncoding.DecodeString(first)
	payload, err2 := base64.RawURLEncoding.DecodeString(second)
	_, err3 := base64.RawURLEncoding.DecodeString(signature)
	if err1 != nil || err2 != nil || err3 != nil || signature == "" {
		return nil, nil, false
	}
	var h struct {
		Type string `json:"typ"`
	}
	if json.Unmarshal(header, &h) != nil || h.Type != "JWT" {
		return nil, nil, false
	}
	return header, payload, true
}

// tokenClaims are what a token says before anybody has checked that it is true.
type tokenClaims struct {
	Audience audience     `json:"aud"`
	Tenant   iot.TenantID `json:"tid"`
	Subject  string       `json:"sub"`
	Expires  float64      `json:"exp"` // Unix time in seconds
}

// audience is a string or a list of them.
type audience []string

// UnmarshalJSON implements [json.Unmarshaler].
func (a *audience) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*a = make(audience, 1)
		return json.Unmarshal(b, &(*a)[0])
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// TokenLogin makes a login of a device's JWT. A token for hono-adapter names
// tenant and auth-id itself; for others they are what the protocol gives, such
// as the client identifier (contract: adapters 2.5). Nothing is verified here:
// what is read says only whom failed attempts count for, and when the token
// ends. Errors are ErrUnauthenticated.
func TokenLogin(jwt string, tenant iot.TenantID, authID string) (Login, error) {
	_, payload, ok := tokenParts(jwt)
	if !ok {
		return Login{}, malformed("want a signed token in compact form with typ JWT")
	}
	var c tokenClaims
	if json.Unmarshal(payload, &c) != nil {
		return Login{}, malformed("the claims of the token cannot be read")
	}
	if slices.Contains(c.Audience, tokenAudience) {
		if tenant, authID = c.Tenant, c.Subject; tenant == "" || authID == "" {
			return Login{}, malformed("a token for hono-adapter has to name tid and sub")
		}
	}
	switch {
	case tenant == "" || authID == "":
		return Login{}, malformed("neither the token nor the client says which tenant and device")
	case !isText(string(tenant)) || !isText(authID):
		return Login{}, malformed("tenant or auth-id is not UTF-8, or has control characters")
	case c.Expires <= 0 || c.Expires > math.MaxInt32*1000.0:
		return Login{}, malformed("the token does not say when it expires")
	}
	return Login{
		Tenant:     events.TenantRef{ID: tenant},
		Credential: &events.Credential{Type: iot.RPK, AuthID: authID, JWT: jwt},
		Expires:    time.Unix(int64(c.Expires), 0).Add(tokenSkew),
	}, nil
}
