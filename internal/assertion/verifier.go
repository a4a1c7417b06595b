package assertion

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Defaults and limits of a [Verifier].
const (
	// MaxTokenBytes is the longest token that is looked at. A token with the
	// longest identifiers of the contract stays below it.
	MaxTokenBytes = 4096
	// Leeway is the clock difference between signer and verifier that is forgiven.
	Leeway = 10 * time.Second

	defaultCacheSize = 65_536
)

// VerifierConfig says whose tokens are accepted. Issuer and Keys are required.
type VerifierConfig struct {
	Issuer    string        // claim iss
	Keys      KeySource     // where public keys come from
	CacheSize int           // verified tokens remembered; default 65,536
	MaxVoids  int           // devices remembered as voided one by one; default 100,000
	KeyWait   time.Duration // how long after keys were asked for Verify waits for them; default 5 s: a function may have to start
	KeyRetry  time.Duration // shortest time between two questions for keys; default 5 s, after a failure 1 s
}

// Verifier checks assertions and remembers those it verified. The second look
// at a token is a look-up without allocation. Safe for concurrent use.
type Verifier struct {
	cfg    VerifierConfig
	keys   *keyring
	cache  *cache
	voids  *voids
	parser *jwt.Parser
	maxAge atomic.Int64 // time.Duration; 0 = until exp
	used   atomic.Pointer[chan struct{}]
	closed sync.Once
}

// NewVerifier returns a verifier; keys are asked for when the first token comes
// or by Refresh.
func NewVerifier(cfg VerifierConfig) *Verifier {
	if cfg.CacheSize <= 0 {
		cfg.CacheSize = defaultCacheSize
	}
	if cfg.KeyWait <= 0 {
		cfg.KeyWait = 5 * time.Second
	}
	if cfg.KeyRetry <= 0 {
		cfg.KeyRetry = 5 * time.Second
	}
	v := &Verifier{
		cfg:   cfg,
		cache: newCache(cfg.CacheSize),
		voids: newVoids(cfg.MaxVoids),
		parser: jwt.NewParser(jwt.WithoutClaimsValidation(), jwt.WithStrictDecoding(),
			jwt.WithValidMethods([]string{string(EdDSA), string(ES256)})),
	}
	v.keys = newKeyring(cfg.Keys, cfg.KeyWait, cfg.KeyRetry, v.cache.keepKeys)
	return v
}

// Verify checks signature, issuer, audience, life time and voiding of a
// compact JWS and returns what it says. Refusals wrap iot.ErrForbidden with a
// text that names the fault but not the token; iot.ErrUnavailable says that
// the keys to decide could not be had within KeyWait. It keeps no reference to
// token.
func (v *Verifier) Verify(token []byte, now time.Time) (Claims, error) {
	if c := v.used.Load(); c != nil && v.used.CompareAndSwap(c, nil) {
		close(*c)
	}
	if e := v.cache.get(token); e != nil {
		return v.admit(e, token, now)
	}
	if len(token) > MaxTokenBytes {
		return Claims{}, iot.Errorf(iot.ErrForbidden, "assertion has %d bytes, at most %d are accepted", len(token), MaxTokenBytes)
	}
	e, err := v.parse(string(token), now)
	if err != nil {
		return Claims{}, err
	}
	c, err := v.admit(e, token, now)
	if err == nil {
		v.cache.put(string(token), e, now)
	}
	return c, err
}

// admit decides on a token whose signature is known to be good.
func (v *Verifier) admit(e *entry, token []byte, now time.Time) (Claims, error) {
	c := &e.claims
	switch maxAge := time.Duration(v.maxAge.Load()); {
	case now.After(c.Expires.Add(Leeway)):
		v.cache.drop(token)
		return Claims{}, iot.Errorf(iot.ErrForbidden, "assertion has expired")
	case now.Before(c.IssuedAt.Add(-Leeway)):
		return Claims{}, iot.Errorf(iot.ErrForbidden, "assertion is from the future: check the clocks")
	case maxAge > 0 && now.After(c.IssuedAt.Add(maxAge+Leeway)):
		return Claims{}, iot.Errorf(iot.ErrForbidden, "assertion is older than %s and registry changes cannot be followed", maxAge)
	}
	if epoch := v.voids.epoch.Load(); e.checked.Load() != epoch {
		if v.voids.covers(c) {
			v.cache.drop(token)
			return Claims{}, iot.Errorf(iot.ErrForbidden, "assertion is void: the registry has changed since")
		}
		e.checked.Store(epoch)
	}
	return *c, nil
}

// parse verifies a token seen for the first time.
func (v *Verifier) parse(token string, now time.Time) (*entry, error) {
	var w wireClaims
	var kid string
	_, err := v.parser.ParseWithClaims(token, &w, func(t *jwt.Token) (any, error) {
		kid, _ = t.Header["kid"].(string)
		if kid == "" {
			return nil, errors.New("key id is missing")
		}
		pub, err := v.keys.get(kid, now)
		if err != nil {
			return nil, err
		}
		if t.Method.Alg() != string(pub.alg) {
			return nil, fmt.Errorf("algorithm %s is not the key's", t.Method.Alg())
		}
		return pub.key, nil
	})
	if errors.Is(err, iot.ErrUnavailable) {
		return nil, iot.Errorf(iot.ErrUnavailable, "keys to verify assertions are not available")
	}
	if err != nil {
		return nil, iot.Errorf(iot.ErrForbidden, "assertion is not valid: %s", fault(err))
	}
	c, err := w.claims(v.cfg.Issuer)
	if err != nil {
		return nil, iot.Errorf(iot.ErrForbidden, "assertion is not valid: %s", err)
	}
	e := &entry{claims: c, kid: kid}
	e.checked.Store(v.voids.epoch.Load() - 1) // not yet checked
	return e, nil
}

// fault names what is wrong with a token without quoting it.
func fault(err error) string {
	switch {
	case errors.Is(err, jwt.ErrTokenMalformed):
		return "not a JSON Web Token"
	case errors.Is(err, errUnknownKey):
		return "signed by an unknown key"
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return "signature does not verify"
	}
	return "key or algorithm not accepted"
}

// Void ends at once every token of the tenant that concerns device, as its
// subject or as the acting gateway, and was issued at a feed position before
// rev; with an empty device every token of the tenant. now is when; it decides
// only how long the void itself is remembered.
func (v *Verifier) Void(tenant iot.TenantID, device iot.DeviceID, rev string, now time.Time) {
	v.voids.add(tenant, device, rev, now)
}

// LimitAge makes tokens end d after they were issued, whatever their exp says,
// until it is called again; 0 lifts the limit. A router that cannot follow the
// registry's changes sets 300 s (contract: events, 4.1).
func (v *Verifier) LimitAge(d time.Duration) { v.maxAge.Store(int64(max(d, 0))) }

// NextUse returns a channel that is closed when Verify is called next: who
// follows the registry need ask only while tokens are in use.
func (v *Verifier) NextUse() <-chan struct{} {
	c := make(chan struct{})
	for {
		if there := v.used.Load(); there != nil {
			return *there
		}
		if v.used.CompareAndSwap(nil, &c) {
			return c
		}
	}
}

// Refresh asks for the keys now, so that the first token need not wait.
func (v *Verifier) Refresh(ctx context.Context) error { return v.keys.refresh(ctx, time.Now()) }

// Close ends questions for keys in flight and waits for them.
func (v *Verifier) Close() { v.closed.Do(v.keys.close) }
