package assertion_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/assertion"
)

const issuer = "//sluice.test"

// memoryKeys is a KeyStore without a database.
type memoryKeys struct {
	mu   sync.Mutex
	keys []assertion.StoredKey
	err  error
}

func (m *memoryKeys) SigningKeys(context.Context) ([]assertion.StoredKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.keys), m.err
}

func (m *memoryKeys) PutSigningKey(_ context.Context, k assertion.StoredKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	if i := slices.IndexFunc(m.keys, func(o assertion.StoredKey) bool { return o.KID == k.KID }); i >= 0 {
		m.keys[i] = k
		return nil
	}
	m.keys = append(m.keys, k)
	return nil
}

func (m *memoryKeys) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newKEK(t testing.TB) assertion.KEK {
	t.Helper()
	k, err := assertion.NewKEK(make([]byte, assertion.KEKSize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newSigner(t testing.TB, store assertion.KeyStore, c *clock, alg assertion.Algorithm) *assertion.Signer {
	t.Helper()
	s, err := assertion.NewSigner(assertion.SignerConfig{Store: store, KEK: newKEK(t), Issuer: issuer, Algorithm: alg, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newVerifier(t testing.TB, cfg assertion.VerifierConfig) *assertion.Verifier {
	t.Helper()
	cfg.Issuer = issuer
	v := assertion.NewVerifier(cfg)
	t.Cleanup(v.Close)
	return v
}

func sign(t testing.TB, s *assertion.Signer, sub assertion.Subject) []byte {
	t.Helper()
	tok, err := s.Sign(t.Context(), sub)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(tok.JWT)
}
