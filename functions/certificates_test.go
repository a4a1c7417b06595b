package functions_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/invoke/inproc"
	"github.com/sluice-iot/sluice/internal/iot"
)

// deviceCA issues the certificates of devices.
type deviceCA struct {
	name pkix.Name
	key  crypto.Signer
}

func newDeviceCA(t testing.TB, cn string) *deviceCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &deviceCA{pkix.Name{CommonName: cn}, key}
}

// issue returns a certificate in DER form.
func (c *deviceCA) issue(t testing.TB, cn string, change ...func(*x509.Certificate)) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: cn, Organization: []string{"Acme"}},
		NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(365 * 24 * time.Hour)}
	for _, f := range change {
		f(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, &x509.Certificate{Subject: c.name}, key.Public(), c.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// anchor is the JSON of the CA as a trust anchor, with more members.
func (c *deviceCA) anchor(t testing.TB, more map[string]any) string {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(c.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]any{
		"id": "anchor", "subject-dn": c.name.String(), "public-key": base64.StdEncoding.EncodeToString(spki), "algorithm": "EC",
		"not-before": "2020-01-01T00:00:00Z", "not-after": "2040-01-01T00:00:00Z",
	}
	maps.Copy(m, more)
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func byCertificate(ref events.TenantRef, der []byte) events.Admit {
	return events.Admit{Adapter: "hono-mqtt", TenantRef: ref, Credential: &events.Credential{Type: "x509-cert", Certificate: der}}
}

// encoded returns the invoker through which everything passes in its JSON form.
func (in *installation) encoded(t testing.TB) events.Invoker {
	t.Helper()
	inv, err := inproc.NewEncoded(log, in.functions...)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func TestAdmitByCertificate(t *testing.T) { testAdmitByCertificate(t, newInstallation(t)) }

func testAdmitByCertificate(t *testing.T, in *installation) {
	own, shared, templated, stranger, ocsp := newDeviceCA(t, "own"), newDeviceCA(t, "shared"), newDeviceCA(t, "templated"), newDeviceCA(t, "stranger"), newDeviceCA(t, "ocsp")
	in.tenant(t, "A", `{"alias":"alias-a","trust-anchor-group":"g","trusted-ca":[`+own.anchor(t, nil)+`,`+
		shared.anchor(t, map[string]any{"id": "s"})+`,`+templated.anchor(t, map[string]any{"id": "t", "auth-id-template": "{{subject-o}}-{{subject-cn}}"})+`,`+
		ocsp.anchor(t, map[string]any{"id": "o", "ocsp-revocation-enabled": true, "ocsp-responder-cert": base64.StdEncoding.EncodeToString(ocsp.issue(t, "r"))})+`]}`)
	in.tenant(t, "B", `{"trust-anchor-group":"g","trusted-ca":[`+shared.anchor(t, nil)+`]}`)
	in.tenant(t, "OFF", `{"enabled":false}`)
	in.device(t, "A", "d1", `{"via":["gw"]}`, `[{"type":"x509-cert","auth-id":"CN=d1,O=Acme","secrets":[{"id":"s1","not-after":"2021-01-01T00:00:00Z"}]}]`)
	in.device(t, "A", "gw", `{}`, `[{"type":"x509-cert","auth-id":"CN=gw,O=Acme","secrets":[{"id":"s2"}]}]`)
	in.device(t, "A", "d2", `{}`, `[{"type":"x509-cert","auth-id":"Acme-d2","secrets":[{"id":"s3"}]}]`)
	in.device(t, "A", "off", `{}`, `[{"type":"x509-cert","auth-id":"CN=off,O=Acme","enabled":false,"secrets":[{"id":"s4"}]}]`)
	in.device(t, "A", "mute", `{}`, `[{"type":"x509-cert","auth-id":"CN=mute,O=Acme","secrets":[{"id":"s5","enabled":false}]}]`)
	in.device(t, "A", "ctx", `{}`, `[{"type":"x509-cert","auth-id":"CN=ctx,O=Acme","ext":{"client-id":"c1"},"secrets":[{"id":"s6"}]}]`)
	in.device(t, "B", "b1", `{}`, `[{"type":"x509-cert","auth-id":"CN=b1,O=Acme","secrets":[{"id":"s7"}]}]`)

	d1 := own.issue(t, "d1")
	soon := own.issue(t, "d1", func(c *x509.Certificate) { c.NotAfter = noon.Add(10 * time.Minute) })
	nowhere := events.TenantRef{}
	for _, tt := range []struct {
		name   string
		req    events.Admit
		device iot.DeviceID
		secret string
		err    error
	}{
		{"by its issuer", byCertificate(nowhere, d1), "d1", "s1", nil},
		{"by its issuer's DN", byCertificate(events.TenantRef{SubjectDN: "cn=own"}, d1), "d1", "s1", nil},
		{"by the tenant's id", byCertificate(events.TenantRef{ID: "A"}, d1), "d1", "s1", nil},
		{"SNI does not count where the issuer leads to a tenant", byCertificate(events.TenantRef{SNI: "B.sluice.io"}, d1), "d1", "s1", nil},
		{"CA of two tenants by SNI", byCertificate(events.TenantRef{SNI: "B.sluice.io"}, shared.issue(t, "b1")), "b1", "s7", nil},
		{"CA of two tenants by SNI and DN", byCertificate(events.TenantRef{SNI: "alias-a.sluice.io", SubjectDN: "CN=shared"}, shared.issue(t, "d1")), "d1", "s1", nil},
		{"by a template", byCertificate(nowhere, templated.issue(t, "d2")), "d2", "s3", nil},
		{"again with the secret's id", with(byCertificate(nowhere, d1), func(a *events.Admit) { a.Credential.SecretID = "s1" }), "d1", "s1", nil},
		{"again with the secret's id alone", with(byCertificate(events.TenantRef{ID: "A"}, nil), func(a *events.Admit) { a.Credential.AuthID, a.Credential.SecretID = "O=Acme,CN=d1", "s1" }), "", "", iot.ErrUnauthenticated},
		{"again with the secret's id and auth-id alone", with(byCertificate(events.TenantRef{ID: "A"}, nil), func(a *events.Admit) { a.Credential.AuthID, a.Credential.SecretID = "CN=d1, O=Acme", "s1" }), "d1", "s1", nil},
		{"with a context", with(byCertificate(nowhere, own.issue(t, "ctx")), func(a *events.Admit) { a.Context = map[string]any{"client-id": "c1"} }), "ctx", "s6", nil},

		{"with another context", with(byCertificate(nowhere, own.issue(t, "ctx")), func(a *events.Admit) { a.Context = map[string]any{"client-id": "c2"} }), "", "", iot.ErrUnauthenticated},
		{"another secret's id", with(byCertificate(nowhere, d1), func(a *events.Admit) { a.Credential.SecretID = "s2" }), "", "", iot.ErrUnauthenticated},
		{"CA of two tenants", byCertificate(nowhere, shared.issue(t, "b1")), "", "", iot.ErrUnauthenticated},
		{"SNI of no tenant", byCertificate(events.TenantRef{SNI: "c.sluice.io"}, shared.issue(t, "b1")), "", "", iot.ErrUnauthenticated},
		{"SNI without a dot", byCertificate(events.TenantRef{SNI: "B"}, shared.issue(t, "b1")), "", "", iot.ErrInvalid},
		{"SNI of a disabled tenant", byCertificate(events.TenantRef{SNI: "OFF.sluice.io"}, shared.issue(t, "b1")), "", "", iot.ErrForbidden},
		{"foreign tenant", byCertificate(events.TenantRef{ID: "B"}, d1), "", "", iot.ErrUnauthenticated},
		{"unknown issuer", byCertificate(nowhere, stranger.issue(t, "d1")), "", "", iot.ErrUnauthenticated},
		{"issuer in name only", byCertificate(nowhere, newDeviceCA(t, "own").issue(t, "d1")), "", "", iot.ErrUnauthenticated},
		{"unknown subject", byCertificate(nowhere, own.issue(t, "none")), "", "", iot.ErrUnauthenticated},
		{"expired", byCertificate(nowhere, own.issue(t, "d1", func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Second) })), "", "", iot.ErrUnauthenticated},
		{"disabled credentials", byCertificate(nowhere, own.issue(t, "off")), "", "", iot.ErrUnauthenticated},
		{"disabled secret", byCertificate(nowhere, own.issue(t, "mute")), "", "", iot.ErrUnauthenticated},
		{"OCSP asked for, and nobody to ask", byCertificate(nowhere, ocsp.issue(t, "d1")), "", "", iot.ErrUnauthenticated},
		{"no certificate", byCertificate(nowhere, []byte{1}), "", "", iot.ErrInvalid},
		{"nothing that proves", byCertificate(events.TenantRef{ID: "A"}, nil), "", "", iot.ErrInvalid},
		{"certificate and password", with(byCertificate(nowhere, d1), func(a *events.Admit) { a.Credential.Password = "x" }), "", "", iot.ErrInvalid},
		{"id and SNI", byCertificate(events.TenantRef{ID: "A", SNI: "a.b"}, d1), "", "", iot.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := events.Call(t.Context(), in.encoded(t), tt.req)
			if !errors.Is(err, tt.err) {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			if err == nil && (got.DeviceID != tt.device || got.SecretID != tt.secret || got.CacheFor != 23*time.Hour) {
				t.Errorf("got %s, %s, kept %s", got.DeviceID, got.SecretID, got.CacheFor)
			}
		})
	}
	got, err := events.Call(t.Context(), in.encoded(t), with(byCertificate(nowhere, own.issue(t, "gw")), func(a *events.Admit) { a.DeviceID = "d1" }))
	if err != nil || got.DeviceID != "d1" || got.GatewayID != "gw" {
		t.Errorf("as a gateway: %+v, %v", got, err)
	}
	got, err = events.Call(t.Context(), in.encoded(t), byCertificate(nowhere, soon))
	if err != nil || got.CacheFor != 10*time.Minute {
		t.Errorf("an admission outlives the certificate: %+v, %v", got, err)
	}
}
