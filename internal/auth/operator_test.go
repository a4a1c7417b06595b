package auth_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/auth/oidctest"
	"github.com/sluice-iot/sluice/internal/iot"
)

const operatorsFile = `operators:
  - {name: alice, secret: "{plain}pw", certificate: alice, scopes: [{tenant: ACME, may: [read, write, export]}, {tenant: DEMO, may: [read]}]}
  - {name: bob, certificate: "CN=bob,OU=ops,O=ACME", scopes: [{tenant: "*", may: [read]}, {tenant: DEMO, may: [write]}]}
`

func TestOperatorScopes(t *testing.T) {
	d := open(t, operatorsFile, auth.Options{AllowPlain: true})
	alice, err := d.Operator(t.Context(), "alice", "pw")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tenant string
		what   auth.Activity
		want   bool
	}{
		{"ACME", auth.Read, true}, {"ACME", auth.Export, true}, {"ACME", auth.Read | auth.Write, true}, {"DEMO", auth.Read, true},
		{"DEMO", auth.Write, false}, {"DEMO", auth.Export, false}, {"*", auth.Read, false}, {"ACME", 0, false},
	} {
		if got := alice.May(c.tenant, c.what); got != c.want {
			t.Errorf("%s %s: got %t", c.tenant, c.what, got)
		}
	}
	if tenants, all := alice.Tenants(auth.Read); all || !slices.Equal(tenants, []string{"ACME", "DEMO"}) {
		t.Errorf("got %v, %t", tenants, all)
	}
	// bob has no secret, so that no password is his, not even an empty one.
	for _, c := range [][2]string{{"alice", "x"}, {"bob", ""}, {"bob", "pw"}, {"carol", "pw"}} {
		if o, err := d.Operator(t.Context(), c[0], c[1]); !errors.Is(err, iot.ErrUnauthenticated) || o != nil {
			t.Errorf("%v: got %v, %v", c, o, err)
		}
	}
}

func TestOperatorCertificate(t *testing.T) {
	d := open(t, operatorsFile, auth.Options{AllowPlain: true})
	// subject lists a certificate's names in their order, the last one first in RFC 2253.
	subject := func(names ...string) *x509.Certificate {
		oids := map[string]asn1.ObjectIdentifier{"CN": {2, 5, 4, 3}, "OU": {2, 5, 4, 11}, "O": {2, 5, 4, 10}}
		var rdns pkix.RDNSequence
		for _, n := range names {
			kind, value, _ := strings.Cut(n, "=")
			rdns = append(rdns, pkix.RelativeDistinguishedNameSET{{Type: oids[kind], Value: value}})
		}
		var c x509.Certificate
		c.Subject.FillFromRDNSequence(&rdns)
		return &c
	}
	for name, c := range map[string]struct {
		cert *x509.Certificate
		want string
	}{
		"by common name":   {subject("O=X", "CN=alice"), "alice"},
		"by subject":       {subject("O=ACME", "OU=ops", "CN=bob"), "bob"},
		"other subject":    {subject("O=Other", "OU=ops", "CN=bob"), ""},
		"subject as a CN":  {subject("CN=CN=bob,OU=ops,O=ACME"), ""},
		"common name last": {subject("CN=alice", "O=X"), ""},
		"a component":      {subject("OU=adapter", "CN=alice"), ""},
		"a stranger":       {subject("CN=carol"), ""},
		"nothing":          {subject(), ""},
		"none":             {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := d.OperatorCertificate(c.cert)
			if c.want == "" {
				if !errors.Is(err, iot.ErrUnauthenticated) || o != nil {
					t.Fatalf("got %v, %v", o, err)
				}
				return
			}
			if err != nil || o.Name != c.want {
				t.Fatalf("got %v, %v", o, err)
			}
		})
	}
}

func TestOperatorToken(t *testing.T) {
	i, apps := newIssuer(t), newIssuer(t)
	d := open(t, fmt.Sprintf(`issuers:
  - {issuer: "%s", audience: sluice, operator-scopes-claim: scopes}
  - {issuer: "%s", audience: sluice, authorities-claim: rights}`, i.URL, apps.URL), auth.Options{})
	token := func(scopes any) string {
		return i.Token(t, oidctest.Claims{"sub": "alice", "aud": "sluice", "scopes": scopes})
	}
	o, err := d.OperatorToken(t.Context(), token([]any{map[string]any{"tenant": "ACME", "may": []string{"read"}}}))
	if err != nil || o.Name != "oidc:"+i.URL+"#alice" || !o.May("ACME", auth.Read) || o.May("ACME", auth.Write) || o.May("*", auth.Read) {
		t.Fatalf("got %+v, %v", o, err)
	}
	if o, err = d.OperatorToken(t.Context(), i.Token(t, oidctest.Claims{"sub": "alice", "aud": "sluice"})); err != nil || o.May("ACME", auth.Read) {
		t.Fatalf("without the claim: got %+v, %v", o, err)
	}
	for name, c := range map[string]struct{ token, text string }{
		"an application's": {apps.Token(t, oidctest.Claims{"sub": "a", "aud": "sluice"}), "not for operators"},
		"other audience":   {i.Token(t, oidctest.Claims{"sub": "a", "aud": "other"}), ""},
		"no list":          {token("all"), "expected a list"},
		"unknown member":   {token([]any{map[string]any{"tenant": "A", "may": []string{"read"}, "x": 1}}), "expected a list"},
		"execute":          {token([]any{map[string]any{"tenant": "A", "may": []string{"execute"}}}), "read, write and export only"},
		"no tenant":        {token([]any{map[string]any{"may": []string{"read"}}}), "names no tenant"},
		"nothing":          {"", "no known issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			if o, err := d.OperatorToken(t.Context(), c.token); !errors.Is(err, iot.ErrUnauthenticated) || !strings.Contains(err.Error(), c.text) || o != nil {
				t.Fatalf("got %v, %v, want %s", o, err, c.text)
			}
		})
	}
	if _, err := d.Token(t.Context(), token(nil)); !errors.Is(err, iot.ErrUnauthenticated) {
		t.Fatalf("an operator's token as an application's: %v", err)
	}
}
