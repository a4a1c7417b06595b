package assertion

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// DefaultLifetime is how long a token is valid (contract: events, 4.1).
	DefaultLifetime = 24 * time.Hour
	// KeySetMaxAge is how long a key set may be kept before it is asked for again.
	KeySetMaxAge = 24 * time.Hour
	// defaultReload bounds how long a key made by another instance goes unnoticed.
	defaultReload = time.Minute
)

// SignerConfig says where keys are kept and what tokens look like. Store, KEK
// and Issuer are required.
type SignerConfig struct {
	Store     KeyStore
	KEK       KEK
	Issuer    string           // claim iss: "//" and the installation's name
	Algorithm Algorithm        // of new keys; default EdDSA
	Lifetime  time.Duration    // of tokens; default DefaultLifetime, at least 1 s
	Reload    time.Duration    // how often stored keys are looked at; default 1 min
	Now       func() time.Time // default time.Now
}

// Signer makes assertions. It creates the first key when none is stored and
// follows keys that another instance made. Safe for concurrent use.
type Signer struct {
	cfg SignerConfig

	mu     sync.Mutex
	active *activeKey
	loaded time.Time // when the store was looked at
}

type activeKey struct {
	kid     string
	alg     Algorithm
	retire  time.Time
	private crypto.Signer
}

// NewSigner checks cfg; the store is not touched before the first call.
func NewSigner(cfg SignerConfig) (*Signer, error) {
	if cfg.Algorithm == "" {
		cfg.Algorithm = EdDSA
	}
	if cfg.Lifetime == 0 {
		cfg.Lifetime = DefaultLifetime
	}
	if cfg.Reload == 0 {
		cfg.Reload = defaultReload
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	switch {
	case cfg.Store == nil || cfg.KEK == nil || cfg.Issuer == "":
		return nil, errors.New("assertion: a signer needs a key store, a key-encryption key and an issuer")
	case signingMethod(cfg.Algorithm) == nil:
		return nil, fmt.Errorf("assertion: unknown algorithm %q: want EdDSA or ES256", cfg.Algorithm)
	case cfg.Lifetime < time.Second:
		return nil, fmt.Errorf("assertion: token life time is %s, want at least 1s", cfg.Lifetime)
	}
	return &Signer{cfg: cfg}, nil
}

// Subject is whom and what a token is about.
type Subject struct {
	Tenant  iot.TenantID
	Device  iot.DeviceID
	Gateway iot.DeviceID // "" = the device acts itself
	Rev     string       // the tenant's feed position the facts were read at
}

// Token is a signed assertion.
type Token struct {
	JWT     string
	Expires time.Time // UTC, whole seconds
}

// Sign vouches for s from now on for the configured life time. It asks the
// store at most once per reload interval. Errors wrap iot.ErrUnavailable
// where the store could not be asked.
func (s *Signer) Sign(ctx context.Context, sub Subject) (Token, error) {
	if sub.Tenant == "" || sub.Device == "" {
		return Token{}, iot.Errorf(iot.ErrInvalid, "assertion: tenant and device are required")
	}
	now := s.cfg.Now().UTC().Truncate(time.Second)
	key, err := s.key(ctx)
	if err != nil {
		return Token{}, err
	}
	claims := &wireClaims{
		Issuer: s.cfg.Issuer, Audience: audience{Audience}, Device: sub.Device, Tenant: sub.Tenant,
		IssuedAt: jwt.NewNumericDate(now), Expires: jwt.NewNumericDate(now.Add(s.cfg.Lifetime)),
		ID: rand.Text(), Rev: sub.Rev,
	}
	if sub.Gateway != "" && sub.Gateway != sub.Device {
		claims.Actor = &actor{Subject: sub.Gateway}
	}
	t := jwt.NewWithClaims(signingMethod(key.alg), claims)
	t.Header["kid"] = key.kid
	signed, err := t.SignedString(key.private)
	if err != nil {
		return Token{}, fmt.Errorf("assertion: sign: %w", err)
	}
	return Token{JWT: signed, Expires: claims.Expires.UTC()}, nil
}

// KeySet returns the public keys that verify what this installation signed
// and that are not retired. It makes the first key if there is none.
func (s *Signer) KeySet(ctx context.Context) (KeySet, error) {
	if _, err := s.key(ctx); err != nil {
		return KeySet{}, err
	}
	keys, err := s.cfg.Store.SigningKeys(ctx)
	if err != nil {
		return KeySet{}, fmt.Errorf("assertion: list keys: %w", err)
	}
	now, set := s.cfg.Now(), KeySet{}
	for _, k := range keys {
		if !retired(k, now) {
			set.Keys = append(set.Keys, k.PublicJWK)
		}
	}
	return set, nil
}

// KeySource lets a [Verifier] in the same process read this signer's keys.
func (s *Signer) KeySource() KeySource {
	return func(ctx context.Context) (KeySet, time.Duration, error) {
		set, err := s.KeySet(ctx)
		return set, KeySetMaxAge, err
	}
}

func signingMethod(alg Algorithm) jwt.SigningMethod {
	switch alg {
	case EdDSA:
		return jwt.SigningMethodEdDSA
	case ES256:
		return jwt.SigningMethodES256
	}
	return nil
}

func retired(k StoredKey, now time.Time) bool {
	return !k.RetireAfter.IsZero() && !now.Before(k.RetireAfter)
}
