package registry_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// ca is an issuer of certificates.
type ca struct {
	name pkix.Name
	key  crypto.Signer
}

func newCA(t *testing.T, cn string) ca {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return ca{pkix.Name{CommonName: cn, Organization: []string{"Sluice"}}, key}
}

// issue signs a certificate for a new key.
func (c ca) issue(t *testing.T, subject pkix.Name, change ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return c.sign(t, subject, key.Public(), change...)
}

func (c ca) sign(t *testing.T, subject pkix.Name, public crypto.PublicKey, change ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: subject, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour)}
	for _, f := range change {
		f(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, &x509.Certificate{Subject: c.name}, public, c.key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert
}

// anchor is the CA as tenants keep it: name and key.
func (c ca) anchor(t *testing.T, id string, change ...func(*iot.TrustAnchor)) iot.TrustAnchor {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(c.key.Public())
	must(t, err)
	dn, err := registry.CanonicalDN(c.name.String())
	must(t, err)
	a := iot.TrustAnchor{ID: id, SubjectDN: dn, PublicKey: spki, NotBefore: iot.Timestamp{Time: noon.Add(-time.Hour)}, NotAfter: iot.Timestamp{Time: noon.Add(time.Hour)}}
	for _, f := range change {
		f(&a)
	}
	return a
}

func TestVerifyCertificate(t *testing.T) {
	root, twin, other := newCA(t, "root"), newCA(t, "root"), newCA(t, "other")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	rsaRoot, edRoot := ca{pkix.Name{CommonName: "rsa"}, rsaKey}, ca{pkix.Name{CommonName: "ed"}, edKey}
	self := newCA(t, "device")
	self.name = pkix.Name{CommonName: "device"}
	device := pkix.Name{CommonName: "device"}
	past := func(a *iot.TrustAnchor) { a.NotAfter.Time = noon.Add(-time.Second) }
	future := func(a *iot.TrustAnchor) { a.NotBefore.Time = noon.Add(time.Second) }
	for _, tt := range []struct {
		name    string
		cert    *x509.Certificate
		anchors []iot.TrustAnchor
		want    string // id of the anchor
		err     string
	}{
		{"issued", root.issue(t, device), []iot.TrustAnchor{other.anchor(t, "o"), root.anchor(t, "a")}, "a", ""},
		{"two anchors of one name", twin.issue(t, device), []iot.TrustAnchor{root.anchor(t, "a"), twin.anchor(t, "b")}, "b", ""},
		{"the valid one of two", root.issue(t, device), []iot.TrustAnchor{root.anchor(t, "a", past), root.anchor(t, "b")}, "b", ""},
		{"RSA", rsaRoot.issue(t, device), []iot.TrustAnchor{rsaRoot.anchor(t, "r")}, "r", ""},
		{"RSA-PSS", rsaRoot.issue(t, device, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA384WithRSAPSS }), []iot.TrustAnchor{rsaRoot.anchor(t, "r")}, "r", ""},
		{"Ed25519", edRoot.issue(t, device), []iot.TrustAnchor{edRoot.anchor(t, "e")}, "e", ""},
		{"its own anchor", self.sign(t, device, self.key.Public()), []iot.TrustAnchor{self.anchor(t, "s")}, "s", ""},
		{"client usage", root.issue(t, device, func(c *x509.Certificate) {
			c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}), []iot.TrustAnchor{root.anchor(t, "a")}, "a", ""},
		{"any usage", root.issue(t, device, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), []iot.TrustAnchor{root.anchor(t, "a")}, "a", ""},

		{"no anchors", root.issue(t, device), nil, "", "no trust anchor"},
		{"anchor expired", root.issue(t, device), []iot.TrustAnchor{root.anchor(t, "a", past)}, "", "no trust anchor"},
		{"anchor not valid yet", root.issue(t, device), []iot.TrustAnchor{root.anchor(t, "a", future)}, "", "no trust anchor"},
		{"another issuer", other.issue(t, device), []iot.TrustAnchor{root.anchor(t, "a")}, "", "no trust anchor"},
		{"another issuer's key", twin.issue(t, device), []iot.TrustAnchor{root.anchor(t, "a")}, "", "signature"},
		{"key of another kind", root.issue(t, device), []iot.TrustAnchor{root.anchor(t, "a", func(a *iot.TrustAnchor) { a.PublicKey = rsaRoot.anchor(t, "r").PublicKey })}, "", "signature"},
		{"key that does not decode", root.issue(t, device), []iot.TrustAnchor{root.anchor(t, "a", func(a *iot.TrustAnchor) { a.PublicKey = []byte{1} })}, "", "decode"},
		{"expired", root.issue(t, device, func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Second) }), []iot.TrustAnchor{root.anchor(t, "a")}, "", "expired"},
		{"not valid yet", root.issue(t, device, func(c *x509.Certificate) { c.NotBefore = noon.Add(time.Second) }), []iot.TrustAnchor{root.anchor(t, "a")}, "", "not valid yet"},
		{"SHA-1", weak(t, root.issue(t, device), x509.ECDSAWithSHA1), []iot.TrustAnchor{root.anchor(t, "a")}, "", "ECDSA-SHA1"},
		{"MD5", weak(t, root.issue(t, device), x509.MD5WithRSA), []iot.TrustAnchor{root.anchor(t, "a")}, "", "MD5-RSA"},
		{"server usage", root.issue(t, device, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), []iot.TrustAnchor{root.anchor(t, "a")}, "", "clientAuth"},
		{"encryption only", root.issue(t, device, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), []iot.TrustAnchor{root.anchor(t, "a")}, "", "digitalSignature"},
		{"unknown critical extension", root.issue(t, device, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}), []iot.TrustAnchor{root.anchor(t, "a")}, "", "1.2.3.4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := registry.VerifyCertificate(&iot.Tenant{TrustedCA: tt.anchors}, tt.cert, noon)
			if tt.err == "" {
				must(t, err)
				if a.ID != tt.want {
					t.Errorf("anchor %q, want %q", a.ID, tt.want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %v, want %q", err, tt.err)
			}
		})
	}
}

// weak pretends that a certificate was signed in another way: nobody signs
// with those any more.
func weak(t *testing.T, cert *x509.Certificate, alg x509.SignatureAlgorithm) *x509.Certificate {
	t.Helper()
	c := *cert
	c.SignatureAlgorithm = alg
	return &c
}

func TestTamperedCertificate(t *testing.T) {
	root := newCA(t, "root")
	good := root.issue(t, pkix.Name{CommonName: "device"})
	tenant := &iot.Tenant{TrustedCA: []iot.TrustAnchor{root.anchor(t, "a")}}
	for i := range good.Raw {
		der := append([]byte(nil), good.Raw...)
		der[i] ^= 1
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			continue
		}
		if _, err := registry.VerifyCertificate(tenant, cert, noon); err == nil {
			// An ECDSA signature and its outer form have several spellings only where nothing is signed.
			if string(cert.RawTBSCertificate) != string(good.RawTBSCertificate) {
				t.Fatalf("byte %d changed and the certificate verifies", i)
			}
		}
	}
}

func TestApplyTemplate(t *testing.T) {
	root := newCA(t, "root")
	subject := pkix.Name{CommonName: "sensor, 1", Organization: []string{"Acme"}, OrganizationalUnit: []string{"first"},
		ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Acme"},
			{Type: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: "near"},
			{Type: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: "far"},
			{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "sensor, 1"},
		}}
	cert := root.issue(t, subject)
	bare := root.issue(t, pkix.Name{CommonName: "bare"})
	for _, tt := range []struct {
		template string
		cert     *x509.Certificate
		want     string
		err      string
	}{
		{"{{subject-cn}}", cert, "sensor, 1", ""},
		{"{{subject-dn}}", cert, `CN=sensor\, 1,OU=far,OU=near,O=Acme`, ""},
		{"{{subject-ou}}", cert, "near", ""}, // the last one written in RFC 2253
		{"a-{{subject-o}}-{{subject-cn}}-{{subject-o}}", cert, "a-Acme-sensor, 1-Acme", ""},
		{"{{subject-cn}}@{{subject-o}}", bare, "", "has no O"},
		{"{{subject-ou}}", bare, "", "has no OU"},
		{"plain", cert, "", "no placeholder"},
		{"{{subject-x}}", cert, "", "unknown placeholder"},
	} {
		got, err := registry.ApplyTemplate(tt.template, tt.cert.RawSubject)
		if tt.err == "" {
			must(t, err)
			if got != tt.want {
				t.Errorf("%s: got %q, want %q", tt.template, got, tt.want)
			}
			continue
		}
		wantErr(t, err, iot.ErrInvalid)
		if !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got %v, want %q", tt.template, err, tt.err)
		}
	}
	if _, err := registry.ApplyTemplate("{{subject-cn}}", []byte{1, 2}); err == nil {
		t.Error("garbage has a common name")
	}
}
