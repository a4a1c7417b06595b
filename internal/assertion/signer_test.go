package assertion_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
)

func TestSignAndVerify(t *testing.T) {
	for _, alg := range []assertion.Algorithm{assertion.EdDSA, assertion.ES256} {
		t.Run(string(alg), func(t *testing.T) {
			c := newClock()
			s := newSigner(t, &memoryKeys{}, c, alg)
			tok, err := s.Sign(t.Context(), assertion.Subject{Tenant: "DEMO", Device: "4711", Gateway: "gw-1", Rev: "0042"})
			if err != nil {
				t.Fatal(err)
			}
			if want := c.Now().Add(24 * time.Hour); !tok.Expires.Equal(want) {
				t.Errorf("expires %s, want %s", tok.Expires, want)
			}
			v := newVerifier(t, assertion.VerifierConfig{Keys: s.KeySource()})
			got, err := v.Verify([]byte(tok.JWT), c.Now())
			if err != nil {
				t.Fatal(err)
			}
			if got.Tenant != "DEMO" || got.Device != "4711" || got.Gateway != "gw-1" || got.Rev != "0042" || got.ID == "" {
				t.Errorf("got %+v", got)
			}
			if !got.Matches("DEMO", "4711") || got.Matches("DEMO", "4712") || got.Matches("OTHER", "4711") || got.Matches("DEMO", "gw-1") || got.Matches("", "") {
				t.Error("Matches decides wrongly")
			}
		})
	}
}

func TestClaimNamesAreTheContract(t *testing.T) {
	c := newClock()
	tok := sign(t, newSigner(t, &memoryKeys{}, c, ""), assertion.Subject{Tenant: "T", Device: "D", Gateway: "G", Rev: "7"})
	parts := strings.Split(string(tok), ".")
	header, claims := map[string]any{}, map[string]any{}
	for i, into := range []*map[string]any{&header, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, into); err != nil {
			t.Fatal(err)
		}
	}
	if header["alg"] != "EdDSA" || header["typ"] != "JWT" || header["kid"] == "" {
		t.Errorf("header %v", header)
	}
	act, _ := claims["act"].(map[string]any)
	if claims["iss"] != issuer || claims["aud"] != "sluice" || claims["sub"] != "D" || claims["ten"] != "T" || act["sub"] != "G" || claims["rev"] != "7" {
		t.Errorf("claims %v", claims)
	}
	if claims["exp"].(float64)-claims["iat"].(float64) != 86400 || claims["jti"] == "" {
		t.Errorf("claims %v", claims)
	}
}

func TestASecondInstanceSignsWithTheStoredKey(t *testing.T) {
	c, store := newClock(), &memoryKeys{}
	one, two := newSigner(t, store, c, ""), newSigner(t, store, c, "")
	v := newVerifier(t, assertion.VerifierConfig{Keys: one.KeySource()})
	for _, s := range []*assertion.Signer{one, two} {
		if _, err := v.Verify(sign(t, s, assertion.Subject{Tenant: "T", Device: "D"}), c.Now()); err != nil {
			t.Error(err)
		}
	}
	if len(store.keys) != 1 {
		t.Errorf("%d keys stored, want 1", len(store.keys))
	}
}

func TestRotate(t *testing.T) {
	c, store := newClock(), &memoryKeys{}
	s := newSigner(t, store, c, "")
	old := sign(t, s, assertion.Subject{Tenant: "T", Device: "D"})
	v := newVerifier(t, assertion.VerifierConfig{Keys: s.KeySource()})
	if _, err := v.Verify(old, c.Now()); err != nil {
		t.Fatal(err)
	}
	kid, err := s.Rotate(t.Context(), time.Hour, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Rotate(t.Context(), time.Hour, time.Time{})
	if err != nil || again != kid {
		t.Errorf("the second rotation of the day gave %q, %v; want %q", again, err, kid)
	}
	c.add(10 * time.Second) // past the pause between two questions for keys
	young := sign(t, s, assertion.Subject{Tenant: "T", Device: "D"})
	for name, tok := range map[string][]byte{"old": old, "new": young} {
		if _, err := v.Verify(tok, c.Now()); err != nil {
			t.Errorf("%s token within the overlap: %v", name, err)
		}
	}
	c.add(2 * time.Hour)
	set, err := s.KeySet(t.Context())
	if err != nil || len(set.Keys) != 1 {
		t.Fatalf("%d keys after the overlap, %v; want 1", len(set.Keys), err)
	}
	if err := v.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(old, c.Now()); !errors.Is(err, iot.ErrForbidden) {
		t.Errorf("a token of a retired key: %v", err)
	}
	c.add(24 * time.Hour)
	if _, err := s.Rotate(t.Context(), time.Hour, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if k := store.keys[0]; len(k.Wrapped) != 0 {
		t.Error("the private part of a retired key is still stored")
	}
}

func TestAStoreThatIsDownStopsNoRenewals(t *testing.T) {
	c, store := newClock(), &memoryKeys{}
	s := newSigner(t, store, c, "")
	sign(t, s, assertion.Subject{Tenant: "T", Device: "D"})
	store.fail(iot.ErrUnavailable)
	c.add(time.Hour)
	sign(t, s, assertion.Subject{Tenant: "T", Device: "D"})
	fresh := newSigner(t, store, c, "")
	if _, err := fresh.Sign(t.Context(), assertion.Subject{Tenant: "T", Device: "D"}); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func TestAnotherKEKOpensNothing(t *testing.T) {
	c, store := newClock(), &memoryKeys{}
	sign(t, newSigner(t, store, c, ""), assertion.Subject{Tenant: "T", Device: "D"})
	key := make([]byte, assertion.KEKSize)
	key[0] = 1
	other, _ := assertion.NewKEK(key)
	s, _ := assertion.NewSigner(assertion.SignerConfig{Store: store, KEK: other, Issuer: issuer, Now: c.Now})
	if _, err := s.Sign(t.Context(), assertion.Subject{Tenant: "T", Device: "D"}); err == nil || !strings.Contains(err.Error(), "key-encryption key") {
		t.Errorf("got %v", err)
	}
	if s.Ready(t.Context()) == nil {
		t.Error("is ready to sign")
	}
}

func TestNewSignerRefuses(t *testing.T) {
	good := assertion.SignerConfig{Store: &memoryKeys{}, KEK: newKEK(t), Issuer: issuer}
	for name, change := range map[string]func(*assertion.SignerConfig){
		"no store":          func(c *assertion.SignerConfig) { c.Store = nil },
		"no KEK":            func(c *assertion.SignerConfig) { c.KEK = nil },
		"no issuer":         func(c *assertion.SignerConfig) { c.Issuer = "" },
		"unknown algorithm": func(c *assertion.SignerConfig) { c.Algorithm = "none" },
		"short life":        func(c *assertion.SignerConfig) { c.Lifetime = time.Millisecond },
	} {
		cfg := good
		change(&cfg)
		if _, err := assertion.NewSigner(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	s, err := assertion.NewSigner(good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sign(t.Context(), assertion.Subject{Tenant: "T"}); !errors.Is(err, iot.ErrInvalid) {
		t.Errorf("no device: %v", err)
	}
	if _, err := s.Rotate(t.Context(), -1, time.Time{}); !errors.Is(err, iot.ErrInvalid) {
		t.Errorf("negative overlap: %v", err)
	}
}

func TestFileKEK(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "assertion.kek")
	one, err := assertion.FileKEK(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	two, err := assertion.FileKEK(path)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := one.Wrap(t.Context(), []byte("secret"), []byte("label"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := two.Unwrap(t.Context(), sealed, []byte("label")); err != nil || string(got) != "secret" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := two.Unwrap(t.Context(), sealed, []byte("other")); err == nil {
		t.Error("a key moved under another label opens")
	}
	for n := range sealed {
		if _, err := two.Unwrap(t.Context(), sealed[:n], []byte("label")); err == nil {
			t.Errorf("the first %d bytes of a sealed key open", n)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("%d files in the folder, want 1", len(left))
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := assertion.FileKEK(path); err == nil || !strings.Contains(err.Error(), "0600") {
		t.Errorf("a file that others read: %v", err)
	}
}

func TestParseKey(t *testing.T) {
	for text, ok := range map[string]bool{
		base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n": true,
		base64.StdEncoding.EncodeToString(make([]byte, 16)):        false,
		"not base64": false,
		"":           false,
	} {
		if _, err := assertion.ParseKey(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestRotateDue(t *testing.T) {
	c, store := newClock(), &memoryKeys{}
	s := newSigner(t, store, c, "")
	sub := assertion.Subject{Tenant: "T", Device: "D"}
	if rotated, err := s.RotateDue(t.Context(), time.Hour, time.Hour); rotated || err != nil {
		t.Errorf("without a key: rotated %v, %v", rotated, err)
	}
	first := sign(t, s, sub)
	for i, step := range []struct {
		wait    time.Duration
		rotated bool
	}{{0, false}, {24*time.Hour - time.Second, false}, {time.Second, true}, {0, false}, {24 * time.Hour, true}} {
		c.add(step.wait)
		rotated, err := s.RotateDue(t.Context(), 24*time.Hour, time.Hour)
		if err != nil || rotated != step.rotated {
			t.Fatalf("step %d: rotated %v, %v, want %v", i, rotated, err, step.rotated)
		}
	}
	header := func(token []byte) string { h, _, _ := strings.Cut(string(token), "."); return h }
	if header(sign(t, s, sub)) == header(first) {
		t.Error("the first key still signs")
	}
	if keys, err := store.SigningKeys(t.Context()); err != nil || len(keys) != 3 {
		t.Errorf("got %d keys, %v, want 3", len(keys), err)
	}
}

// TestRotateDueOnceADay is a limit shorter than a day: no key is made, and none is said to be.
func TestRotateDueOnceADay(t *testing.T) {
	c, store := newClock(), &memoryKeys{}
	s := newSigner(t, store, c, "")
	sign(t, s, assertion.Subject{Tenant: "T", Device: "D"})
	for i, want := range []bool{true, false, false} {
		c.add(time.Minute)
		if rotated, err := s.RotateDue(t.Context(), time.Minute, time.Hour); err != nil || rotated != want {
			t.Errorf("step %d: rotated %v, %v, want %v", i, rotated, err, want)
		}
	}
	if keys, err := store.SigningKeys(t.Context()); err != nil || len(keys) != 2 {
		t.Errorf("got %d keys, %v, want 2", len(keys), err)
	}
}

// TestRotateThatComesLate is a schedule's event of yesterday, delivered again after today's.
func TestRotateThatComesLate(t *testing.T) {
	c, store := newClock(), &memoryKeys{}
	s := newSigner(t, store, c, "")
	yesterday := c.Now()
	first, err := s.Rotate(t.Context(), 25*time.Hour, yesterday)
	if err != nil {
		t.Fatal(err)
	}
	c.add(24 * time.Hour)
	second, err := s.Rotate(t.Context(), 25*time.Hour, c.Now())
	if err != nil || second == first {
		t.Fatal(second, err)
	}
	if again, err := s.Rotate(t.Context(), 25*time.Hour, yesterday); err != nil || again != first {
		t.Errorf("got key %s, %v, want %s", again, err, first)
	}
	keys, err := store.SigningKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if k.KID == second && !k.RetireAfter.IsZero() {
			t.Error("the newest key is about to end")
		}
	}
}
