package functions_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// rpk is the JSON of a secret with a public key.
func rpk(t testing.TB, id, algorithm string, key crypto.PublicKey, more string) string {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return `{"id":"` + id + `","algorithm":"` + algorithm + `","key":"` + base64.StdEncoding.EncodeToString(spki) + `"` + more + `}`
}

func ecKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestAdmitByToken(t *testing.T) {
	in := newInstallation(t)
	p256, p384, old := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P384()), ecKey(t, elliptic.P256())
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	weakKey, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	in.tenant(t, "T", `{}`)
	in.device(t, "T", "d1", `{}`, `[{"type":"rpk","auth-id":"a1","ext":{"iss":"maker"},"secrets":[`+
		rpk(t, "old", "EC", old.Public(), `,"not-after":"2021-01-01T00:00:00Z"`)+`,`+rpk(t, "ec", "EC", p256.Public(), "")+`,`+
		rpk(t, "ec384", "EC", p384.Public(), "")+`,`+rpk(t, "rsa", "RSA", r.Public(), "")+`,`+rpk(t, "weak", "RSA", weakKey.Public(), "")+`]}]`)
	in.device(t, "T", "d2", `{}`, `[{"type":"rpk","auth-id":"a2","ext":{"iss":"a2"},"secrets":[`+rpk(t, "s2", "EC", p256.Public(), `,"not-after":"2026-11-22T12:30:00Z"`)+`]}]`)

	at := func(d time.Duration) int64 { return noon.Add(d).Unix() }
	base := jwt.MapClaims{"iss": "maker", "iat": at(0), "exp": at(time.Hour)}
	claims := func(change jwt.MapClaims) jwt.MapClaims {
		c := maps.Clone(base)
		for k, v := range change {
			if v == nil {
				delete(c, k)
			} else {
				c[k] = v
			}
		}
		return c
	}
	sign := func(m jwt.SigningMethod, key any, c jwt.MapClaims, header ...string) string {
		tok := jwt.NewWithClaims(m, c)
		for i := 0; i < len(header); i += 2 {
			tok.Header[header[i]] = header[i+1]
		}
		s, err := tok.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	es := func(change jwt.MapClaims, header ...string) string {
		return sign(jwt.SigningMethodES256, p256, claims(change), header...)
	}
	self := jwt.MapClaims{"aud": "hono-adapter", "tid": "T", "sub": "a1"}
	good := es(nil)
	spki, _ := x509.MarshalPKIXPublicKey(p256.Public())
	named := events.TenantRef{ID: "T"}
	for _, tt := range []struct {
		name   string
		ref    events.TenantRef
		authID string
		jwt    string
		device iot.DeviceID
		secret string
		age    time.Duration
		err    error
	}{
		{"ES256", named, "a1", good, "d1", "ec", 70 * time.Minute, nil},
		{"ES384", named, "a1", sign(jwt.SigningMethodES384, p384, base), "d1", "ec384", 70 * time.Minute, nil},
		{"RS256", named, "a1", sign(jwt.SigningMethodRS256, r, base), "d1", "rsa", 70 * time.Minute, nil},
		{"PS512", named, "a1", sign(jwt.SigningMethodPS512, r, base), "d1", "rsa", 70 * time.Minute, nil},
		{"names itself", events.TenantRef{}, "", es(self), "d1", "ec", 70 * time.Minute, nil},
		{"names itself among audiences", events.TenantRef{}, "", es(jwt.MapClaims{"aud": []string{"x", "hono-adapter"}, "tid": "T", "sub": "a1"}), "d1", "ec", 70 * time.Minute, nil},
		{"what it names counts", events.TenantRef{ID: "NONE"}, "nobody", es(self), "d1", "ec", 70 * time.Minute, nil},
		{"issuer defaults to subject", events.TenantRef{}, "", es(jwt.MapClaims{"aud": "hono-adapter", "tid": "T", "sub": "a2", "iss": nil}), "d2", "s2", 30 * time.Minute, nil},
		{"nbf does not count", named, "a1", es(jwt.MapClaims{"nbf": at(time.Hour)}), "d1", "ec", 70 * time.Minute, nil},
		{"just ended", named, "a1", es(jwt.MapClaims{"iat": at(-time.Hour), "exp": at(-9 * time.Minute)}), "d1", "ec", time.Minute, nil},
		{"a day and the skew", named, "a1", es(jwt.MapClaims{"exp": at(24*time.Hour + 10*time.Minute)}), "d1", "ec", 23 * time.Hour, nil},
		{"issued soon", named, "a1", es(jwt.MapClaims{"iat": at(9 * time.Minute)}), "d1", "ec", 70 * time.Minute, nil},

		{"wrong key", named, "a1", sign(jwt.SigningMethodES256, ecKey(t, elliptic.P256()), base), "", "", 0, iot.ErrUnauthenticated},
		{"retired key", named, "a1", sign(jwt.SigningMethodES256, old, base), "", "", 0, iot.ErrUnauthenticated},
		{"weak key", named, "a1", sign(jwt.SigningMethodRS256, weakKey, base), "", "", 0, iot.ErrUnauthenticated},
		{"HMAC with the public key", named, "a1", sign(jwt.SigningMethodHS256, spki, base), "", "", 0, iot.ErrUnauthenticated},
		{"none", named, "a1", sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, base), "", "", 0, iot.ErrUnauthenticated},
		{"typ", named, "a1", es(nil, "typ", "jwt"), "", "", 0, iot.ErrUnauthenticated},
		{"crit", named, "a1", es(nil, "crit", "b64"), "", "", 0, iot.ErrUnauthenticated},
		{"no iat", named, "a1", es(jwt.MapClaims{"iat": nil}), "", "", 0, iot.ErrUnauthenticated},
		{"no exp", named, "a1", es(jwt.MapClaims{"exp": nil}), "", "", 0, iot.ErrUnauthenticated},
		{"expired", named, "a1", es(jwt.MapClaims{"iat": at(-time.Hour), "exp": at(-11 * time.Minute)}), "", "", 0, iot.ErrUnauthenticated},
		{"issued in the future", named, "a1", es(jwt.MapClaims{"iat": at(11 * time.Minute)}), "", "", 0, iot.ErrUnauthenticated},
		{"lives too long", named, "a1", es(jwt.MapClaims{"exp": at(24*time.Hour + 11*time.Minute)}), "", "", 0, iot.ErrUnauthenticated},
		{"ends before it begins", named, "a1", es(jwt.MapClaims{"exp": at(0)}), "", "", 0, iot.ErrUnauthenticated},
		{"another issuer", named, "a1", es(jwt.MapClaims{"iss": "other"}), "", "", 0, iot.ErrUnauthenticated},
		{"audience without tenant", events.TenantRef{}, "", es(jwt.MapClaims{"aud": "hono-adapter", "sub": "a1"}), "", "", 0, iot.ErrUnauthenticated},
		{"another tenant", events.TenantRef{}, "", es(jwt.MapClaims{"aud": "hono-adapter", "tid": "U", "sub": "a1"}), "", "", 0, iot.ErrUnauthenticated},
		{"unknown auth-id", named, "a9", good, "", "", 0, iot.ErrUnauthenticated},
		{"no auth-id", named, "", good, "", "", 0, iot.ErrUnauthenticated},
		{"no tenant", events.TenantRef{}, "a1", good, "", "", 0, iot.ErrInvalid},
		{"tampered", named, "a1", good[:len(good)-3] + "AAA", "", "", 0, iot.ErrUnauthenticated},
		{"garbage", named, "a1", "a.b.c", "", "", 0, iot.ErrUnauthenticated},
		{"too long", named, "a1", strings.Repeat("a", 20000) + ".b.c", "", "", 0, iot.ErrUnauthenticated},
		{"nothing", named, "a1", "", "", "", 0, iot.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := events.Call(t.Context(), in.encoded(t), events.Admit{Adapter: "hono-mqtt", TenantRef: tt.ref,
				Credential: &events.Credential{Type: "rpk", AuthID: tt.authID, JWT: tt.jwt}})
			if !errors.Is(err, tt.err) {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			if errors.Is(err, iot.ErrUnauthenticated) && err.Error() != "bad credentials" {
				t.Errorf("%q says too much", err)
			}
			if err == nil && (got.DeviceID != tt.device || got.SecretID != tt.secret || got.CacheFor != tt.age) {
				t.Errorf("got %s, %s, kept %s", got.DeviceID, got.SecretID, got.CacheFor)
			}
		})
	}
	for secret, want := range map[string]error{"ec": nil, "old": iot.ErrUnauthenticated, "gone": iot.ErrUnauthenticated} {
		_, err := events.Call(t.Context(), in.encoded(t), events.Admit{Adapter: "hono-mqtt", TenantRef: named,
			Credential: &events.Credential{Type: "rpk", AuthID: "a1", SecretID: secret}})
		if !errors.Is(err, want) {
			t.Errorf("re-check of %s: %v, want %v", secret, err, want)
		}
	}
}
