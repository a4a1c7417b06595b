package registry_test

import (
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

const bcryptHash = `$2a$04$5wxDtOYCUdOUCLRJnf0YTemiWpzsXTRtP/2l2ggQdsKRnzrMfGx4i`

var anyUUID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`)

// putSet puts credentials given as JSON; shown is what is read back, with
// generated ids as ID.
func putSet(t *testing.T, s *registry.Service, device iot.DeviceID, body string) (shown string, err error) {
	t.Helper()
	set, err := registry.DecodeCredentials([]byte(body))
	if err != nil {
		return "", err
	}
	if _, err := s.PutCredentials(t.Context(), "T", device, set, ""); err != nil {
		return "", err
	}
	r, err := s.Credentials(t.Context(), "T", device)
	must(t, err)
	b, err := json.Marshal(r.Set)
	must(t, err)
	return anyUUID.ReplaceAllString(string(b), "ID"), nil
}

// stored returns the only secret of a credential as it is stored.
func stored(t *testing.T, s *registry.Service, credentialType, authID string) iot.Secret {
	t.Helper()
	snap, err := s.Read(t.Context(), registry.Query{Tenant: registry.TenantKey{ID: "T"}, Type: credentialType, AuthID: authID})
	must(t, err)
	return snap.Credential.Secrets[0]
}

func TestCredentialShapes(t *testing.T) {
	cert, key := certificate(t, pkix.Name{CommonName: "d", Organization: []string{"o"}})
	s := newService(t, registry.Options{})
	addTenant(t, s, "T", `{}`)
	pwd := func(secret string) string {
		return `[{"type":"hashed-password","auth-id":"a","secrets":[` + secret + `]}]`
	}
	const validity = `"not-before":"2026-03-01T12:00:00Z","not-after":"2026-03-01T13:00:00Z"`
	for i, c := range []struct{ name, in, want string }{ // want "" = refused
		{"none", `[]`, `[]`},
		{"plain password", pwd(`{"pwd-plain":"x","hash-function":"junk"}`), pwd(`{"id":"ID"}`)},
		{"bcrypt", pwd(`{"hash-function":"bcrypt","pwd-hash":"` + bcryptHash + `"}`), pwd(`{"id":"ID"}`)},
		{"sha", pwd(`{"hash-function":"sha-512","pwd-hash":"aGFzaA==","salt":"AAE="}`), pwd(`{"id":"ID"}`)},
		{"two secrets", pwd(`{"pwd-plain":"x","comment":"c"},{"pwd-plain":"y","enabled":false,` + validity + `}`),
			pwd(`{"id":"ID","comment":"c"},{"id":"ID","enabled":false,` + validity + `}`)},
		{"head", `[{"type":"psk","auth-id":"a","enabled":true,"ext":{"client-id":"x"},"comment":"c","secrets":[{"key":"AAE="}]}]`,
			`[{"type":"psk","auth-id":"a","enabled":true,"ext":{"client-id":"x"},"comment":"c","secrets":[{"id":"ID"}]}]`},
		{"too costly", pwd(`{"hash-function":"bcrypt","pwd-hash":"` + strings.Replace(bcryptHash, "$04$", "$05$", 1) + `"}`), ""},
		{"too cheap", pwd(`{"hash-function":"bcrypt","pwd-hash":"` + strings.Replace(bcryptHash, "$04$", "$3$", 1) + `"}`), ""},
		{"malformed bcrypt", pwd(`{"hash-function":"bcrypt","pwd-hash":"x"}`), ""},
		{"no content", pwd(`{}`), ""},
		{"no content but salt", pwd(`{"salt":"AAE="}`), ""},
		{"hash without function", pwd(`{"pwd-hash":"aGFzaA=="}`), ""},
		{"function without hash", pwd(`{"hash-function":"sha-256"}`), ""},
		{"id without stored", pwd(`{"id":"x"}`), ""},
		{"id twice", pwd(`{"id":"x","pwd-plain":"a"},{"id":"x","pwd-plain":"b"}`), ""},
		{"validity reversed", pwd(`{"pwd-plain":"x","not-after":"2026-03-01T12:00:00Z","not-before":"2026-03-01T13:00:00Z"}`), ""},
		{"unknown in secret", pwd(`{"pwd-plain":"x","key":"AAE="}`), ""},
		{"unknown in credential", `[{"type":"psk","auth-id":"a","x":1,"secrets":[{"key":"AAE="}]}]`, ""},
		{"spelling", `[{"type":"psk","Auth-Id":"a","secrets":[{"key":"AAE="}]}]`, ""},
		{"device id", `[{"type":"custom","auth-id":"a","device-id":"D","secrets":[{}]}]`, ""},
		{"auth-id of a password", `[{"type":"hashed-password","auth-id":"a b","secrets":[{"pwd-plain":"x"}]}]`, ""},
		{"empty auth-id", `[{"type":"psk","auth-id":"","secrets":[{"key":"AAE="}]}]`, ""},
		{"control in auth-id", `[{"type":"psk","auth-id":"a\u0000","secrets":[{"key":"AAE="}]}]`, ""},
		{"no type", `[{"auth-id":"a","secrets":[{"key":"AAE="}]}]`, ""},
		{"bad type", `[{"type":"#illegal","auth-id":"a","secrets":[{}]}]`, ""},
		{"no secrets", `[{"type":"psk","auth-id":"a"}]`, ""},
		{"empty secrets", `[{"type":"psk","auth-id":"a","secrets":[]}]`, ""},
		{"null secret", `[{"type":"psk","auth-id":"a","secrets":[null]}]`, ""},
		{"twice", `[{"type":"psk","auth-id":"a","secrets":[{"key":"AAE="}]},{"type":"psk","auth-id":"a","secrets":[{"key":"AAE="}]}]`, ""},
		{"psk", `[{"type":"psk","auth-id":"any thing","secrets":[{"key":"AAE="}]}]`, `[{"type":"psk","auth-id":"any thing","secrets":[{"id":"ID"}]}]`},
		{"psk without key", `[{"type":"psk","auth-id":"a","secrets":[{}]}]`, ""},
		{"psk with empty key", `[{"type":"psk","auth-id":"a","secrets":[{"key":""}]}]`, ""},
		{"psk with bad key", `[{"type":"psk","auth-id":"a","secrets":[{"key":"*"}]}]`, ""},
		{"rpk", `[{"type":"rpk","auth-id":"a","secrets":[{"key":"` + key + `","algorithm":"EC"}]}]`,
			`[{"type":"rpk","auth-id":"a","secrets":[{"id":"ID","key":"` + key + `","algorithm":"EC"}]}]`},
		{"rpk by cert", `[{"type":"rpk","auth-id":"a","secrets":[{"cert":"` + cert + `"}]}]`,
			`[{"type":"rpk","auth-id":"a","secrets":[{"id":"ID",` + validity + `,"key":"` + key + `","algorithm":"EC"}]}]`},
		{"rpk without algorithm", `[{"type":"rpk","auth-id":"a","secrets":[{"key":"` + key + `"}]}]`, ""},
		{"rpk of another algorithm", `[{"type":"rpk","auth-id":"a","secrets":[{"key":"` + key + `","algorithm":"RSA"}]}]`, ""},
		{"rpk with bad key", `[{"type":"rpk","auth-id":"a","secrets":[{"key":"AAAA","algorithm":"EC"}]}]`, ""},
		{"rpk with bad cert", `[{"type":"rpk","auth-id":"a","secrets":[{"cert":"AAAA"}]}]`, ""},
		{"custom", `[{"type":"my-1","auth-id":"a","more":[1],"secrets":[{"key":{"k":1},"cert":false}]}]`,
			`[{"auth-id":"a","more":[1],"secrets":[{"cert":false,"id":"ID","key":{"k":1}}],"type":"my-1"}]`},
		{"x509", `[{"type":"x509-cert","auth-id":"cn=d, O=o","secrets":[{}]}]`, `[{"type":"x509-cert","auth-id":"CN=d,O=o","secrets":[{"id":"ID"}]}]`},
		{"x509, no DN", `[{"type":"x509-cert","auth-id":"templated","secrets":[{}]}]`, `[{"type":"x509-cert","auth-id":"templated","secrets":[{"id":"ID"}]}]`},
		{"x509 by cert", `[{"type":"x509-cert","auth-id":"ignored","cert":"` + cert + `"}]`,
			`[{"type":"x509-cert","auth-id":"CN=d,O=o","secrets":[{"id":"ID",` + validity + `}]}]`},
		{"x509 with two secrets", `[{"type":"x509-cert","auth-id":"CN=d","secrets":[{},{}]}]`, ""},
		{"x509 without secret", `[{"type":"x509-cert","auth-id":"CN=d","secrets":[]}]`, ""},
		{"x509 with bad cert", `[{"type":"x509-cert","cert":"AAAA"}]`, ""},
		{"x509 without auth-id", `[{"type":"x509-cert","secrets":[{}]}]`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := iot.DeviceID(fmt.Sprint("D", i))
			addDevice(t, s, "T", id, `{}`)
			got, err := putSet(t, s, id, c.in)
			if c.want == "" {
				wantErr(t, err, iot.ErrInvalid)
				return
			}
			must(t, err)
			if got != c.want {
				t.Fatalf("\n got %s\nwant %s", got, c.want)
			}
			must(t, s.DeleteDevice(t.Context(), "T", id, ""))
		})
	}
}

func TestMerge(t *testing.T) {
	s := newService(t, registry.Options{})
	addTenant(t, s, "T", `{"registration-limits":{"max-credentials-per-device":3}}`)
	addDevice(t, s, "T", "D", `{}`)
	_, key := certificate(t, pkix.Name{CommonName: "d"})
	put := func(body string) error { _, err := putSet(t, s, "D", body); return err }
	pwd := func(secret string) string {
		return `[{"type":"hashed-password","auth-id":"a","secrets":[` + secret + `]}]`
	}
	must(t, put(pwd(`{"hash-function":"sha-256","pwd-hash":"aGFzaA==","salt":"AAE=","comment":"old"}`)))
	first := stored(t, s, "hashed-password", "a")

	must(t, put(pwd(`{"id":"`+first.ID+`","salt":"BBBB"}`)))
	kept := stored(t, s, "hashed-password", "a")
	if kept.PwdHash != "aGFzaA==" || kept.HashFunction != "sha-256" || string(kept.Salt) != "\x00\x01" || kept.ID != first.ID || kept.Comment != "" {
		t.Fatalf("got %+v: want hash and salt kept, the comment gone", kept)
	}
	must(t, put(pwd(`{"id":"`+first.ID+`","pwd-plain":"new"}`)))
	replaced := stored(t, s, "hashed-password", "a")
	if replaced.ID != first.ID || !strings.HasPrefix(replaced.PwdHash, "$2a$04$") || replaced.HashFunction != "bcrypt" || replaced.Salt != nil || replaced.PwdPlain != "" {
		t.Fatalf("got %+v", replaced)
	}
	must(t, put(pwd(`{"id":"`+first.ID+`"},{"pwd-plain":"second"}`))) // a second one for a rollover
	wantErr(t, put(pwd(`{"id":"unknown"}`)), iot.ErrInvalid)
	wantErr(t, put(`[{"type":"hashed-password","auth-id":"b","secrets":[{"id":"`+first.ID+`"}]}]`), iot.ErrInvalid)

	must(t, put(`[{"type":"psk","auth-id":"p","secrets":[{"id":"1","key":"AAE="}]},{"type":"rpk","auth-id":"r","secrets":[{"id":"2","key":"`+key+
		`","algorithm":"EC"}]},{"type":"my","auth-id":"m","secrets":[{"id":"3","x":1}]}]`))
	must(t, put(`[{"type":"psk","auth-id":"p","secrets":[{"id":"1","comment":"c"}]},{"type":"rpk","auth-id":"r","secrets":[{"id":"2"}]},{"type":"my","auth-id":"m","secrets":[{"id":"3"}]}]`))
	if p, r, m := stored(t, s, "psk", "p"), stored(t, s, "rpk", "r"), stored(t, s, "my", "m"); string(p.Key) != "\x00\x01" || p.Comment != "c" ||
		len(r.Key) == 0 || r.Algorithm != "EC" || string(m.Extra["x"]) != "1" {
		t.Fatalf("got %+v %+v %+v", p, r, m)
	}
	many := strings.Repeat(`{"type":"psk","auth-id":"a","secrets":[{"key":"AAE="}]},`, 4)
	wantErr(t, put("["+strings.TrimSuffix(many, ",")+"]"), iot.ErrForbidden) // the limit comes before uniqueness
	must(t, put(`[]`))
	wantErr(t, put(pwd(`{"id":"`+first.ID+`","pwd-plain":"x"}`)), iot.ErrInvalid) // nothing on record
}

func TestHashFunctions(t *testing.T) {
	s := newService(t, registry.Options{HashFunctions: []string{"sha-512"}})
	addTenant(t, s, "T", `{}`)
	addDevice(t, s, "T", "D", `{}`)
	for function, want := range map[string]error{"sha-512": nil, "sha-256": iot.ErrInvalid} {
		_, err := putSet(t, s, "D", `[{"type":"hashed-password","auth-id":"a","secrets":[{"hash-function":"`+function+`","pwd-hash":"aGFzaA=="}]}]`)
		wantErr(t, err, want)
	}
}

func TestCertificateLookup(t *testing.T) {
	s := newService(t, registry.Options{})
	addTenant(t, s, "T", `{}`)
	addDevice(t, s, "T", "D", `{}`)
	_, err := putSet(t, s, "D", `[{"type":"x509-cert","auth-id":"CN=d, O=o","secrets":[{}]},{"type":"x509-cert","auth-id":"my d","secrets":[{}]}]`)
	must(t, err)
	for _, authID := range []string{"CN=d,O=o", "cn=d,o=o", "CN=d , O=o", "my d"} {
		snap, err := s.Read(t.Context(), registry.Query{Tenant: registry.TenantKey{ID: "T"}, Type: iot.X509Cert, AuthID: authID})
		if err != nil || snap.Owner != "D" {
			t.Errorf("%q: got %q, %v", authID, snap.Owner, err)
		}
	}
}
