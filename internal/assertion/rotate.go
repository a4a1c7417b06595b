package assertion

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// key returns the key to sign with, making the first one if none is stored.
func (s *Signer) key(ctx context.Context) (*activeKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	usable := s.active != nil && (s.active.retire.IsZero() || now.Before(s.active.retire))
	if usable && now.Sub(s.loaded) < s.cfg.Reload {
		return s.active, nil
	}
	if err := s.load(ctx, now); err != nil {
		if usable { // a store that is down stops no renewals
			return s.active, nil
		}
		return nil, err
	}
	return s.active, nil
}

// Ready returns nil where Sign has a key. It makes the first one if none is stored.
func (s *Signer) Ready(ctx context.Context) error {
	_, err := s.key(ctx)
	return err
}

// load looks at the stored keys; the caller holds s.mu.
func (s *Signer) load(ctx context.Context, now time.Time) error {
	keys, err := s.cfg.Store.SigningKeys(ctx)
	if err != nil {
		return fmt.Errorf("assertion: list keys: %w", err)
	}
	newest := newestKey(keys, now)
	if newest == nil {
		k, err := s.generate(ctx, "f", now)
		if err != nil {
			return err
		}
		newest = &k
	}
	if s.active == nil || s.active.kid != newest.KID {
		private, err := s.open(ctx, *newest)
		if err != nil {
			return err
		}
		s.active = &activeKey{kid: newest.KID, alg: newest.Algorithm, private: private}
	}
	s.active = &activeKey{kid: s.active.kid, alg: s.active.alg, private: s.active.private, retire: newest.RetireAfter}
	s.loaded = now
	return nil
}

// newestKey returns the key that signs at now: all instances choose the same.
func newestKey(keys []StoredKey, now time.Time) *StoredKey {
	usable := slices.DeleteFunc(slices.Clone(keys), func(k StoredKey) bool {
		return retired(k, now) || now.Before(k.NotBefore) || len(k.Wrapped) == 0
	})
	if len(usable) == 0 {
		return nil
	}
	k := slices.MaxFunc(usable, func(a, b StoredKey) int {
		return cmp.Or(a.NotBefore.Compare(b.NotBefore), strings.Compare(a.KID, b.KID))
	})
	return &k
}

// Rotate makes a new key and signs with it from now on. Older keys verify for
// overlap more and are then wiped; with an overlap shorter than the life time
// of tokens the youngest tokens die early, with 0 at once. A second call on
// the same UTC day of at returns the key of the first: a schedule may fire
// twice. So does one that comes late, of a day before that of the newest key,
// and it changes nothing. A zero at is now.
func (s *Signer) Rotate(ctx context.Context, overlap time.Duration, at time.Time) (kid string, err error) {
	if overlap < 0 {
		return "", iot.Errorf(iot.ErrInvalid, "overlap is %s, want 0 or more", overlap)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now().UTC()
	keys, err := s.cfg.Store.SigningKeys(ctx)
	if err != nil {
		return "", fmt.Errorf("assertion: list keys: %w", err)
	}
	if at.IsZero() {
		at = now
	}
	origin := "r" + at.UTC().Format("20060102")
	i := slices.IndexFunc(keys, func(k StoredKey) bool { return strings.HasPrefix(k.KID, origin+"-") })
	if i >= 0 {
		kid = keys[i].KID
		if newest := newestKey(keys, now); newest != nil && newest.KID != kid && newest.NotBefore.After(keys[i].NotBefore) {
			return kid, nil
		}
	} else {
		k, err := s.generate(ctx, origin, now)
		if err != nil {
			return "", err
		}
		kid = k.KID
	}
	for _, k := range keys {
		if k.KID == kid {
			continue
		}
		if err := s.retire(ctx, k, now, now.Add(overlap)); err != nil {
			return "", err
		}
	}
	s.loaded = time.Time{} // the next Sign looks again
	s.active = nil
	return kid, nil
}

// RotateDue rotates when the key that signs is older than age, and reports
// whether it did: what a process calls once in a while. However small age is, it
// does so once on a UTC day, because [Signer.Rotate] does.
func (s *Signer) RotateDue(ctx context.Context, age, overlap time.Duration) (rotated bool, err error) {
	now := s.cfg.Now().UTC()
	keys, err := s.cfg.Store.SigningKeys(ctx)
	if err != nil {
		return false, fmt.Errorf("assertion: list keys: %w", err)
	}
	newest := newestKey(keys, now)
	if newest == nil || now.Sub(newest.Created) < age {
		return false, nil
	}
	kid, err := s.Rotate(ctx, overlap, now)
	return err == nil && kid != newest.KID, err
}

// retire sets the end of k, never later than it was, and wipes what has ended.
func (s *Signer) retire(ctx context.Context, k StoredKey, now, end time.Time) error {
	changed := false
	if k.RetireAfter.IsZero() || end.Before(k.RetireAfter) {
		k.RetireAfter, changed = end, true
	}
	if retired(k, now) && len(k.Wrapped) > 0 {
		k.Wrapped, changed = nil, true
	}
	if !changed {
		return nil
	}
	if err := s.cfg.Store.PutSigningKey(ctx, k); err != nil {
		return fmt.Errorf("assertion: retire key %s: %w", k.KID, err)
	}
	return nil
}

// generate makes and stores a key whose id starts with origin.
func (s *Signer) generate(ctx context.Context, origin string, now time.Time) (StoredKey, error) {
	private, err := newPrivateKey(s.cfg.Algorithm)
	if err != nil {
		return StoredKey{}, err
	}
	k := StoredKey{
		KID: origin + "-" + rand.Text()[:10], Algorithm: s.cfg.Algorithm,
		NotBefore: now.UTC(), Created: now.UTC(),
	}
	if k.PublicJWK, err = marshalJWK(k.KID, k.Algorithm, private.Public()); err != nil {
		return StoredKey{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return StoredKey{}, fmt.Errorf("assertion: encode key: %w", err)
	}
	if k.Wrapped, err = s.cfg.KEK.Wrap(ctx, der, label(k)); err != nil {
		return StoredKey{}, fmt.Errorf("assertion: seal key: %w", err)
	}
	if err := s.cfg.Store.PutSigningKey(ctx, k); err != nil {
		return StoredKey{}, fmt.Errorf("assertion: store key: %w", err)
	}
	return k, nil
}

// open unseals the private key of k.
func (s *Signer) open(ctx context.Context, k StoredKey) (crypto.Signer, error) {
	der, err := s.cfg.KEK.Unwrap(ctx, k.Wrapped, label(k))
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", k.KID, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("assertion: key %s: not a PKCS #8 key", k.KID)
	}
	switch private := parsed.(type) {
	case ed25519.PrivateKey:
		if k.Algorithm == EdDSA {
			return private, nil
		}
	case *ecdsa.PrivateKey:
		if k.Algorithm == ES256 && private.Curve == elliptic.P256() {
			return private, nil
		}
	}
	return nil, fmt.Errorf("assertion: key %s: a %T does not sign with %s", k.KID, parsed, k.Algorithm)
}

func newPrivateKey(alg Algorithm) (crypto.Signer, error) {
	if alg == ES256 {
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	return private, err
}

// label binds a sealed key to its id and algorithm.
func label(k StoredKey) []byte {
	return []byte("sluice assertion key " + string(k.Algorithm) + " " + k.KID)
}
