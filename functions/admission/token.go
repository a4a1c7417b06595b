package admission

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// The rules of devices' tokens (contract: adapters, section 2.5).
const (
	tokenAudience = "hono-adapter"   // the token itself names tenant and auth-id
	tokenSkew     = 10 * time.Minute // between the clocks of a device and ours
	tokenLife     = 24 * time.Hour
	maxToken      = 16 << 10 // bytes
	minRSABits    = 2048     // RFC 7518, section 3.3
)

var tokenAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"}

// token is a JWT that is well formed; its signature is checked by signedBy.
type token struct {
	text   string
	parser *jwt.Parser
	claims tokenClaims
}

type tokenClaims struct {
	jwt.RegisteredClaims
	Tenant iot.TenantID `json:"tid"`
}

// token takes tenant and auth-id from a JWT that names them, or else from the
// request, and adds the issuer to the client context.
func (v *visit) token() error {
	t, err := parseToken(v.req.Credential.JWT)
	if err != nil {
		return errBadCredentials
	}
	v.jwt = t
	issuer := t.claims.Issuer
	if slices.Contains(t.claims.Audience, tokenAudience) {
		if t.claims.Tenant == "" || t.claims.Subject == "" {
			return errBadCredentials
		}
		v.q.Tenant, v.q.AuthID = registry.TenantKey{ID: t.claims.Tenant}, t.claims.Subject
		if issuer == "" {
			issuer = t.claims.Subject
		}
	} else if err := v.tenant(); err != nil {
		return err
	}
	if v.q.AuthID == "" {
		return errBadCredentials
	}
	if issuer != "" {
		context := maps.Clone(v.req.Context)
		if context == nil {
			context = map[string]any{}
		}
		context["iss"] = issuer
		v.req.Context = context
	}
	return nil
}

// parseToken checks the form of a JWT without its signature or times.
func parseToken(text string) (*token, error) {
	if len(text) > maxToken {
		return nil, errors.New("token is too long")
	}
	t := &token{text: text, parser: jwt.NewParser(jwt.WithValidMethods(tokenAlgorithms), jwt.WithoutClaimsValidation())}
	parsed, _, err := t.parser.ParseUnverified(text, &t.claims)
	if err != nil {
		return nil, err
	}
	if parsed.Header["typ"] != "JWT" {
		return nil, errors.New("header typ is not JWT")
	}
	if _, critical := parsed.Header["crit"]; critical {
		return nil, errors.New("header crit names what is not understood")
	}
	return t, nil
}

// signedBy reports whether one of the usable keys of c signed the token, which
// is then valid now, and which.
func (t *token) signedBy(c *iot.Credential, now time.Time) (*iot.Secret, bool) {
	if !t.inTime(now) {
		return nil, false
	}
	for s := range registry.Candidates(c, now) {
		key, err := x509.ParsePKIXPublicKey(s.Key)
		if err != nil {
			continue
		}
		_, err = t.parser.ParseWithClaims(t.text, &tokenClaims{}, func(parsed *jwt.Token) (any, error) {
			if !fits(parsed.Method.Alg(), key) {
				return nil, errors.New("the key is not one for this algorithm")
			}
			return key, nil
		})
		if err == nil {
			return s, true
		}
	}
	return nil, false
}

// inTime checks the token's own times; nbf does not count.
func (t *token) inTime(now time.Time) bool {
	if t.claims.IssuedAt == nil || t.claims.ExpiresAt == nil {
		return false
	}
	issued, expires := t.claims.IssuedAt.Time, t.claims.ExpiresAt.Time
	return !issued.After(now.Add(tokenSkew)) && expires.After(issued) &&
		!expires.After(issued.Add(tokenLife+tokenSkew)) && !now.After(t.end())
}

// end is when the identity that the token proves ends.
func (t *token) end() time.Time { return t.claims.ExpiresAt.Add(tokenSkew) }

var curveBits = map[string]int{"ES256": 256, "ES384": 384, "ES512": 521}

// fits reports whether a key is one for an algorithm.
func fits(alg string, key crypto.PublicKey) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return (strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")) && k.N.BitLen() >= minRSABits
	case *ecdsa.PublicKey:
		return curveBits[alg] == k.Curve.Params().BitSize
	}
	return false
}
