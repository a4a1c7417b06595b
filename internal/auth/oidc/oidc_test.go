package oidc_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/auth/oidc"
	"github.com/sluice-iot/sluice/internal/auth/oidctest"
	"github.com/sluice-iot/sluice/internal/iot"
)

func verifier(t testing.TB, i *oidctest.Issuer) *oidc.Verifier {
	t.Helper()
	v, err := oidc.New(oidc.Config{Issuer: i.URL, Audience: "sluice"})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestEveryAlgorithm(t *testing.T) {
	for _, alg := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			i := oidctest.New(t)
			i.Rotate(t, "k", alg)
			v := verifier(t, i)
			got, err := v.Verify(t.Context(), i.Token(t, oidctest.Claims{"sub": "app", "aud": []string{"other", "sluice"}, "x": 1}))
			if err != nil {
				t.Fatal(err)
			}
			if got.Subject != "app" || string(got.Claims["x"]) != "1" || time.Until(got.Expires) < 59*time.Minute {
				t.Errorf("got %+v", got)
			}
			if _, err := v.Verify(t.Context(), i.Token(t, oidctest.Claims{"sub": "app", "aud": "sluice"})+"A"); !errors.Is(err, iot.ErrUnauthenticated) {
				t.Errorf("a broken signature: %v", err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	i := oidctest.New(t)
	i.Rotate(t, "k", "ES256")
	v := verifier(t, i)
	good := oidctest.Claims{"sub": "app", "aud": "sluice"}
	with := func(more oidctest.Claims) string {
		c := oidctest.Claims{}
		for k, x := range good {
			c[k] = x
		}
		for k, x := range more {
			c[k] = x
		}
		return i.Token(t, c)
	}
	if _, err := v.Verify(t.Context(), with(nil)); err != nil {
		t.Fatal(err)
	}
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).Unix() }
	for name, c := range map[string]struct{ token, text string }{
		"other issuer":          {with(oidctest.Claims{"iss": "https://other.example"}), "iss is not the issuer"},
		"issuer with a slash":   {with(oidctest.Claims{"iss": i.URL + "/"}), "iss is not the issuer"},
		"other audience":        {with(oidctest.Claims{"aud": "other"}), "aud does not"},
		"no audience":           {with(oidctest.Claims{"aud": nil}), "missing"},
		"no end":                {with(oidctest.Claims{"exp": nil}), "missing"},
		"ended":                 {with(oidctest.Claims{"exp": ago(31 * time.Second)}), "it has expired"},
		"not begun":             {with(oidctest.Claims{"nbf": ago(-32 * time.Second)}), "not valid yet"},
		"no subject":            {with(oidctest.Claims{"sub": nil}), "sub is missing"},
		"long subject":          {with(oidctest.Claims{"sub": strings.Repeat("x", 256)}), "longer than 255"},
		"subject of two lines":  {with(oidctest.Claims{"sub": "a\nb"}), "not printable"},
		"exp of another type":   {with(oidctest.Claims{"exp": "soon"}), "not a JSON Web Token"},
		"no algorithm":          {unsigned(i, "none", nil), "algorithm is not accepted"},
		"HMAC":                  {unsigned(i, "HS256", []byte("secret")), "algorithm is not accepted"},
		"critical header":       {i.TokenWith(t, good, map[string]any{"crit": []string{"b64"}, "b64": false}), "critical header"},
		"algorithm of no key":   {i.TokenWith(t, good, map[string]any{"alg": "ES384"}), "its signature does not verify"},
		"not a token":           {"abc", "not a JSON Web Token"},
		"nothing":               {"", "not a JSON Web Token"},
		"a token and then some": {with(nil) + ".x", "not a JSON Web Token"},
		"huge":                  {strings.Repeat("x", oidc.MaxToken+1), "at most 16384"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := v.Verify(t.Context(), c.token)
			if name == "algorithm of no key" && errors.Is(err, iot.ErrUnavailable) {
				return // asked for once more, which was done a moment ago
			}
			if !errors.Is(err, iot.ErrUnauthenticated) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q", err, c.text)
			}
		})
	}
}

func TestLeeway(t *testing.T) {
	i := oidctest.New(t)
	i.Rotate(t, "k", "ES256")
	v := verifier(t, i)
	end := time.Now().Add(-10 * time.Second)
	got, err := v.Verify(t.Context(), i.Token(t, oidctest.Claims{"sub": "app", "aud": "sluice",
		"exp": end.Unix(), "nbf": time.Now().Add(20 * time.Second).Unix()}))
	if err != nil {
		t.Fatal(err)
	}
	if got.Expires.Unix() != end.Add(oidc.Leeway).Unix() {
		t.Errorf("expires %v, want %v", got.Expires, end.Add(oidc.Leeway))
	}
}

// unsigned is a token that was not signed by the issuer.
func unsigned(i *oidctest.Issuer, alg string, secret []byte) string {
	b64 := base64.RawURLEncoding.EncodeToString
	head, _ := json.Marshal(map[string]any{"alg": alg, "kid": "k"})
	body, _ := json.Marshal(map[string]any{"iss": i.URL, "sub": "app", "aud": "sluice", "exp": time.Now().Add(time.Hour).Unix()})
	text := b64(head) + "." + b64(body)
	var sig []byte
	if secret != nil {
		h := hmac.New(sha256.New, secret)
		h.Write([]byte(text))
		sig = h.Sum(nil)
	}
	return text + "." + b64(sig)
}

func TestRotation(t *testing.T) {
	i := oidctest.New(t)
	i.Rotate(t, "k1", "ES256")
	v := verifier(t, i)
	claims := oidctest.Claims{"sub": "app", "aud": "sluice"}
	old := i.Token(t, claims)
	check := func(what, token string, want error) {
		t.Helper()
		if _, err := v.Verify(t.Context(), token); !errors.Is(err, want) || (want == nil) != (err == nil) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
	}
	check("first", old, nil)
	i.Add(t, "k2", "EdDSA")
	next := i.Token(t, claims)
	check("a new key a moment after the first question", next, iot.ErrUnavailable)
	if n := i.Asked("/keys"); n != 1 {
		t.Errorf("asked %d times, want 1", n)
	}
	v.Age(oidc.AskEvery)
	check("a new key", next, nil)
	check("the old one beside it", old, nil)
	i.Rotate(t, "k3", "RS256")
	v.Age(oidc.AskEvery)
	check("withdrawn, keys are fresh", old, nil)
	v.Age(oidc.FreshFor)
	check("withdrawn", old, iot.ErrUnauthenticated)
	check("the third", i.Token(t, claims), nil)
	v.Age(oidc.AskEvery)
	check("never published", i.TokenWith(t, claims, map[string]any{"kid": "k9"}), iot.ErrUnauthenticated)
}

func TestTokensWithoutKeyNames(t *testing.T) {
	i := oidctest.New(t)
	i.Rotate(t, "k1", "ES256")
	v := verifier(t, i)
	claims := oidctest.Claims{"sub": "app", "aud": "sluice"}
	if _, err := v.Verify(t.Context(), i.TokenWith(t, claims, map[string]any{"kid": nil})); err != nil {
		t.Errorf("one key: %v", err)
	}
	i.Add(t, "k2", "ES256")
	v.Age(oidc.FreshFor)
	if _, err := v.Verify(t.Context(), i.TokenWith(t, claims, map[string]any{"kid": nil})); !errors.Is(err, iot.ErrUnauthenticated) {
		t.Errorf("two keys: %v", err)
	}
}

func TestIssuerAway(t *testing.T) {
	i := oidctest.New(t)
	i.Rotate(t, "k", "ES256")
	v := verifier(t, i)
	token := i.Token(t, oidctest.Claims{"sub": "app", "aud": "sluice"})
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	i.Serve("/keys", http.StatusInternalServerError, nil)
	v.Age(oidc.FreshFor)
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Errorf("the keys that are there: %v", err)
	}
	v.Age(oidc.UsableFor)
	_, err := v.Verify(t.Context(), token)
	if !errors.Is(err, iot.ErrUnavailable) || !strings.Contains(err.Error(), "status 500") {
		t.Errorf("too old: %v", err)
	}
}

func TestDocuments(t *testing.T) {
	ok := func(i *oidctest.Issuer) []byte {
		b, _ := json.Marshal(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
		return b
	}
	const discovery = "/.well-known/openid-configuration"
	for name, c := range map[string]struct {
		path string
		body func(i *oidctest.Issuer) []byte
		text string
	}{
		"other issuer": {discovery, func(i *oidctest.Issuer) []byte {
			return bytes.Replace(ok(i), []byte(`"issuer":"`), []byte(`"issuer":"x`), 1)
		}, "names the issuer"},
		"plain elsewhere": {discovery, func(i *oidctest.Issuer) []byte {
			return bytes.Replace(ok(i), []byte(i.URL+"/keys"), []byte("http://id.example/keys"), 1)
		}, "expected https"},
		"no JSON":  {discovery, func(*oidctest.Issuer) []byte { return []byte("<html>") }, "invalid character"},
		"giant":    {"/keys", func(*oidctest.Issuer) []byte { return bytes.Repeat([]byte(" "), 1<<20) }, "longer than"},
		"no keys":  {"/keys", func(*oidctest.Issuer) []byte { return []byte(`{"keys":[{"kty":"oct","k":"AA"}]}`) }, "none that can be used"},
		"no array": {"/keys", func(*oidctest.Issuer) []byte { return []byte(`{"keys":1}`) }, "cannot unmarshal"},
	} {
		t.Run(name, func(t *testing.T) {
			i := oidctest.New(t)
			i.Rotate(t, "k", "ES256")
			i.Serve(c.path, http.StatusOK, c.body(i))
			_, err := verifier(t, i).Verify(t.Context(), i.Token(t, oidctest.Claims{"sub": "app", "aud": "sluice"}))
			if !errors.Is(err, iot.ErrUnavailable) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q", err, c.text)
			}
		})
	}
}

func TestKeysURL(t *testing.T) {
	i := oidctest.New(t)
	i.Rotate(t, "k", "ES256")
	v, err := oidc.New(oidc.Config{Issuer: "https://id.example/realms/iot", Audience: "sluice", JWKSURL: i.URL + "/keys"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), i.Token(t, oidctest.Claims{"iss": "https://id.example/realms/iot", "sub": "app", "aud": "sluice"})); err != nil {
		t.Error(err)
	}
}

// Many logins at once ask the issuer once.
func TestTogether(t *testing.T) {
	i := oidctest.New(t)
	i.Rotate(t, "k", "ES256")
	v := verifier(t, i)
	token := i.Token(t, oidctest.Claims{"sub": "app", "aud": "sluice"})
	var logins sync.WaitGroup
	for range 20 {
		logins.Go(func() {
			if _, err := v.Verify(t.Context(), token); err != nil {
				t.Error(err)
			}
		})
	}
	logins.Wait()
	if n := i.Asked("/keys"); n != 1 {
		t.Errorf("asked %d times, want 1", n)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []oidc.Config{
		{Audience: "a"}, {Issuer: "https://id.example"}, {Issuer: "http://id.example", Audience: "a"}, {Issuer: "id.example", Audience: "a"},
		{Issuer: "https://id.example?x=1", Audience: "a"}, {Issuer: "https://u:p@id.example", Audience: "a"},
		{Issuer: "https://id.example", Audience: "a", JWKSURL: "http://id.example/keys"}, {Issuer: "ftp://127.0.0.1", Audience: "a"},
	} {
		if _, err := oidc.New(c); err == nil {
			t.Errorf("%+v: want an error", c)
		}
	}
}

func TestParseKeys(t *testing.T) {
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	weak, _ := rsa.GenerateKey(rand.Reader, 1024)
	change := func(m map[string]any, k string, v any) map[string]any { m[k] = v; return m }
	public := func() map[string]any { return oidctest.JWK(t, "k", ec.Public()) }
	for name, c := range map[string]struct {
		key  map[string]any
		want int
	}{
		"as it is":           {public(), 1},
		"its algorithm":      {change(public(), "alg", "ES256"), 1},
		"another algorithm":  {change(public(), "alg", "ES384"), 0},
		"for encryption":     {change(public(), "use", "enc"), 0},
		"to verify":          {change(public(), "key_ops", []string{"verify"}), 1},
		"to sign":            {change(public(), "key_ops", []string{"sign"}), 0},
		"other curve":        {change(public(), "crv", "P-384"), 0},
		"unknown curve":      {change(public(), "crv", "secp256k1"), 0},
		"not on the curve":   {change(public(), "y", public()["x"]), 0},
		"not base64":         {change(public(), "x", "!"), 0},
		"number for a name":  {change(public(), "kid", 7), 0},
		"weak":               {change(oidctest.JWK(t, "k", weak.Public()), "use", "sig"), 0},
		"symmetric":          {map[string]any{"kty": "oct", "k": "AAAA"}, 0},
		"RSA without a size": {map[string]any{"kty": "RSA", "e": "AQAB"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			raw, _ := json.Marshal(c.key)
			if got := len(oidc.ParseKeys([]json.RawMessage{raw})); got != c.want {
				t.Errorf("got %d keys, want %d", got, c.want)
			}
		})
	}
	raw, _ := json.Marshal(public())
	if got := len(oidc.ParseKeys(bytesRepeat(raw, 1000))); got != 100 {
		t.Errorf("%d keys are kept, want 100", got)
	}
}

func bytesRepeat(raw json.RawMessage, n int) (list []json.RawMessage) {
	for range n {
		list = append(list, raw)
	}
	return list
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(`{"kty":"RSA","n":"AQAB","e":"AQAB"}`))
	f.Add([]byte(`{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}`))
	f.Add([]byte(`{"kty":"OKP","crv":"Ed25519","x":"AA","alg":"EdDSA"}`))
	f.Fuzz(func(_ *testing.T, raw []byte) { oidc.ParseKeys([]json.RawMessage{raw}) })
}
