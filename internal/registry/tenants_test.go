package registry_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// certificate returns the base64 of a new certificate and of its public key.
func certificate(t *testing.T, subject pkix.Name) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: subject, NotBefore: noon, NotAfter: noon.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	must(t, err)
	spki, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	must(t, err)
	return base64.StdEncoding.EncodeToString(der), base64.StdEncoding.EncodeToString(spki)
}

// put creates a tenant of the given JSON and returns what is read back.
func put(t *testing.T, s *registry.Service, id iot.TenantID, body string) (string, error) {
	t.Helper()
	v, err := registry.DecodeTenant([]byte(body))
	if err != nil {
		return "", err
	}
	if _, _, err := s.CreateTenant(t.Context(), id, v); err != nil {
		return "", err
	}
	r, err := s.Tenant(t.Context(), id)
	must(t, err)
	b, err := json.Marshal(r.Tenant)
	must(t, err)
	return string(b), nil
}

func TestTenantShapes(t *testing.T) {
	s := newService(t, registry.Options{})
	const same = "same"
	for i, c := range []struct{ name, in, want string }{ // want "" = refused
		{"empty", `{}`, same},
		{"explicit default", `{"enabled":true}`, same},
		{"defaults are left out", `{"enabled":null,"ext":{},"defaults":{ },"trusted-ca":[],"minimum-message-size":0}`, `{}`},
		{"nulls", `{"ext":null,"trusted-ca":null,"adapters":null,"resource-limits":null}`, `{}`},
		{"free form", `{"ext":{"a":[1,{"b":null}],"big":12345678901234567890},"defaults":{"ttl":30}}`, same},
		{"free form must be an object", `{"ext":[]}`, ""},
		{"defaults must be an object", `{"defaults":"x"}`, ""},
		{"alias", `{"alias":"a-1"}`, same},
		{"alias with capital", `{"alias":"A"}`, ""},
		{"null alias", `{"alias":null}`, ""},
		{"empty alias", `{"alias":""}`, ""},
		{"status", `{"status":{}}`, ""},
		{"minimum size", `{"minimum-message-size":4096}`, same},
		{"negative minimum size", `{"minimum-message-size":-1}`, ""},
		{"null minimum size", `{"minimum-message-size":null}`, ""},
		{"minimum size of more than 32 bits", `{"minimum-message-size":2147483648}`, ""},
		{"adapter defaults", `{"adapters":[{"type":"hono-http"}]}`,
			`{"adapters":[{"type":"hono-http","enabled":false,"device-authentication-required":true}]}`},
		{"adapter", `{"adapters":[{"type":"x","enabled":true,"device-authentication-required":false,"ext":{"a":1}}]}`, same},
		{"no adapter", `{"adapters":[]}`, ""},
		{"adapter without type", `{"adapters":[{"enabled":true}]}`, ""},
		{"adapter twice", `{"adapters":[{"type":"a"},{"type":"a"}]}`, ""},
		{"adapter with unknown member", `{"adapters":[{"type":"a","max-ttd":1}]}`, ""},
		{"null adapter", `{"adapters":[null]}`, ""},
		{"empty limits stay", `{"resource-limits":{}}`, same},
		{"default limits are left out", `{"resource-limits":{"max-connections":-1,"max-ttl":-1,"ext":{}}}`, `{"resource-limits":{}}`},
		{"limits of zero", `{"resource-limits":{"max-connections":0,"max-ttl-telemetry-qos0":0}}`, same},
		{"limit below -1", `{"resource-limits":{"max-ttl":-2}}`, ""},
		{"fraction", `{"resource-limits":{"max-ttl":1.5}}`, ""},
		{"unknown limit", `{"resource-limits":{"max":1}}`, ""},
		{"most connections", `{"resource-limits":{"max-connections":2147483647,"max-ttl":9223372036854775807}}`, same},
		{"connections of more than 32 bits", `{"resource-limits":{"max-connections":2147483648}}`, ""},
		{"data volume", `{"resource-limits":{"data-volume":{"effective-since":"2019-09-15T15:23:10.5+02:00"}}}`,
			`{"resource-limits":{"data-volume":{"effective-since":"2019-09-15T13:23:10Z","period":{"mode":"monthly"}}}}`},
		{"connection duration", `{"resource-limits":{"connection-duration":{"effective-since":"2019-09-15T15:23:10Z","max-minutes":5,"period":{"mode":"days","no-of-days":3}}}}`, same},
		{"data volume without start", `{"resource-limits":{"data-volume":{"max-bytes":1}}}`, ""},
		{"time without offset", `{"resource-limits":{"data-volume":{"effective-since":"2019-09-15T15:23:10"}}}`, ""},
		{"bare date", `{"resource-limits":{"data-volume":{"effective-since":"2019-09-15"}}}`, ""},
		{"unknown period", `{"resource-limits":{"data-volume":{"effective-since":"2019-09-15T15:23:10Z","period":{"mode":"yearly"}}}}`, ""},
		{"null period", `{"resource-limits":{"data-volume":{"effective-since":"2019-09-15T15:23:10Z","period":null}}}`,
			`{"resource-limits":{"data-volume":{"effective-since":"2019-09-15T15:23:10Z","period":{"mode":"monthly"}}}}`},
		{"empty period", `{"resource-limits":{"data-volume":{"effective-since":"2019-09-15T15:23:10Z","period":{}}}}`, ""},
		{"period without mode", `{"resource-limits":{"data-volume":{"effective-since":"2019-09-15T15:23:10Z","period":{"no-of-days":3}}}}`, ""},
		{"period of mode null", `{"resource-limits":{"connection-duration":{"effective-since":"2019-09-15T15:23:10Z","period":{"mode":null}}}}`, ""},
		{"period of empty mode", `{"resource-limits":{"connection-duration":{"effective-since":"2019-09-15T15:23:10Z","period":{"mode":""}}}}`, ""},
		{"period of more than 32 bits", `{"resource-limits":{"connection-duration":{"effective-since":"2019-09-15T15:23:10Z","period":{"mode":"days","no-of-days":2147483648}}}}`, ""},
		{"registration limits", `{"registration-limits":{"max-devices":3}}`, `{"registration-limits":{"max-devices":3,"max-credentials-per-device":-1}}`},
		{"registration limit below -1", `{"registration-limits":{"max-devices":-2}}`, ""},
		{"tracing", `{"tracing":{"sampling-mode":"all","sampling-mode-per-auth-id":{"a":"none"}}}`, same},
		{"unknown sampling", `{"tracing":{"sampling-mode":"some"}}`, ""},
		{"unknown sampling of an id", `{"tracing":{"sampling-mode-per-auth-id":{"a":"some"}}}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := put(t, s, iot.TenantID(fmt.Sprint("T", i)), c.in)
			if c.want == "" {
				wantErr(t, err, iot.ErrInvalid)
				return
			}
			must(t, err)
			if want := strings.ReplaceAll(c.want, same, c.in); got != want {
				t.Fatalf("\n got %s\nwant %s", got, want)
			}
		})
	}
}

func TestTrustAnchors(t *testing.T) {
	s := newService(t, registry.Options{})
	cert, key := certificate(t, pkix.Name{CommonName: "ca", Organization: []string{"Acme, Inc"}})
	subject := base64.StdEncoding.EncodeToString(func() []byte {
		der, _ := base64.StdEncoding.DecodeString(cert)
		c, _ := x509.ParseCertificate(der)
		return c.RawSubject
	}())
	const validity = `"not-before":"2026-03-01T12:00:00Z","not-after":"2026-03-01T13:00:00Z"`
	const flags = `"auto-provisioning-enabled":false,"auto-provision-as-gateway":false`
	explicit := func(members string) string {
		return `{"trusted-ca":[{"id":"1","subject-dn":"CN=x` + fmt.Sprint(time.Now().UnixNano()) + `","public-key":"` + key + `",` + members + `}]}`
	}
	for i, c := range []struct{ name, in, want string }{ // want is a part; "" = refused
		{"cert", `{"trusted-ca":[{"id":"1","cert":"` + cert + `","subject-dn":"CN=ignored"}]}`,
			`{"trusted-ca":[{"id":"1","subject-dn":"CN=ca,O=Acme\\, Inc","subject-dn-bytes":"` + subject + `","public-key":"` + key + `","algorithm":"EC",` + validity + `,` + flags + `}]}`},
		{"explicit", explicit(`"algorithm":"EC",` + validity), `"algorithm":"EC",` + validity + `,` + flags},
		{"canonical DN", `{"trusted-ca":[{"subject-dn":"cn = A , O=B","public-key":"` + key + `","algorithm":"EC",` + validity + `}]}`, `"subject-dn":"CN=A,O=B"`},
		{"RSA by default", explicit(validity), ""},
		{"no validity", explicit(`"algorithm":"EC"`), ""},
		{"null validity", explicit(`"algorithm":"EC","not-before":null,"not-after":null`), ""},
		{"no DN", `{"trusted-ca":[{"public-key":"` + key + `","algorithm":"EC",` + validity + `}]}`, ""},
		{"bad DN", `{"trusted-ca":[{"subject-dn":"x","public-key":"` + key + `","algorithm":"EC",` + validity + `}]}`, ""},
		{"bad key", `{"trusted-ca":[{"subject-dn":"CN=y","public-key":"AAAA","algorithm":"EC",` + validity + `}]}`, ""},
		{"bad base64", `{"trusted-ca":[{"subject-dn":"CN=y","public-key":"_-__","algorithm":"EC",` + validity + `}]}`, ""},
		{"bad cert", `{"trusted-ca":[{"cert":"AAAA"}]}`, ""},
		{"twice the id", `{"trusted-ca":[{"id":"1","cert":"` + cert + `"},{"id":"1","cert":"` + cert + `"}]}`, ""},
		{"template", explicit(`"algorithm":"EC","auth-id-template":"d-{{subject-cn}}",` + validity), `"auth-id-template":"d-{{subject-cn}}"`},
		{"template without placeholder", explicit(`"algorithm":"EC","auth-id-template":"d",` + validity), ""},
		{"unknown placeholder", explicit(`"algorithm":"EC","auto-provisioning-device-id-template":"{{subject-dn}}{{x}}",` + validity), ""},
		{"OCSP without cert", explicit(`"algorithm":"EC","ocsp-revocation-enabled":true,` + validity), ""},
		{"OCSP responder", explicit(`"algorithm":"EC","ocsp-revocation-enabled":true,"ocsp-responder-cert":"` + cert + `",` + validity), `"ocsp-responder-cert":"` + cert + `"`},
		{"unknown member", explicit(`"algorithm":"EC","x":1,` + validity), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := iot.TenantID(fmt.Sprint("T", i))
			got, err := put(t, s, id, c.in)
			if c.want == "" {
				wantErr(t, err, iot.ErrInvalid)
				return
			}
			must(t, err)
			if !strings.Contains(got, c.want) || strings.Contains(got, `"cert"`) {
				t.Fatalf("\n got %s\nwant %s", got, c.want)
			}
			v, err := registry.DecodeTenant([]byte(got)) // what is read can be put back
			must(t, err)
			_, err = s.UpdateTenant(t.Context(), id, v, "")
			must(t, err)
			must(t, s.DeleteTenant(t.Context(), id, ""))
		})
	}

	got, err := put(t, s, "ids", `{"trusted-ca":[{"cert":"`+cert+`","ocsp-revocation-enabled":true}]}`)
	must(t, err)
	if !strings.Contains(got, `{"id":"`) || !strings.Contains(got, `"ocsp-responder-cert":"`+cert+`"`) {
		t.Fatalf("got %s", got)
	}
	_, err = put(t, s, "other", `{"trusted-ca":[{"cert":"`+cert+`"}]}`)
	wantErr(t, err, iot.ErrExists)
	snap, err := s.Read(t.Context(), registry.Query{Tenant: registry.TenantKey{SubjectDN: `cn=ca, o="Acme, Inc"`}})
	if err != nil || snap.Tenant.ID != "ids" {
		t.Fatalf("got %v, %v", snap.Tenant.ID, err)
	}
}

func TestCanonicalDN(t *testing.T) {
	for _, c := range []struct{ in, want string }{ // want "" = refused
		{"CN=a", "CN=a"},
		{" cn = a b , O=c;C=DE", "CN=a b,O=c,C=DE"},
		{"OU=a+CN=b,O=c", "OU=a+CN=b,O=c"},
		{`CN=a\,b,O=c`, `CN=a\,b,O=c`},
		{`CN="a,b" , O=c`, `CN=a\,b,O=c`},
		{`CN=\C3\A4`, "CN=ä"},
		{`CN=\ a\ `, `CN=\ a\ `},
		{`CN=a#b,O=\#c`, `CN=a#b,O=\#c`},
		{"2.5.4.3=a", "CN=a"},
		{"OID.2.5.4.3=a", "CN=a"},
		{"emailAddress=a@b,CN=c", "1.2.840.113549.1.9.1=#1603614062,CN=c"},
		{"1.2.840.113549.1.9.1=#1603614062,CN=c", "1.2.840.113549.1.9.1=#1603614062,CN=c"},
		{"CN=#0c0161", "CN=a"},
		{"serialNumber=12,UID=x,DC=org,STREET=y,L=l,ST=s", "2.5.4.5=#13023132,UID=x,DC=org,STREET=y,L=l,ST=s"},
		{"CN=", "CN="},
		{"", ""}, {"a", ""}, {"CN", ""}, {"CN=a,", ""}, {"XX=a", ""}, {`CN=a\`, ""}, {`CN="a`, ""}, {`CN="a"b`, ""},
		{"CN=a<b", ""}, {"CN=#zz", ""}, {"CN=#0c0261", ""}, {"1..2=a", ""}, {"CN=\xff", ""},
	} {
		got, err := registry.CanonicalDN(c.in)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%q: got %q, %v, want %q", c.in, got, err, c.want)
		}
		if again, err := registry.CanonicalDN(got); err == nil && again != got {
			t.Errorf("%q is not stable: %q", got, again)
		}
	}
}

func TestSubjectDN(t *testing.T) {
	name := pkix.Name{Country: []string{"DE"}, Organization: []string{`A, "B"`}, OrganizationalUnit: []string{"x"}, CommonName: " ä",
		ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, Value: "a@b"}}}
	der, err := asn1.Marshal(name.ToRDNSequence())
	must(t, err)
	got, err := registry.SubjectDN(der)
	must(t, err)
	again, err := registry.CanonicalDN(got)
	if err != nil || again != got {
		t.Fatalf("%q, %v is not what was given: %q", again, err, got)
	}
	if !strings.Contains(got, `CN=\ ä,OU=x,O=A\, \"B\",C=DE`) {
		t.Fatalf("got %s", got)
	}
	if _, err := registry.SubjectDN([]byte{0x30, 1}); err == nil {
		t.Fatal("garbage was accepted")
	}
}

func FuzzCanonicalDN(f *testing.F) {
	f.Add(`CN=a\,b+OU="x;y" , 1.2.3=#0c0161`)
	f.Fuzz(func(t *testing.T, s string) {
		dn, err := registry.CanonicalDN(s)
		if err != nil {
			return
		}
		if again, err := registry.CanonicalDN(dn); err != nil || again != dn {
			t.Fatalf("%q became %q and then %q, %v", s, dn, again, err)
		}
	})
}
