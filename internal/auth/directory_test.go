package auth_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
)

func bcryptOf(t testing.TB, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return "{bcrypt}" + string(h)
}

func scramOf(t testing.TB, password string) string {
	t.Helper()
	h, err := auth.HashSecret(password)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func writeFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "identities.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, text string, o auth.Options) *auth.Directory {
	t.Helper()
	d, err := auth.Open(writeFile(t, text), o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func sample(t testing.TB) string {
	return `
identities:
  - name: demo-app@DEMO
    secret: "` + scramOf(t, "s-scram") + `"
    authorities:
      - {address: "telemetry/DEMO", may: [read]}
      - {address: "command/DEMO", may: [write]}
      - {operation: "credentials/DEMO:*"}
    limits: {connections: 5, message-size: 1MiB}
  - name: hashed
    secret: "` + bcryptOf(t, "s-bcrypt") + `"
    assertions: required
    authorities: []
  - name: clear
    secret: "{plain}s-plain"
    authorities: [{address: "event/*", may: [read, write]}]
  - name: by-certificate
    authorities: [{address: "telemetry/A", may: [read]}]
operators:
  - {name: admin, secret: "` + bcryptOf(t, "s-admin") + `", scopes: [{tenant: "*", may: [read, write]}]}
  - {name: one, secret: "` + scramOf(t, "s-one") + `", scopes: [{tenant: A, may: [read, write]}, {tenant: B, may: [read]}]}
`
}

func TestAuthenticatePlain(t *testing.T) {
	d := open(t, sample(t), auth.Options{AllowPlain: true})
	for name, c := range map[string]struct {
		response string
		want     string
	}{
		"scram":            {"\x00demo-app@DEMO\x00s-scram", "demo-app@DEMO"},
		"bcrypt":           {"\x00hashed\x00s-bcrypt", "hashed"},
		"plain":            {"\x00clear\x00s-plain", "clear"},
		"authzid is none":  {"hashed\x00clear\x00s-plain", "clear"},
		"wrong scram":      {"\x00demo-app@DEMO\x00s-scram2", ""},
		"wrong bcrypt":     {"\x00hashed\x00s-scram", ""},
		"wrong plain":      {"\x00clear\x00S-plain", ""},
		"unknown":          {"\x00nobody\x00s-plain", ""},
		"certificate only": {"\x00by-certificate\x00x", ""},
		"operator":         {"\x00admin\x00s-admin", ""},
		"no secret":        {"\x00clear\x00", ""},
		"no name":          {"\x00\x00s-plain", ""},
		"two fields":       {"clear\x00s-plain", ""},
		"four fields":      {"\x00clear\x00s-plain\x00", ""},
		"empty":            {"", ""},
		"not UTF-8":        {"\x00clear\x00\xff", ""},
		"huge":             {"\x00clear\x00" + strings.Repeat("x", 1<<20), ""},
		"long":             {"\x00hashed\x00" + strings.Repeat("x", 2000), ""},
		"beyond bcrypt":    {"\x00hashed\x00s-bcrypt" + strings.Repeat("\x01", 80), ""},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the second time from what the verifier remembers
				id, err := d.Authenticate(t.Context(), "PLAIN", []byte(c.response), nil)
				if c.want == "" {
					if !errors.Is(err, iot.ErrUnauthenticated) {
						t.Fatalf("got %v, %v", id, err)
					}
					if strings.Contains(err.Error(), "s-") {
						t.Fatalf("the error shows the secret: %v", err)
					}
					continue
				}
				if err != nil || id.Name != c.want {
					t.Fatalf("got %v, %v", id, err)
				}
			}
		})
	}
	if _, err := d.Authenticate(t.Context(), "ANONYMOUS", nil, nil); !errors.Is(err, iot.ErrUnauthenticated) {
		t.Errorf("got %v", err)
	}
}

func TestIdentity(t *testing.T) {
	d := open(t, sample(t), auth.Options{AllowPlain: true})
	id := d.Current("demo-app@DEMO")
	if id.Kind != auth.Application || id.AssertionsRequired || id.MayInvoke() || id.MayPost() {
		t.Errorf("got %+v", id)
	}
	if want := (auth.Limits{Connections: 5, Sessions: 1024, Links: 20000, MessageSize: 1 << 20}); id.Limits != want {
		t.Errorf("limits %+v", id.Limits)
	}
	if !id.May("telemetry/DEMO", auth.Read) || id.May("telemetry/DEMO", auth.Write) || !id.MayOperate("credentials/DEMO", "get") {
		t.Error("authorities")
	}
	if !d.Current("hashed").AssertionsRequired || d.Current("hashed").Limits != auth.DefaultLimits() || d.Current("nobody") != nil {
		t.Error("others")
	}
}

func TestOperator(t *testing.T) {
	d := open(t, sample(t), auth.Options{AllowPlain: true})
	admin, err := d.Operator(t.Context(), "admin", "s-admin")
	if err != nil {
		t.Fatal(err)
	}
	one, err := d.Operator(t.Context(), "one", "s-one")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o      *auth.Operator
		tenant string
		what   auth.Activity
		want   bool
	}{
		{admin, "X", auth.Write, true}, {admin, "*", auth.Read, true}, {admin, "X", auth.Execute, false}, {admin, "X", 0, false},
		{one, "A", auth.Write, true}, {one, "B", auth.Read, true}, {one, "B", auth.Write, false}, {one, "C", auth.Read, false}, {one, "*", auth.Read, false},
	} {
		if got := c.o.May(c.tenant, c.what); got != c.want {
			t.Errorf("%s %s %s: got %v", c.o.Name, c.what, c.tenant, got)
		}
	}
	for _, c := range [][2]string{{"admin", "s-one"}, {"nobody", "s-one"}, {"clear", "s-plain"}, {"admin", ""}} {
		if _, err := d.Operator(t.Context(), c[0], c[1]); !errors.Is(err, iot.ErrUnauthenticated) {
			t.Errorf("%s: got %v", c[0], err)
		}
	}
}

func TestFileErrors(t *testing.T) {
	id := func(text string) string { return "identities:\n- {name: a, " + text + "}" }
	for name, c := range map[string]struct{ text, want string }{
		"plain":             {id(`secret: "{plain}geheim"`), `identities.yaml:2: identity "a": a {plain} secret needs --insecure`},
		"form":              {id(`secret: "geheim"`), "expected it to start with"},
		"bcrypt":            {id(`secret: "{bcrypt}geheim"`), "not a bcrypt hash"},
		"bcrypt cost":       {id(`secret: "{bcrypt}$2a$31$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"`), "cost 31"},
		"scram":             {id(`secret: "{scram-sha-256}geheim"`), "expected ITERATIONS"},
		"scram iterations":  {id(`secret: "{scram-sha-256}1:a:b:c"`), "expected 4096 to"},
		"scram endless":     {id(`secret: "{scram-sha-256}99999999:a:b:c"`), "expected 4096 to"},
		"scram base64":      {id(`secret: "{scram-sha-256}4096:!:b:c"`), "base64"},
		"scram short":       {id(`secret: "{scram-sha-256}4096:AAAA:AAAA:AAAA"`), "keys of 32"},
		"twice":             {"identities: [{name: a}, {name: a}]", "given twice"},
		"no name":           {"identities: [{secret: x}]", "no name"},
		"assertions":        {id("assertions: maybe"), "expected optional, required or hono-2018"},
		"no may":            {id("authorities: [{address: x}]"), "may is missing"},
		"activity":          {id("authorities: [{address: x, may: [reed]}]"), `unknown activity "reed"`},
		"execute address":   {id("authorities: [{address: x, may: [execute]}]"), "execute goes with an operation"},
		"read operation":    {id(`authorities: [{operation: "x:y", may: [read]}]`), "expected execute"},
		"both":              {id(`authorities: [{operation: "x:y", address: x}]`), "either address or operation"},
		"pattern":           {id("authorities: [{address: x*, may: [read]}]"), "whole segment"},
		"limits":            {id("limits: {links: -1}"), "negative"},
		"sessions":          {id("limits: {sessions: 70000}"), "65535"},
		"typo":              {id("secrets: x"), `:2: unknown key "secrets" in identities[0]; nearest known key: "secret"`},
		"operator secret":   {"operators: [{name: a, scopes: []}]", `operator "a": neither secret nor certificate`},
		"operator secret 2": {`operators: [{name: a, secret: "geheim", scopes: []}]`, `operator "a": secret`},
		"operator name":     {"operators: [{name: 'oidc:a', certificate: a, scopes: []}]", "those of tokens"},
		"certificate":       {"operators: [{name: a, certificate: c, scopes: []}, {name: b, certificate: c, scopes: []}]", "another operator's"},
		"export address":    {id("authorities: [{address: x, may: [export]}]"), "export is for operators"},
		"issuer":            {"issuers: [{issuer: 'https://x', audience: a}]", "no authorities-claim and no operator-scopes-claim"},
		"operator scope":    {"operators: [{name: a, scopes: [{may: [read]}]}]", "names no tenant"},
		"operator activity": {"operators: [{name: a, scopes: [{tenant: A, may: [execute]}]}]", "read, write and export only"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := auth.Open(writeFile(t, c.text), auth.Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "geheim") {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	if _, err := auth.Open(filepath.Join(t.TempDir(), "absent"), auth.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func certificate(names ...pkix.AttributeTypeAndValue) *x509.Certificate {
	c := &x509.Certificate{Subject: pkix.Name{Names: names}}
	for _, n := range names {
		switch {
		case n.Type.Equal(cn):
			c.Subject.CommonName = n.Value.(string)
		case n.Type.Equal(ou):
			c.Subject.OrganizationalUnit = append(c.Subject.OrganizationalUnit, n.Value.(string))
		}
	}
	return c
}

var cn, ou = asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.ObjectIdentifier{2, 5, 4, 11}

func TestExternal(t *testing.T) {
	d := open(t, sample(t), auth.Options{AllowPlain: true})
	of := func(oid asn1.ObjectIdentifier, v string) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: oid, Value: v}
	}
	id, err := d.Authenticate(t.Context(), "EXTERNAL", nil, certificate(of(ou, "x"), of(cn, "by-certificate")))
	if err != nil || id.Name != "by-certificate" {
		t.Errorf("got %v, %v", id, err)
	}
	for name, cert := range map[string]*x509.Certificate{
		"none":        nil,
		"unknown":     certificate(of(cn, "nobody")),
		"has secret":  certificate(of(cn, "hashed")),
		"CN not last": certificate(of(cn, "by-certificate"), of(ou, "x")),
		"no subject":  certificate(),
	} {
		if _, err := d.Authenticate(t.Context(), "EXTERNAL", nil, cert); !errors.Is(err, iot.ErrUnauthenticated) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestComponent(t *testing.T) {
	cert := func(kind, name string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: name, OrganizationalUnit: []string{kind}}}
	}
	a, err := auth.Component(cert("adapter", "http-0"))
	if err != nil {
		t.Fatal(err)
	}
	if !a.AssertionsRequired || !a.MayInvoke() || a.MayPost() || a.Kind != auth.Adapter || a.Name != "http-0" {
		t.Errorf("got %+v", a)
	}
	for address, may := range map[string]auth.Activity{"telemetry/T": auth.Write, "event/T": auth.Write, "command_response/T/r": auth.Write, "command_internal/http-0": auth.Read, "notification/x": auth.Read} {
		if !a.May(address, may) || a.May(address, auth.Read|auth.Write) {
			t.Errorf("%s", address)
		}
	}
	if a.May("command_internal/http-1", auth.Read) || a.May("command/T", auth.Write) {
		t.Error("an adapter may too much")
	}
	for kind, invoke := range map[string]bool{"router": true, "function": false} {
		c, err := auth.Component(cert(kind, "x"))
		if err != nil || c.MayInvoke() != invoke || c.MayPost() == invoke || c.AssertionsRequired || c.May("telemetry/T", auth.Write) {
			t.Errorf("%s: got %+v, %v", kind, c, err)
		}
	}
	for name, c := range map[string]*x509.Certificate{
		"none": nil, "kind": cert("application", "x"), "star": cert("adapter", "*"), "slash": cert("adapter", "a/b"), "empty": cert("adapter", ""), "dots": cert("adapter", ".."),
		"no kind": {Subject: pkix.Name{CommonName: "localhost"}}, "two": {Subject: pkix.Name{CommonName: "x", OrganizationalUnit: []string{"adapter", "router"}}},
	} {
		if _, err := auth.Component(c); !errors.Is(err, iot.ErrUnauthenticated) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestReload(t *testing.T) {
	path := writeFile(t, "identities: [{name: a, secret: \"{plain}x\"}]")
	reloads := 0
	d, err := auth.Open(path, auth.Options{AllowPlain: true, OnReload: func() { reloads++ }})
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := d.Reload(); changed || err != nil {
		t.Errorf("unchanged: got %v, %v", changed, err)
	}
	old := d.Current("a")
	replace(t, path, "identities: [{nmae: a}]")
	if changed, err := d.Reload(); changed || err == nil {
		t.Errorf("broken: got %v, %v", changed, err)
	}
	if d.Current("a") != old {
		t.Error("a broken file must change nothing")
	}
	replace(t, path, "identities: [{name: b, secret: \"{plain}x\"}]")
	if changed, err := d.Reload(); !changed || err != nil {
		t.Errorf("changed: got %v, %v", changed, err)
	}
	if d.Current("a") != nil || d.Current("b") == nil || reloads != 1 {
		t.Errorf("reloads %d", reloads)
	}
}

func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestWatch(t *testing.T) {
	path := writeFile(t, "identities: []")
	synctest.Test(t, func(t *testing.T) {
		d, err := auth.Open(path, auth.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { d.Watch(ctx, time.Second) })
		replace(t, path, "identities: [{name: b}]")
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if d.Current("b") == nil {
			t.Error("not reloaded")
		}
		stop()
		wg.Wait()
	})
}

func TestManyAtOnce(t *testing.T) {
	d := open(t, sample(t), auth.Options{AllowPlain: true})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := d.Password(t.Context(), "hashed", "s-bcrypt"); err != nil {
				t.Error(err)
			}
			if _, err := d.Password(t.Context(), "hashed", "wrong"); !errors.Is(err, iot.ErrUnauthenticated) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func BenchmarkPasswordRemembered(b *testing.B) {
	d := open(b, sample(b), auth.Options{AllowPlain: true})
	for b.Loop() {
		if _, err := d.Password(b.Context(), "hashed", "s-bcrypt"); err != nil {
			b.Fatal(err)
		}
	}
}
