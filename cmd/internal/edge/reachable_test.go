package edge

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/auth/oidctest"
	"github.com/sluice-iot/sluice/internal/iot"
)

// newAsked returns who decides, by a file with operators, applications and an issuer.
func newAsked(t *testing.T) (*askers, *oidctest.Issuer) {
	t.Helper()
	issuer := oidctest.New(t)
	issuer.Rotate(t, "k", "ES256")
	path := filepath.Join(t.TempDir(), "identities.yaml")
	file := fmt.Sprintf(`
operators:
  - {name: reader, secret: "{plain}pw", scopes: [{tenant: T, may: [read]}]}
  - {name: writer, secret: "{plain}pw", scopes: [{tenant: T, may: [write]}]}
  - {name: certified, certificate: operator-1, scopes: [{tenant: "*", may: [read]}]}
identities:
  - name: app-1
    authorities: [{address: command/T, may: [write]}]
  - name: listener-1
    authorities: [{address: telemetry/T, may: [read]}]
issuers:
  - {issuer: "%s", audience: sluice, authorities-claim: rights, operator-scopes-claim: scopes}
`, issuer.URL)
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := auth.Open(path, auth.Options{AllowPlain: true})
	if err != nil {
		t.Fatal(err)
	}
	return newAskers(d), issuer
}

// certificate makes a request come over a connection whose certificate was verified.
func certificate(name string, ou ...string) func(*http.Request) {
	return func(r *http.Request) {
		cert := &x509.Certificate{Subject: pkix.Name{CommonName: name, OrganizationalUnit: ou}}
		cert.Subject.Names = []pkix.AttributeTypeAndValue{{Type: []int{2, 5, 4, 3}, Value: name}}
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}
	}
}

func TestWhoMayAsk(t *testing.T) {
	a, issuer := newAsked(t)
	token := func(claims oidctest.Claims) func(*http.Request) {
		claims["sub"], claims["aud"] = "somebody", "sluice"
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+issuer.Token(t, claims)) }
	}
	basic := func(name, password string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(name, password) }
	}
	rights := func(address, may string) []any {
		return []any{map[string]any{"address": address, "may": []string{may}}}
	}
	scopes := func(tenant, may string) []any { return []any{map[string]any{"tenant": tenant, "may": []string{may}}} }
	for _, tt := range []struct {
		name   string
		as     func(*http.Request)
		tenant iot.TenantID
		want   error
	}{
		{"nobody", func(*http.Request) {}, "T", iot.ErrUnauthenticated},
		{"operator who reads", basic("reader", "pw"), "T", nil},
		{"of another tenant", basic("reader", "pw"), "OTHER", iot.ErrForbidden},
		{"operator who writes", basic("writer", "pw"), "T", iot.ErrForbidden},
		{"wrong password", basic("reader", "wrong"), "T", iot.ErrUnauthenticated},
		{"unknown", basic("nobody", "pw"), "T", iot.ErrUnauthenticated},
		{"application by its name", basic("app-1", "pw"), "T", iot.ErrUnauthenticated},
		{"malformed", func(r *http.Request) { r.Header.Set("Authorization", "Basic ???") }, "T", iot.ErrUnauthenticated},
		{"another scheme", func(r *http.Request) { r.Header.Set("Authorization", "Digest x") }, "T", iot.ErrUnauthenticated},
		{"token that may send commands", token(oidctest.Claims{"rights": rights("command/T", "write")}), "T", nil},
		{"token for all tenants", token(oidctest.Claims{"rights": rights("command/*", "write")}), "T", nil},
		{"token of another tenant", token(oidctest.Claims{"rights": rights("command/T", "write")}), "OTHER", iot.ErrForbidden},
		{"below the tenant", token(oidctest.Claims{"rights": rights("command/T", "write")}), "T/x", iot.ErrForbidden},
		{"token that may read commands", token(oidctest.Claims{"rights": rights("command/T", "read")}), "T", iot.ErrForbidden},
		{"token of an operator", token(oidctest.Claims{"scopes": scopes("T", "read")}), "T", nil},
		{"token of an operator who writes", token(oidctest.Claims{"scopes": scopes("T", "write")}), "T", iot.ErrForbidden},
		{"token without rights", token(oidctest.Claims{}), "T", iot.ErrForbidden},
		{"no token", func(r *http.Request) { r.Header.Set("Authorization", "Bearer") }, "T", iot.ErrUnauthenticated},
		{"application's certificate", certificate("app-1"), "T", nil},
		{"certificate of one that receives", certificate("listener-1"), "T", iot.ErrForbidden},
		{"operator's certificate", certificate("operator-1"), "ANY", nil},
		{"unknown certificate", certificate("stranger"), "T", iot.ErrUnauthenticated},
		{"adapter", certificate("http-0", "adapter"), "T", iot.ErrForbidden},
		{"function", certificate("identity-0", "function"), "T", iot.ErrForbidden},
		{"component with a bad name", certificate("a/b", "adapter"), "T", iot.ErrUnauthenticated},
		{"component named as an operator", certificate("operator-1", "router"), "T", iot.ErrForbidden},
		{"certificate that nobody verified", func(r *http.Request) { r.TLS = &tls.ConnectionState{} }, "T", iot.ErrUnauthenticated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/v1/reachable/T", nil)
			tt.as(r)
			if err := a.permit(r, tt.tenant); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// TestAskersWhoGuess has the right password refused after too many wrong ones, and only
// where they came from.
func TestAskersWhoGuess(t *testing.T) {
	a, _ := newAsked(t)
	ask := func(from, password string) error {
		r := httptest.NewRequest(http.MethodGet, "/v1/reachable/T", nil)
		r.RemoteAddr = from
		r.SetBasicAuth("reader", password)
		return a.permit(r, "T")
	}
	for range failuresPerName {
		if err := ask("192.0.2.1:1", "guess"); !errors.Is(err, iot.ErrUnauthenticated) {
			t.Fatal(err)
		}
	}
	if err := ask("192.0.2.1:2", "pw"); !errors.Is(err, iot.ErrQuota) || iot.RetryAfter(err) <= 0 {
		t.Errorf("after too many: %v", err)
	}
	if err := ask("192.0.2.2:1", "pw"); err != nil {
		t.Errorf("from elsewhere: %v", err)
	}
}

// TestWithoutARouter expects a process without commands to serve what it did.
func TestWithoutARouter(t *testing.T) {
	w := httptest.NewRecorder()
	h := (&Process{}).WithReachable(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }), true)
	if h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/reachable/T", nil)); w.Code != http.StatusTeapot {
		t.Errorf("got %d", w.Code)
	}
}
