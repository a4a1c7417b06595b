package oidc

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// MaxToken is the longest token that is looked at, in bytes: what fits into a
	// SASL frame.
	MaxToken = 16 * 1024
	// Leeway is the clock difference between issuer and verifier that is forgiven.
	Leeway = 30 * time.Second
	// maxSubject bounds claim sub, which OpenID Connect Core limits to 255 characters.
	maxSubject = 255
)

// algorithms are the accepted ones: asymmetric, and none known to be weak.
var algorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// Config says whose tokens are accepted.
type Config struct {
	Issuer   string // claim iss, and where the discovery document is
	Audience string // must be in claim aud
	JWKSURL  string // where the keys are; "" = as the discovery document says
	// Party must be claim azp, where there is one, and there must be one where aud
	// names several (OpenID Connect Core 1.0, section 3.1.3.7); "" = not looked at.
	Party string
	Roots *x509.CertPool // who may certify the issuer's server; nil = those of the system
}

// Verifier verifies tokens of one issuer. Safe for concurrent use.
type Verifier struct {
	keys   *keys
	parser *jwt.Parser
	party  string
}

// New checks the configuration. It asks the issuer for nothing yet.
func New(c Config) (*Verifier, error) {
	if err := checkIssuer(c.Issuer); err != nil {
		return nil, err
	}
	if c.Audience == "" {
		return nil, errors.New("no audience; expected the name under which the issuer knows this installation")
	}
	if c.JWKSURL != "" {
		if err := checkURL(c.JWKSURL, true); err != nil {
			return nil, fmt.Errorf("jwks-url: %w", err)
		}
	}
	return &Verifier{
		keys: newKeys(newFetcher(c)), party: c.Party,
		parser: jwt.NewParser(jwt.WithValidMethods(algorithms), jwt.WithIssuer(c.Issuer), jwt.WithAudience(c.Audience),
			jwt.WithLeeway(Leeway), jwt.WithExpirationRequired(), jwt.WithStrictDecoding()),
	}, nil
}

// Token is what a verified token says.
type Token struct {
	Subject string // claim sub: 1 to 255 bytes of printable UTF-8
	// Expires is claim exp, or the end of the leeway for a token that was accepted
	// after exp.
	Expires time.Time
	Claims  map[string]json.RawMessage // all claims
}

// claims reads the registered claims and keeps all as they are.
type claims struct {
	jwt.RegisteredClaims
	all map[string]json.RawMessage
}

// UnmarshalJSON implements [json.Unmarshaler].
func (c *claims) UnmarshalJSON(b []byte) error {
	if err := json.Unmarshal(b, &c.all); err != nil {
		return err
	}
	return json.Unmarshal(b, &c.RegisteredClaims)
}

// Verify checks a compact JWS. Its errors wrap iot.ErrUnauthenticated, with a text
// that names the fault and not the token, or iot.ErrUnavailable when the keys to
// decide cannot be had now.
func (v *Verifier) Verify(ctx context.Context, token string) (*Token, error) {
	if len(token) > MaxToken {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "token has %d bytes; expected at most %d", len(token), MaxToken)
	}
	var c claims
	_, err := v.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) { return v.key(ctx, t) })
	if errors.Is(err, iot.ErrUnavailable) {
		return nil, iot.Errorf(iot.ErrUnavailable, "the issuer's keys: %s", v.keys.fault())
	}
	if err != nil {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "token: %s", fault(err))
	}
	if !printable(c.Subject) {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "token: sub is missing, longer than %d bytes or not printable", maxSubject)
	}
	if !v.isParty(&c) {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "token: azp is not the party that it was made for")
	}
	t := &Token{Subject: c.Subject, Expires: c.ExpiresAt.Time, Claims: c.all}
	if !time.Now().Before(t.Expires) {
		t.Expires = t.Expires.Add(Leeway)
	}
	return t, nil
}

func (v *Verifier) isParty(c *claims) bool {
	raw, given := c.all["azp"]
	if v.party == "" || !given {
		return v.party == "" || len(c.Audience) == 1
	}
	var azp string
	return json.Unmarshal(raw, &azp) == nil && azp == v.party
}

func (v *Verifier) key(ctx context.Context, t *jwt.Token) (crypto.PublicKey, error) {
	if _, ok := t.Header["crit"]; ok { // RFC 7515, section 4.1.11: none is understood here
		return nil, errCritical
	}
	kid, _ := t.Header["kid"].(string)
	return v.keys.find(ctx, kid, t.Method.Alg())
}

var (
	errCritical   = errors.New("it has critical header parameters that are not known here")
	errUnknownKey = errors.New("it is signed by a key that the issuer does not publish")
)

// fault names what is wrong without quoting the token.
func fault(err error) string {
	for _, known := range []struct {
		err  error
		text string
	}{
		{errCritical, errCritical.Error()},
		{errUnknownKey, errUnknownKey.Error()},
		{jwt.ErrTokenMalformed, "it is not a JSON Web Token"},
		{jwt.ErrTokenExpired, "it has expired"},
		{jwt.ErrTokenNotValidYet, "it is not valid yet (nbf)"},
		{jwt.ErrTokenInvalidIssuer, "iss is not the issuer"},
		{jwt.ErrTokenInvalidAudience, "aud does not name this installation"},
		{jwt.ErrTokenRequiredClaimMissing, "exp, iss or aud is missing"},
		{jwt.ErrTokenSignatureInvalid, "its signature does not verify, or its algorithm is not accepted"},
	} {
		if errors.Is(err, known.err) {
			return known.text
		}
	}
	return "it is not accepted"
}

func printable(s string) bool {
	return s != "" && len(s) <= maxSubject && utf8.ValidString(s) && !slices.ContainsFunc([]rune(s), func(r rune) bool { return !unicode.IsPrint(r) })
}

// IssuerOf returns claim iss of a token that was not verified, for choosing who is
// to verify it; "" if it cannot be read.
func IssuerOf(token string) string {
	var c jwt.RegisteredClaims
	if len(token) > MaxToken {
		return ""
	}
	if _, _, err := jwt.NewParser().ParseUnverified(token, &c); err != nil {
		return ""
	}
	return c.Issuer
}
