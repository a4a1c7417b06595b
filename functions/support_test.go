package functions_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"log/slog"
	"math/big"
	"net"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/events"
	cehttpinvoke "github.com/sluice-iot/sluice/events/invoke/http"
	"github.com/sluice-iot/sluice/events/invoke/inproc"
	"github.com/sluice-iot/sluice/functions"
	"github.com/sluice-iot/sluice/functions/host/knative"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/sqlitestore"
)

const issuer = "//sluice.test"

var (
	noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	log  = slog.New(slog.DiscardHandler)
)

func clock() time.Time { return noon }

// installation is a registry with the identity functions over it.
type installation struct {
	service   *registry.Service
	store     backend
	signer    *assertion.Signer
	functions []events.Function
}

// backend is what every store is.
type backend interface {
	registry.Backend
	assertion.KeyStore
	Close() error
}

// newInstallation is one on SQLite.
func newInstallation(t testing.TB) *installation {
	t.Helper()
	store, err := sqlitestore.Open(t.Context(), filepath.Join(t.TempDir(), "registry.db"), sqlitestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return newInstallationOn(t, store)
}

func newInstallationOn(t testing.TB, store backend) *installation {
	t.Helper()
	t.Cleanup(func() { store.Close() })
	service, err := registry.New(store, registry.Options{Passwords: registry.NewPasswords(4, 0), Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	kek, err := assertion.NewKEK(make([]byte, assertion.KEKSize))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := assertion.NewSigner(assertion.SignerConfig{Store: store, KEK: kek, Issuer: issuer, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	list, err := functions.Identity(functions.Deps{Registry: service, Passwords: service.Passwords(), Signer: signer, Feed: store, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	return &installation{service, store, signer, list}
}

// tenant, device and credentials take the JSON of the management API.
func (in *installation) tenant(t testing.TB, id iot.TenantID, body string) {
	t.Helper()
	var v iot.Tenant
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatal(err)
	}
	if _, _, err := in.service.CreateTenant(t.Context(), id, v); err != nil {
		t.Fatal(err)
	}
}

func (in *installation) device(t testing.TB, tenant iot.TenantID, id iot.DeviceID, body, credentials string) {
	t.Helper()
	var v iot.Device
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatal(err)
	}
	if _, _, err := in.service.CreateDevice(t.Context(), tenant, id, v); err != nil {
		t.Fatal(err)
	}
	if credentials == "" {
		return
	}
	var set []iot.Credential
	if err := json.Unmarshal([]byte(credentials), &set); err != nil {
		t.Fatal(err)
	}
	// Straight into the store, so that the tests may name the secrets' ids.
	for _, c := range set {
		for i := range c.Secrets {
			if plain := c.Secrets[i].PwdPlain; plain != "" {
				hash, err := in.service.Passwords().Hash(t.Context(), plain)
				if err != nil {
					t.Fatal(err)
				}
				c.Secrets[i].PwdPlain, c.Secrets[i].HashFunction, c.Secrets[i].PwdHash = "", registry.Bcrypt, hash
			}
		}
	}
	rec := registry.CredentialsRecord{Tenant: tenant, Device: id, Set: set, Version: "v"}
	if err := in.store.PutCredentials(t.Context(), rec, "", noon); err != nil {
		t.Fatal(err)
	}
}

// routed sends calls of each type through the invoker of the component that may ask it.
type routed struct{ adapter, router events.Invoker }

func (r routed) Invoke(ctx context.Context, req events.Request) (events.Reply, error) {
	if req.EventType() == events.TypeAdmit {
		return r.adapter.Invoke(ctx, req)
	}
	return r.router.Invoke(ctx, req)
}

// invokers returns every way to call the functions; all must give the same.
func (in *installation) invokers(t testing.TB) map[string]events.Invoker {
	t.Helper()
	direct, err := inproc.New(log, in.functions...)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := inproc.NewEncoded(log, in.functions...)
	if err != nil {
		t.Fatal(err)
	}
	ca := newAuthority(t)
	url := in.host(t, ca)
	return map[string]events.Invoker{
		"in process": direct,
		"encoded":    encoded,
		"HTTP":       routed{ca.invoker(t, url, "adapter"), ca.invoker(t, url, "router")},
	}
}

// host starts a function host with mutual TLS and returns its URL.
func (in *installation) host(t testing.TB, ca *authority) string {
	t.Helper()
	h, err := knative.New(knative.Config{Name: "sluice.test", Functions: in.functions, Caller: knative.CertificateCaller, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "function-0", "function")}, ClientCAs: ca.pool, ClientAuth: tls.VerifyClientCertIfGiven}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.URL
}

// authority is the CA of one installation.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{cert: cert, key: key, pool: x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

func (a *authority) issue(t testing.TB, cn, ou string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn, OrganizationalUnit: []string{ou}},
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) invoker(t testing.TB, url, kind string) *cehttpinvoke.Invoker {
	t.Helper()
	inv, err := cehttpinvoke.New(cehttpinvoke.Config{
		URL: url, Source: "//sluice.test/" + kind + "s/" + kind + "-0",
		TLS: &tls.Config{RootCAs: a.pool, Certificates: []tls.Certificate{a.issue(t, kind+"-0", kind)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(inv.Close)
	return inv
}

// functionsKeys reads keys as a router does.
func functionsKeys(inv events.Invoker) assertion.KeySource {
	return func(ctx context.Context) (assertion.KeySet, time.Duration, error) {
		set, err := events.Call(ctx, inv, events.AssertionKeys{})
		if err != nil {
			return assertion.KeySet{}, 0, err
		}
		return assertion.KeySet{Keys: set.Keys}, set.MaxAge(), nil
	}
}
