package oidc_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/auth/oidc"
	"github.com/sluice-iot/sluice/internal/auth/oidctest"
	"github.com/sluice-iot/sluice/internal/iot"
)

const clientID, clientSecret = "slu ice", "s/e+c%ret"

// realm is an issuer with a token endpoint.
type realm struct {
	*oidctest.Issuer
	client *oidc.Client
}

func newRealm(t *testing.T, endpoint func(r realm) http.HandlerFunc) realm {
	t.Helper()
	r := realm{Issuer: oidctest.New(t)}
	r.Rotate(t, "k", "ES256")
	srv := httptest.NewServer(endpoint(r))
	t.Cleanup(srv.Close)
	r.describe(t, srv.URL+"/token")
	var err error
	if r.client, err = oidc.NewClient(oidc.ClientConfig{Issuer: r.URL, ID: clientID, Secret: clientSecret, Conns: 4}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.client.Close)
	return r
}

func (r realm) describe(t *testing.T, endpoint string) {
	t.Helper()
	text, err := json.Marshal(map[string]string{"issuer": r.URL, "jwks_uri": r.URL + "/keys", "token_endpoint": endpoint})
	if err != nil {
		t.Fatal(err)
	}
	r.Serve("/.well-known/openid-configuration", http.StatusOK, text)
}

// says answers each request alike.
func says(status int, header http.Header, body string) func(realm) http.HandlerFunc {
	return func(realm) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for k, v := range header {
				w.Header()[k] = v
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
}

// gives answers with an ID token of these claims.
func gives(t *testing.T, c oidctest.Claims, expiresIn int) func(realm) http.HandlerFunc {
	return func(r realm) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]any{"id_token": r.Token(t, c), "expires_in": expiresIn, "access_token": "x"})
		}
	}
}

func TestLogin(t *testing.T) {
	var form url.Values
	r := newRealm(t, func(r realm) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			id, secret, _ := req.BasicAuth()
			if err := req.ParseForm(); err != nil || req.Method != http.MethodPost || id != "slu+ice" || secret != "s%2Fe%2Bc%25ret" {
				t.Errorf("%s as %q %q, %v", req.Method, id, secret, err)
			}
			form = req.PostForm
			gives(t, oidctest.Claims{"sub": "1", "aud": clientID, "azp": clientID, "device": "4711"}, 60)(r)(w, req)
		}
	})
	tok, err := r.client.Login(t.Context(), "sensor1", "p&ä=1")
	if err != nil {
		t.Fatal(err)
	}
	want := url.Values{"grant_type": {"password"}, "scope": {"openid"}, "username": {"sensor1"}, "password": {"p&ä=1"}}
	if form.Encode() != want.Encode() {
		t.Errorf("asked %v, want %v", form, want)
	}
	if left := time.Until(tok.Expires); left > time.Minute || left < 50*time.Second || string(tok.Claims["device"]) != `"4711"` {
		t.Errorf("got %+v, ends in %v", tok, left)
	}
	for range 3 {
		if _, err := r.client.Login(t.Context(), "sensor1", "x"); err != nil {
			t.Fatal(err)
		}
	}
	if n := r.Asked("/.well-known/openid-configuration"); n != 1 {
		t.Errorf("discovered %d times", n)
	}
	r.Add(t, "k2", "RS256")
	if _, err := r.client.Login(t.Context(), "sensor1", "x"); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("a new key moments after a question: %v", err)
	}
	r.client.Age(oidc.AskEvery)
	if _, err := r.client.Login(t.Context(), "sensor1", "x"); err != nil {
		t.Errorf("a new key: %v", err)
	}
}

func TestLoginFails(t *testing.T) {
	good := oidctest.Claims{"sub": "1", "aud": clientID}
	with := func(more oidctest.Claims) func(realm) http.HandlerFunc {
		c := oidctest.Claims{}
		for k, v := range good {
			c[k] = v
		}
		for k, v := range more {
			c[k] = v
		}
		return gives(t, c, 60)
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("followed a redirect") }))
	defer elsewhere.Close()
	for name, tt := range map[string]struct {
		endpoint func(realm) http.HandlerFunc
		want     error
		text     string
		retry    time.Duration
	}{
		"wrong password":     {says(401, nil, `{"error":"invalid_grant","error_description":"Invalid user credentials"}`), iot.ErrUnauthenticated, "Invalid user credentials", 0},
		"disabled":           {says(400, nil, `{"error":"invalid_grant","error_description":"Account\ndisabled"}`), iot.ErrUnauthenticated, "Accountdisabled", 0},
		"wrong client":       {says(401, nil, `{"error":"invalid_client"}`), iot.ErrUnavailable, "401 invalid_client", 5 * time.Second},
		"grant not allowed":  {says(400, nil, `{"error":"unauthorized_client"}`), iot.ErrUnavailable, "400 unauthorized_client", 5 * time.Second},
		"grant and 500":      {says(500, nil, `{"error":"invalid_grant"}`), iot.ErrUnavailable, "500", 5 * time.Second},
		"too many":           {says(429, http.Header{"Retry-After": {"7"}}, ``), iot.ErrUnavailable, "429", 7 * time.Second},
		"down for long":      {says(503, http.Header{"Retry-After": {"86400"}}, `down`), iot.ErrUnavailable, "503", 5 * time.Minute},
		"retry of no number": {says(503, http.Header{"Retry-After": {"soon"}}, `down`), iot.ErrUnavailable, "503", 5 * time.Second},
		"garbage":            {says(200, nil, `<html>`), iot.ErrUnavailable, "no JSON", 5 * time.Second},
		"empty":              {says(200, nil, ``), iot.ErrUnavailable, "no JSON", 5 * time.Second},
		"no token":           {says(200, nil, `{"access_token":"a.b.c"}`), iot.ErrUnavailable, "without id_token", 5 * time.Second},
		"token of garbage":   {says(200, nil, `{"id_token":"a.b.c"}`), iot.ErrUnavailable, "not a JSON Web Token", 5 * time.Second},
		"huge":               {says(200, nil, `{"id_token":"`+strings.Repeat("x", 1<<20)+`"}`), iot.ErrUnavailable, "longer than 65536 bytes", 5 * time.Second},
		"redirect":           {says(307, http.Header{"Location": {elsewhere.URL}}, ``), iot.ErrUnavailable, "307", 5 * time.Second},
		"other issuer":       {with(oidctest.Claims{"iss": "https://other.example"}), iot.ErrUnavailable, "iss is not the issuer", 5 * time.Second},
		"other audience":     {with(oidctest.Claims{"aud": "other"}), iot.ErrUnavailable, "aud does not", 5 * time.Second},
		"other party":        {with(oidctest.Claims{"azp": "other"}), iot.ErrUnavailable, "azp is not", 5 * time.Second},
		"party of no text":   {with(oidctest.Claims{"azp": 1}), iot.ErrUnavailable, "azp is not", 5 * time.Second},
		"two audiences":      {with(oidctest.Claims{"aud": []string{clientID, "other"}}), iot.ErrUnavailable, "azp is not", 5 * time.Second},
		"one party of two":   {with(oidctest.Claims{"aud": []string{clientID, "other"}, "azp": clientID}), nil, "", 0},
		"ended":              {with(oidctest.Claims{"exp": time.Now().Add(-time.Minute).Unix()}), iot.ErrUnavailable, "expired", 5 * time.Second},
		"connection cut": {func(realm) http.HandlerFunc {
			return func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
		}, iot.ErrUnavailable, "EOF", 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newRealm(t, tt.endpoint).client.Login(t.Context(), "sensor1", "hunter2")
			if !errors.Is(err, tt.want) || iot.RetryAfter(err) != tt.retry {
				t.Fatalf("got %v, retry after %v; want %v, %v", err, iot.RetryAfter(err), tt.want, tt.retry)
			}
			if err == nil {
				return
			}
			if !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "sensor1") {
				t.Errorf("got %v, want %s", err, tt.text)
			}
		})
	}
}

func TestLoginEndsWithItsCaller(t *testing.T) {
	for want, end := range map[error]func(context.Context) (context.Context, context.CancelFunc){
		iot.ErrUnavailable: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 50*time.Millisecond)
		},
		context.Canceled: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(50*time.Millisecond, cancel)
			return ctx, cancel
		},
	} {
		r := newRealm(t, func(realm) http.HandlerFunc {
			return func(_ http.ResponseWriter, r *http.Request) {
				_ = r.ParseForm() // so that the server notices its client go
				<-r.Context().Done()
			}
		})
		ctx, cancel := end(t.Context())
		if _, err := r.client.Login(ctx, "sensor1", "x"); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		cancel()
	}
}

func TestLoginNeedsDiscovery(t *testing.T) {
	for name, endpoint := range map[string]string{"none": "", "elsewhere in plain text": "http://id.example/token", "no URL": "token"} {
		t.Run(name, func(t *testing.T) {
			r := newRealm(t, says(200, nil, `{}`))
			r.describe(t, endpoint)
			if _, err := r.client.Login(t.Context(), "sensor1", "x"); !errors.Is(err, iot.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
		})
	}
	r := newRealm(t, says(200, nil, `{}`))
	r.Serve("/.well-known/openid-configuration", 500, nil)
	for range 3 {
		if _, err := r.client.Login(t.Context(), "sensor1", "x"); !errors.Is(err, iot.ErrUnavailable) || iot.RetryAfter(err) <= 0 {
			t.Errorf("got %v", err)
		}
	}
	if n := r.Asked("/.well-known/openid-configuration"); n != 1 {
		t.Errorf("an issuer that is down was asked %d times", n)
	}
}

// TestLoginVerifiesTheServer has an issuer whose certificate nobody vouches for.
func TestLoginVerifiesTheServer(t *testing.T) {
	i := oidctest.New(t)
	i.Rotate(t, "k", "ES256")
	mux := http.NewServeMux()
	srv := httptest.NewTLSServer(mux)
	defer srv.Close()
	answer := func(path string, v any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) })
	}
	answer("/.well-known/openid-configuration", map[string]string{"issuer": srv.URL, "jwks_uri": srv.URL + "/keys", "token_endpoint": srv.URL + "/token"})
	mux.Handle("/keys", i)
	answer("/token", map[string]any{"id_token": i.Token(t, oidctest.Claims{"iss": srv.URL, "sub": "1", "aud": "c"})})
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	for want, roots := range map[error]*x509.CertPool{nil: roots, iot.ErrUnavailable: nil} {
		c, err := oidc.NewClient(oidc.ClientConfig{Issuer: srv.URL, ID: "c", Secret: "s", Roots: roots})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Login(t.Context(), "sensor1", "x"); !errors.Is(err, want) || err != nil && !strings.Contains(err.Error(), "certificate") {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}

func TestClientsAreChecked(t *testing.T) {
	for _, c := range []oidc.ClientConfig{
		{}, {Issuer: "https://id.example", ID: "c"}, {Issuer: "https://id.example", Secret: "s"}, {Issuer: "http://id.example", ID: "c", Secret: "s"},
	} {
		if _, err := oidc.NewClient(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}
