package management_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/functions/management"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/auth/oidctest"
	"github.com/sluice-iot/sluice/internal/registry"
)

// TestOperatorsOverTLS has operators of an identities file log in, each in his way.
func TestOperatorsOverTLS(t *testing.T) {
	issuer := oidctest.New(t)
	issuer.Rotate(t, "k", "ES256")
	path := filepath.Join(t.TempDir(), "identities.yaml")
	text := fmt.Sprintf(`operators:
  - {name: alice, secret: "{plain}pw", scopes: [{tenant: "*", may: [read, write, export]}]}
  - {name: bob, certificate: bob, scopes: [{tenant: T, may: [read]}]}
issuers: [{issuer: "%s", audience: sluice, operator-scopes-claim: scopes}]
`, issuer.URL)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	directory, err := auth.Open(path, auth.Options{AllowPlain: true})
	if err != nil {
		t.Fatal(err)
	}
	trusted, stranger := client(t, "bob"), client(t, "bob")
	pool := x509.NewCertPool()
	pool.AddCert(trusted.Leaf)
	server := httptest.NewUnstartedServer(management.New(newService(t, registry.Options{}), management.Directory(directory), management.Options{}))
	server.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	server.StartTLS()
	t.Cleanup(server.Close)

	get := func(method, path string, certificate *tls.Certificate, set func(*http.Request)) int {
		transport := server.Client().Transport.(*http.Transport).Clone()
		defer transport.CloseIdleConnections()
		if certificate != nil {
			transport.TLSClientConfig.Certificates = []tls.Certificate{*certificate}
		}
		r, _ := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
		set(r)
		res, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			return 0
		}
		res.Body.Close()
		return res.StatusCode
	}
	nothing := func(*http.Request) {}
	token := issuer.Token(t, oidctest.Claims{"sub": "carol", "aud": "sluice", "scopes": []any{map[string]any{"tenant": "T", "may": []string{"write"}}}})
	for name, c := range map[string]struct {
		got, want int
	}{
		"password":          {get("POST", "/v1/tenants/T", nil, basic("alice", "pw")), 201},
		"wrong password":    {get("GET", "/v1/tenants/T", nil, basic("alice", "x")), 401},
		"no secret":         {get("GET", "/v1/tenants/T", nil, basic("bob", "")), 401},
		"certificate":       {get("GET", "/v1/tenants", &trusted, nothing), 200},
		"its scopes":        {get("DELETE", "/v1/tenants/T", &trusted, nothing), 403},
		"of another's":      {get("GET", "/v1/tenants/T", &stranger, nothing), 0},
		"token":             {get("POST", "/v1/devices/T/D", nil, bearer(token)), 201},
		"token's scopes":    {get("GET", "/v1/devices/T/D", nil, bearer(token)), 403},
		"token before it":   {get("GET", "/v1/devices/T/D", &trusted, bearer(token)), 403},
		"an unknown issuer": {get("GET", "/v1/devices/T/D", nil, bearer("x.y.z")), 401},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %d, want %d", name, c.got, c.want)
		}
	}
}

// client makes a certificate that signs itself.
func client(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
