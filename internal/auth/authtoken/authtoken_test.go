package authtoken_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/auth/authtoken"
)

// adapter is an identity of Hono's example permissions.
func adapter(t *testing.T) *auth.Identity {
	t.Helper()
	path := filepath.Join(t.TempDir(), "permissions.json")
	err := os.WriteFile(path, []byte(`{
		"roles": {"protocol-adapter": [
			{"resource": "telemetry/*", "activities": ["WRITE"]},
			{"resource": "registration/*", "activities": ["READ"]},
			{"resource": "registration/*", "activities": ["WRITE"]},
			{"resource": "everything", "activities": ["EXECUTE", "WRITE", "READ"]},
			{"operation": "registration/*:assert", "activities": ["EXECUTE"]},
			{"operation": "tenant/*:*", "activities": ["EXECUTE"]}]},
		"users": {"http-adapter@HONO": {"mechanism": "PLAIN", "password": "http-secret", "authorities": ["hono-component", "protocol-adapter"]}}}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := auth.Open(path, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return dir.Current("http-adapter@HONO")
}

// published returns the JWK set that the issuer's handler serves.
func published(t *testing.T, i *authtoken.Issuer) []map[string]string {
	t.Helper()
	w := httptest.NewRecorder()
	i.Handler(nil).ServeHTTP(w, httptest.NewRequest("GET", "/validating-keys", nil))
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(w.Body.Bytes(), &set); err != nil || w.Code != 200 || w.Header().Get("Content-Type") != "application/jwk-set+json" {
		t.Fatalf("%d %v %s: %v", w.Code, w.Header(), w.Body, err)
	}
	return set.Keys
}

// verify checks a token by what is published, and nothing else.
func verify(t *testing.T, token string, keys []map[string]string) jwt.MapClaims {
	t.Helper()
	claims := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(token, claims, func(tok *jwt.Token) (any, error) {
		for _, k := range keys {
			if k["kid"] == tok.Header["kid"] && k["alg"] == tok.Header["alg"] && k["use"] == "sig" {
				return public(t, k), nil
			}
		}
		return nil, errors.New("no such key")
	}, jwt.WithoutClaimsValidation())
	if err != nil {
		t.Fatalf("%v\nkeys %v", err, keys)
	}
	return claims
}

func public(t *testing.T, k map[string]string) crypto.PublicKey {
	t.Helper()
	number := func(name string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(k[name])
		if err != nil || len(b) == 0 {
			t.Fatalf("member %s of %v: %v", name, k, err)
		}
		return b
	}
	if k["kty"] == "RSA" {
		return &rsa.PublicKey{N: new(big.Int).SetBytes(number("n")), E: int(new(big.Int).SetBytes(number("e")).Int64())}
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, number("x")...), number("y")...))
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

func TestTokens(t *testing.T) {
	now := time.Unix(1800000000, 999)
	authorities := jwt.MapClaims{
		"sub": "http-adapter@HONO", "r:telemetry/*": "W", "r:registration/*": "RW", "r:everything": "RWE",
		"o:registration/*:assert": "E", "o:tenant/*:*": "E",
	}
	for _, tt := range []struct {
		name    string
		options authtoken.Options
		want    jwt.MapClaims
	}{
		{"as Hono has them", authtoken.Options{}, jwt.MapClaims{"iss": "https://hono.eclipse.org/auth-server", "exp": 1800000600.}},
		{"with an audience", authtoken.Options{Issuer: "//i", Audience: "hono-components", Lifetime: time.Hour},
			jwt.MapClaims{"iss": "//i", "aud": "hono-components", "exp": 1800003600.}},
		{"RSA", authtoken.Options{Algorithm: authtoken.RS256}, jwt.MapClaims{"iss": "https://hono.eclipse.org/auth-server", "exp": 1800000600.}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.options.Now = func() time.Time { return now }
			i, err := authtoken.Open(filepath.Join(t.TempDir(), "keys", "a.pem"), tt.options)
			if err != nil {
				t.Fatal(err)
			}
			token, err := i.Issue(adapter(t))
			if err != nil {
				t.Fatal(err)
			}
			for name, v := range authorities {
				tt.want[name] = v
			}
			if diff := cmp.Diff(tt.want, verify(t, token, published(t, i))); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheKeyStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "auth-token.pem")
	kids := map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 { // processes that start at once
		wg.Go(func() {
			i, err := authtoken.Open(path, authtoken.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			kids[string(i.Keys()[0])] = true
		})
	}
	wg.Wait()
	if len(kids) != 1 {
		t.Errorf("%d keys, want one", len(kids))
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v, want 0700", info.Mode(), err)
	}
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
	rsaToo, err := authtoken.Open(path, authtoken.Options{Algorithm: authtoken.RS256})
	if err != nil || !kids[string(rsaToo.Keys()[0])] {
		t.Errorf("the key that is there does not decide: %v", err)
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, mode os.FileMode, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := filepath.Join(dir, "good")
	if _, err := authtoken.Open(good, authtoken.Options{}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		write("open", 0o644, string(text)):      "others may read it",
		write("empty", 0o600, ""):               "no PEM block of type PRIVATE KEY",
		write("torn", 0o600, string(text[:60])): "no PEM block",
		write("other", 0o600, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"): "no PKCS #8 private key",
	} {
		if _, err := authtoken.Open(path, authtoken.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", filepath.Base(path), err, want)
		}
	}
	if _, err := authtoken.Open(filepath.Join(dir, "new"), authtoken.Options{Algorithm: "none"}); err == nil || !strings.Contains(err.Error(), "expected ES256 or RS256") {
		t.Errorf("got %v", err)
	}
	_, edwards, _ := ed25519.GenerateKey(rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	for _, key := range []crypto.Signer{edwards, p384} {
		if _, err := authtoken.New(key, authtoken.Options{}); err == nil {
			t.Errorf("%T is taken", key)
		}
	}
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if _, err := authtoken.New(p256, authtoken.Options{Lifetime: time.Millisecond}); err == nil {
		t.Error("a life of 1ms is taken")
	}
	i, err := authtoken.New(p256, authtoken.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Issue(nil); err == nil {
		t.Error("a token for nobody")
	}
}

func TestHandlerListsOthers(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i, err := authtoken.New(key, authtoken.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		err  error
		code int
		want string
	}{
		{nil, http.StatusOK, fmt.Sprintf(`{"keys":[%s,{"kid":"other"}]}`, i.Keys()[0])},
		{errors.New("down"), http.StatusServiceUnavailable, "keys are not available\n"},
	} {
		w := httptest.NewRecorder()
		i.Handler(func(context.Context) ([]json.RawMessage, error) {
			return []json.RawMessage{json.RawMessage(`{"kid":"other"}`)}, tt.err
		}).ServeHTTP(w, httptest.NewRequest("GET", "/validating-keys", nil))
		if w.Code != tt.code || w.Body.String() != tt.want {
			t.Errorf("got %d %s, want %d %s", w.Code, w.Body, tt.code, tt.want)
		}
	}
}
