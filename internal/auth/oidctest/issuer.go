package oidctest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Claims are those of a token. iss is the issuer and exp an hour from now unless
// they are given; a nil value leaves a claim out.
type Claims map[string]any

// Issuer is one issuer. Its methods may be called at any time.
type Issuer struct {
	URL string // claim iss

	mu        sync.Mutex
	kid, alg  string
	key       crypto.Signer
	documents map[string]func() (status int, body []byte)
	published []map[string]any
	asked     map[string]int
}

// New starts an issuer that publishes no key yet; it ends with the test.
func New(t testing.TB) *Issuer {
	i := &Issuer{documents: map[string]func() (int, []byte){}, asked: map[string]int{}}
	srv := httptest.NewServer(i)
	t.Cleanup(srv.Close)
	i.URL = srv.URL
	i.documents["/.well-known/openid-configuration"] = func() (int, []byte) {
		return http.StatusOK, encode(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
	}
	i.documents["/keys"] = func() (int, []byte) {
		return http.StatusOK, encode(map[string]any{"keys": i.published})
	}
	return i
}

// Serve replaces what is answered at a path.
func (i *Issuer) Serve(path string, status int, body []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.documents[path] = func() (int, []byte) { return status, body }
}

// Asked is how often a path was asked for.
func (i *Issuer) Asked(path string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked[path]
}

// ServeHTTP answers a request.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked[r.URL.Path]++
	d := i.documents[r.URL.Path]
	if d == nil {
		http.NotFound(w, r)
		return
	}
	status, body := d()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body)
}

// Rotate makes a new key for an algorithm such as ES256, publishes it in place of
// those before, and signs with it from now on.
func (i *Issuer) Rotate(t testing.TB, kid, alg string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.published = nil
	i.add(t, kid, alg)
}

// Add is Rotate that leaves the other keys published.
func (i *Issuer) Add(t testing.TB, kid, alg string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.add(t, kid, alg)
}

func (i *Issuer) add(t testing.TB, kid, alg string) {
	t.Helper()
	key, err := generate(alg)
	if err != nil {
		t.Fatal(err)
	}
	i.kid, i.alg, i.key = kid, alg, key
	i.published = append(i.published, JWK(t, kid, key.Public()))
}

// Token signs claims with the newest key.
func (i *Issuer) Token(t testing.TB, c Claims) string {
	t.Helper()
	return i.TokenWith(t, c, nil)
}

// TokenWith is Token with header parameters of the test's; a nil value leaves one out.
func (i *Issuer) TokenWith(t testing.TB, c Claims, header map[string]any) string {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	m := jwt.MapClaims{"iss": i.URL, "exp": time.Now().Add(time.Hour).Unix()}
	merge(m, c)
	token := jwt.NewWithClaims(jwt.GetSigningMethod(i.alg), m)
	merge(token.Header, map[string]any{"kid": i.kid})
	merge(token.Header, header)
	text, err := token.SignedString(i.key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func merge(into map[string]any, from map[string]any) {
	for k, v := range from {
		if v == nil {
			delete(into, k)
		} else {
			into[k] = v
		}
	}
}

func generate(alg string) (crypto.Signer, error) {
	switch {
	case strings.HasPrefix(alg, "RS"), strings.HasPrefix(alg, "PS"):
		return rsa.GenerateKey(rand.Reader, 2048)
	case alg == "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case alg == "ES384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case alg == "ES512":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case alg == "EdDSA":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("algorithm %s is not known", alg)
}

// JWK is a public key in the form of RFC 7517.
func JWK(t testing.TB, kid string, public crypto.PublicKey) map[string]any {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	k := map[string]any{"kid": kid, "use": "sig"}
	switch p := public.(type) {
	case *rsa.PublicKey:
		k["kty"], k["n"], k["e"] = "RSA", b64(p.N.Bytes()), b64(big.NewInt(int64(p.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := p.Bytes() // 0x04, X, Y
		if err != nil {
			t.Fatal(err)
		}
		half := len(point) / 2
		k["kty"], k["crv"], k["x"], k["y"] = "EC", p.Curve.Params().Name, b64(point[1:1+half]), b64(point[1+half:])
	case ed25519.PublicKey:
		k["kty"], k["crv"], k["x"] = "OKP", "Ed25519", b64(p)
	default:
		t.Fatalf("key of type %T", public)
	}
	return k
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
