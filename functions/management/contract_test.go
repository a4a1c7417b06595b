package management_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/functions/management"
)

// certificate returns a self-signed one of 2026 and its key, in base64.
func certificate(t *testing.T, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der), base64.StdEncoding.EncodeToString(spki)
}

// step is one request and the status it gets.
type step struct {
	method, path, body string
	want               int
}

func (a *api) steps(steps ...step) {
	a.t.Helper()
	for _, s := range steps {
		a.want(s.want, s.method, s.path, s.body)
	}
}

// TestTenantRules walks through the contract's sections 2 and 3.
func TestTenantRules(t *testing.T) {
	cert, key := certificate(t, "ca")
	anchor := func(members string) string {
		return fmt.Sprintf(`{"subject-dn":"CN=ca","public-key":"%s","algorithm":"EC","not-before":"2026-01-01T00:00:00Z","not-after":"2027-01-01T00:00:00+01:00"%s}`, key, members)
	}
	for name, steps := range map[string][]step{
		"ids": {
			{"POST", "/v1/tenants/a-b_c.D9", "", 201}, {"POST", "/v1/tenants/a=b", "", 400}, {"POST", "/v1/tenants/%20", "", 400},
			{"PUT", "/v1/tenants/a=b", "{}", 400}, {"DELETE", "/v1/tenants/a=b", "", 400},
		},
		"unknown members": {
			{"POST", "/v1/tenants", `{"x":1}`, 400}, {"POST", "/v1/tenants", `{"status":{}}`, 400}, {"POST", "/v1/tenants", `{"adapters":[{"type":"a","x":1}]}`, 400},
			{"POST", "/v1/tenants", `{"resource-limits":{"x":1}}`, 400}, {"POST", "/v1/tenants", `{"trusted-ca":[` + anchor(`,"x":1`) + `]}`, 400},
		},
		"alias": {
			{"POST", "/v1/tenants/T", `{"alias":"t"}`, 201}, {"POST", "/v1/tenants/U", `{"alias":"t"}`, 409}, {"POST", "/v1/tenants/U", `{"alias":"u"}`, 201},
			{"PUT", "/v1/tenants/U", `{"alias":"t"}`, 409}, {"POST", "/v1/tenants/t", ``, 409}, {"POST", "/v1/tenants/v", ``, 201},
			{"PUT", "/v1/tenants/U", `{"alias":"v"}`, 409}, {"POST", "/v1/tenants", `{"alias":"T_1"}`, 400}, {"POST", "/v1/tenants", `{"alias":null}`, 400},
			{"GET", "/v1/tenants/u", "", 404}, {"PUT", "/v1/tenants/T", `{"alias":"t"}`, 204},
		},
		"adapters": {
			{"POST", "/v1/tenants", `{"adapters":[]}`, 400}, {"POST", "/v1/tenants", `{"adapters":[{}]}`, 400},
			{"POST", "/v1/tenants", `{"adapters":[{"type":"a"},{"type":"a"}]}`, 400}, {"POST", "/v1/tenants", `{"adapters":[{"type":"a"},{"type":"b"}]}`, 201},
		},
		"limits": {
			{"POST", "/v1/tenants", `{"resource-limits":{"max-connections":-2}}`, 400}, {"POST", "/v1/tenants", `{"resource-limits":{"data-volume":{}}}`, 400},
			{"POST", "/v1/tenants", `{"resource-limits":{"data-volume":{"effective-since":"2026-01-01"}}}`, 400}, {"POST", "/v1/tenants", `{"minimum-message-size":-1}`, 400},
			{"POST", "/v1/tenants", `{"resource-limits":{"data-volume":{"effective-since":"2026-01-01T00:00:00+02:00","period":{"mode":"days","no-of-days":30}}}}`, 201},
			{"POST", "/v1/tenants", `{"registration-limits":{"max-devices":-2}}`, 400}, {"POST", "/v1/tenants", `{"tracing":{"sampling-mode":"some"}}`, 400},
		},
		"trust anchors": {
			{"POST", "/v1/tenants/T", `{"trusted-ca":[` + anchor(`,"id":"1"`) + `,` + anchor(`,"id":"1"`) + `]}`, 400},
			{"POST", "/v1/tenants/T", `{"trusted-ca":[` + anchor(`,"id":"1"`) + `,` + anchor(`,"id":"2"`) + `]}`, 201},
			{"PUT", "/v1/tenants/T", `{"trusted-ca":[` + anchor(`,"id":"1"`) + `,` + anchor(`,"id":"1"`) + `]}`, 400},
			{"POST", "/v1/tenants/U", `{"trusted-ca":[{"cert":"` + cert + `"}]}`, 409},
			{"POST", "/v1/tenants/U", ``, 201}, {"PUT", "/v1/tenants/U", `{"trusted-ca":[` + anchor("") + `]}`, 409},
			{"PUT", "/v1/tenants/U", `{"trust-anchor-group":"g","trusted-ca":[` + anchor("") + `]}`, 409},
			{"PUT", "/v1/tenants/T", `{"trust-anchor-group":"g","trusted-ca":[` + anchor("") + `]}`, 204},
			{"PUT", "/v1/tenants/U", `{"trust-anchor-group":"g","trusted-ca":[` + anchor("") + `]}`, 204},
			{"PUT", "/v1/tenants/T", `{"trusted-ca":[]}`, 204}, {"PUT", "/v1/tenants/U", `{"trusted-ca":[]}`, 204}, {"PUT", "/v1/tenants/U", `{"trusted-ca":null}`, 204},
			{"POST", "/v1/tenants", `{"trusted-ca":[{"subject-dn":"CN=x","public-key":"AAAA","not-before":"2026-01-01T00:00:00Z","not-after":"2026-01-01T00:00:00Z"}]}`, 400},
			{"POST", "/v1/tenants", `{"trusted-ca":[{"cert":"AAAA"}]}`, 400}, {"POST", "/v1/tenants", `{"trusted-ca":[{"cert":"_-8="}]}`, 400},
			{"POST", "/v1/tenants", `{"trusted-ca":[` + anchor(`,"auth-id-template":"none"`) + `]}`, 400},
			{"POST", "/v1/tenants", `{"trusted-ca":[` + anchor(`,"ocsp-revocation-enabled":true`) + `]}`, 400},
		},
	} {
		t.Run(name, func(t *testing.T) { (&api{start(t, management.Options{}).Server, t}).steps(steps...) })
	}
	t.Run("read back", func(t *testing.T) {
		a := start(t, management.Options{})
		a.want(201, "POST", "/v1/tenants/T", `{"trusted-ca":[{"cert":"`+cert+`","ocsp-revocation-enabled":true},`+anchor(`,"id":"second"`)+`]}`)
		_, body := a.want(200, "GET", "/v1/tenants/T", "")
		var tenant struct {
			Anchors []map[string]any `json:"trusted-ca"`
		}
		if err := json.Unmarshal([]byte(body), &tenant); err != nil || len(tenant.Anchors) != 2 {
			t.Fatalf("got %s, %v", body, err)
		}
		first, second := tenant.Anchors[0], tenant.Anchors[1]
		id, _ := first["id"].(string)
		if !uuid.MatchString(id) || first["cert"] != nil || first["ocsp-responder-cert"] != cert || first["subject-dn"] != "CN=ca" || first["algorithm"] != "EC" || first["public-key"] != key {
			t.Errorf("got %v", first)
		}
		if second["id"] != "second" || second["not-after"] != "2026-12-31T23:00:00Z" {
			t.Errorf("got %v", second)
		}
		a.want(204, "PUT", "/v1/tenants/T", body) // what was read can be put back
	})
}

// TestDeviceRules walks through section 4.
func TestDeviceRules(t *testing.T) {
	for name, steps := range map[string][]step{
		"ids": {
			{"POST", "/v1/devices/T/a-b_c.D9:=", "", 201}, {"POST", "/v1/devices/T/a,b", "", 400}, {"PUT", "/v1/devices/T/a,b", "{}", 400}, {"POST", "/v1/devices/a=b", "", 400},
		},
		"members": {
			{"POST", "/v1/devices/T", `{"x":1}`, 400}, {"POST", "/v1/devices/T", `{"mapper":"x"}`, 400}, {"POST", "/v1/devices/T", `{"command-endpoint":null}`, 400},
			{"POST", "/v1/devices/T", `{"command-endpoint":{"x":1}}`, 400}, {"POST", "/v1/devices/T", `{"via":["a"],"memberOf":["b"]}`, 400},
			{"POST", "/v1/devices/T", `{"viaGroups":"a","memberOf":"b"}`, 400}, {"POST", "/v1/devices/T", `{"via":[],"memberOf":"b","viaGroups":[]}`, 201},
			{"POST", "/v1/devices/T", `{"via":"a","viaGroups":"b","authorities":["x","x"]}`, 201}, {"POST", "/v1/devices/T", `{"status":{"x":[]}}`, 201},
		},
		"limit": {
			{"PUT", "/v1/tenants/T", `{"registration-limits":{"max-devices":1}}`, 204}, {"POST", "/v1/devices/T/D", "", 201},
			{"POST", "/v1/devices/T/E", "", 403}, {"POST", "/v1/devices/T/D", "", 403}, {"DELETE", "/v1/devices/T/D", "", 204}, {"POST", "/v1/devices/T/E", "", 201},
		},
		"disabled tenant": {{"PUT", "/v1/tenants/T", `{"enabled":false}`, 204}, {"POST", "/v1/devices/T/D", "", 201}, {"GET", "/v1/devices/T/D", "", 200}},
		"unknown":         {{"GET", "/v1/devices/U/D", "", 404}, {"PUT", "/v1/devices/U/D", "{}", 404}, {"DELETE", "/v1/devices/U/D", "", 404}, {"GET", "/v1/devices/T/D", "", 404}},
	} {
		t.Run(name, func(t *testing.T) {
			a := start(t, management.Options{})
			a.want(201, "POST", "/v1/tenants/T", "")
			(&api{a.Server, t}).steps(steps...)
		})
	}
}

// TestCredentialRules walks through section 5.
func TestCredentialRules(t *testing.T) {
	cert, key := certificate(t, "device")
	const bcrypt4, bcrypt10 = "$2a$04$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy", "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"
	password := func(secret string) string {
		return `[{"type":"hashed-password","auth-id":"a","secrets":[` + secret + `]}]`
	}
	for name, bodies := range map[string]map[string]int{
		"shape": {
			`[{"auth-id":"a","secrets":[{}]}]`: 400, `[{"type":"psk","secrets":[{"key":"AA=="}]}]`: 400, `[{"type":"psk","auth-id":"","secrets":[{"key":"AA=="}]}]`: 400,
			`[{"type":"psk","auth-id":"a"}]`: 400, `[{"type":"psk","auth-id":"a","secrets":[]}]`: 400, `[{"type":"#illegal","auth-id":"a","secrets":[{}]}]`: 400,
			`[{"type":"psk","auth-id":"a","x":1,"secrets":[{"key":"AA=="}]}]`: 400, `[{"type":"psk","auth-id":"a","secrets":[{"key":"AA==","x":1}]}]`: 400,
			`[{"type":"psk","auth-id":"a","device-id":"d","secrets":[{"key":"AA=="}]}]`: 400, `[null]`: 400,
			`[{"type":"psk","auth-id":"a","secrets":[{"key":"AA=="}]},{"type":"psk","auth-id":"a","secrets":[{"key":"AA=="}]}]`:                             400,
			`[{"type":"psk","auth-id":"a","secrets":[{"key":"AA=="}]},{"type":"psk","auth-id":"b","comment":"c","secrets":[{"key":"AA==","comment":"d"}]}]`: 204,
			`[{"type":"psk","auth-id":"a","secrets":[{"key":"AA==","not-before":"2026-01-02T00:00:00Z","not-after":"2026-01-01T00:00:00Z"}]}]`:              400,
			`[{"type":"psk","auth-id":"a","secrets":[{"key":"AA==","not-before":"2026-01-02"}]}]`:                                                           400,
		},
		"password": {
			password(`{"pwd-plain":"x"}`): 204, password(`{}`): 400, password(`{"pwd-hash":"x"}`): 400, password(`{"hash-function":"sha-256"}`): 400,
			password(`{"hash-function":"bcrypt","pwd-hash":"` + bcrypt4 + `"}`): 204, password(`{"hash-function":"bcrypt","pwd-hash":"` + bcrypt10 + `"}`): 400,
			password(`{"hash-function":"bcrypt","pwd-hash":"x"}`): 400, password(`{"hash-function":"sha-512","pwd-hash":"AAAA","salt":"AA=="}`): 204,
			password(`{"hash-function":"sha-512","pwd-hash":"AAAA","salt":"_"}`): 400, password(`{"id":"none"}`): 400,
			password(`{"id":"1","pwd-plain":"x"},{"id":"1","pwd-plain":"y"}`):            400,
			`[{"type":"hashed-password","auth-id":"a b","secrets":[{"pwd-plain":"x"}]}]`: 400,
		},
		"psk": {
			`[{"type":"psk","auth-id":"a","secrets":[{"key":""}]}]`: 400, `[{"type":"psk","auth-id":"a","secrets":[{}]}]`: 400, `[{"type":"psk","auth-id":"a b/c","secrets":[{"key":"AA=="}]}]`: 204,
		},
		"rpk": {
			`[{"type":"rpk","auth-id":"a","secrets":[{"cert":"` + cert + `"}]}]`: 204, `[{"type":"rpk","auth-id":"a","secrets":[{"key":"` + key + `","algorithm":"EC"}]}]`: 204,
			`[{"type":"rpk","auth-id":"a","secrets":[{"key":"` + key + `"}]}]`: 400, `[{"type":"rpk","auth-id":"a","secrets":[{"key":"AAAA","algorithm":"EC"}]}]`: 400,
			`[{"type":"rpk","auth-id":"a","secrets":[{"cert":"AAAA"}]}]`: 400, `[{"type":"rpk","auth-id":"a","secrets":[{}]}]`: 400,
		},
		"x509": {
			`[{"type":"x509-cert","cert":"` + cert + `"}]`: 204, `[{"type":"x509-cert","auth-id":"CN=x","secrets":[{}]}]`: 204, `[{"type":"x509-cert","auth-id":"","secrets":[{}]}]`: 400,
			`[{"type":"x509-cert","auth-id":"CN=x","secrets":[{},{}]}]`: 400, `[{"type":"x509-cert","auth-id":"CN=x"}]`: 400, `[{"type":"x509-cert","cert":"AAAA"}]`: 400,
		},
		"custom": {`[{"type":"own-1","auth-id":"a","secrets":[{"any":{"thing":1}}]}]`: 204, `[{"type":"own-1","auth-id":"a","more":1,"secrets":[{}]}]`: 204},
	} {
		t.Run(name, func(t *testing.T) {
			a := start(t, management.Options{})
			a.want(201, "POST", "/v1/tenants/T", "")
			a.want(201, "POST", "/v1/devices/T/D", "")
			a = &api{a.Server, t}
			for body, want := range bodies {
				before, _ := a.want(200, "GET", "/v1/credentials/T/D", "")
				after, _ := a.want(want, "PUT", "/v1/credentials/T/D", body)
				if want == 204 && (after == before || after == "") {
					t.Errorf("%s: the ETag did not change", body)
				}
				_, reply := a.want(200, "GET", "/v1/credentials/T/D", "")
				if strings.Contains(reply, "device-id") || strings.Contains(reply, "pwd-") || strings.Contains(reply, `"salt"`) || strings.Contains(reply, `"cert"`) {
					t.Errorf("%s: shown %s", body, reply)
				}
				a.want(204, "PUT", "/v1/credentials/T/D", "[]")
			}
		})
	}
	t.Run("limit", func(t *testing.T) {
		a := start(t, management.Options{})
		a.want(201, "POST", "/v1/tenants/T", `{"registration-limits":{"max-credentials-per-device":0}}`)
		a.want(201, "POST", "/v1/devices/T/D", "")
		a.steps(step{"PUT", "/v1/credentials/T/D", password(`{"pwd-plain":"x"}`), 403}, step{"PUT", "/v1/credentials/T/D", "[]", 204})
	})
	t.Run("a new password under the same id", func(t *testing.T) {
		a := start(t, management.Options{})
		a.want(201, "POST", "/v1/tenants/T", "")
		a.want(201, "POST", "/v1/devices/T/D", "")
		a.want(204, "PUT", "/v1/credentials/T/D", password(`{"pwd-plain":"x"}`))
		_, one := a.want(200, "GET", "/v1/credentials/T/D", "")
		id := strings.Split(strings.SplitAfter(one, `"id":"`)[1], `"`)[0]
		a.want(204, "PUT", "/v1/credentials/T/D", password(`{"id":"`+id+`","pwd-plain":"y"}`))
		a.wantBody("/v1/credentials/T/D", one)
	})
}

// TestCleanUp is how a test suite leaves the registry: empty.
func TestCleanUp(t *testing.T) {
	a := start(t, management.Options{})
	a.want(404, "GET", "/v1/tenants", "")
	a.steps(step{"POST", "/v1/tenants/T", "", 201}, step{"POST", "/v1/devices/T/D", "", 201}, step{"DELETE", "/v1/tenants/T", "", 204},
		step{"DELETE", "/v1/devices/T/D", "", 204}, step{"DELETE", "/v1/devices/T", "", 204}, step{"GET", "/v1/tenants", "", 404})
}
