package auth_test

import (
	"crypto/x509/pkix"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
)

func TestAddToNewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "identities.yaml")
	secret, err := auth.AddIdentity(path, "app", auth.Authority{Address: "telemetry/A", May: auth.Read | auth.Write}, auth.Authority{Operation: "credentials/A:get", May: auth.Execute})
	if err != nil {
		t.Fatal(err)
	}
	operator, err := auth.AddOperator(path, "admin", map[string]auth.Activity{"*": auth.Read | auth.Write})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	text, _ := os.ReadFile(path)
	if strings.Contains(string(text), secret) || strings.Contains(string(text), operator) || !strings.HasPrefix(string(text), "# Who may connect") {
		t.Errorf("file:\n%s", text)
	}
	if len(secret) != 43 || secret == operator {
		t.Errorf("secret of %d letters", len(secret))
	}
	d, err := auth.Open(path, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	id, err := d.Password(t.Context(), "app", secret)
	if err != nil || !id.May("telemetry/A", auth.Read|auth.Write) || !id.MayOperate("credentials/A", "get") {
		t.Errorf("got %v, %v", id, err)
	}
	if o, err := d.Operator(t.Context(), "admin", operator); err != nil || !o.May("X", auth.Write) {
		t.Errorf("got %v, %v", o, err)
	}
}

func TestAddCertifiedOperator(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identities.yaml")
	scopes := map[string]auth.Activity{"A": auth.Read | auth.Export, "B": auth.Read}
	for name, cert := range map[string]string{"alice": "alice-laptop", "bob": "CN=bob,O=ACME Works"} {
		if err := auth.AddCertifiedOperator(path, name, cert, scopes); err != nil {
			t.Fatal(err)
		}
	}
	d, err := auth.Open(path, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o, err := d.OperatorCertificate(certificate(pkix.AttributeTypeAndValue{Type: cn, Value: "alice-laptop"}))
	if err != nil || o.Name != "alice" || !o.May("A", auth.Read|auth.Export) || o.May("A", auth.Write) || o.May("B", auth.Export) {
		t.Errorf("got %v, %v", o, err)
	}
	if _, err := d.Operator(t.Context(), "alice", ""); !errors.Is(err, iot.ErrUnauthenticated) {
		t.Errorf("without a secret: %v", err)
	}
	for want, cert := range map[string]string{"another operator's": "alice-laptop", "expected a common name": ""} {
		if err := auth.AddCertifiedOperator(path, "eve", cert, scopes); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", cert, err)
		}
	}
}

func TestAddKeepsTheRest(t *testing.T) {
	path := writeFile(t, `# at the top
identities: # the applications
  # the first
  - name: old # its name
    secret: "{plain}x"
    authorities:
      - {address: "telemetry/A", may: [read]}
# about operators
operators: []
`)
	if _, err := auth.AddIdentity(path, "new", auth.Authority{Address: "a", May: auth.Read}); err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(path)
	text := string(data)
	for _, want := range []string{"# at the top\n", "# the applications", "# the first\n", "- name: old # its name\n", `secret: "{plain}x"`, `{address: "telemetry/A", may: [read]}`, "# about operators\noperators: []\n", "- name: new\n", "authorities: [{address: a, may: [read]}]"} {
		if !strings.Contains(text, want) {
			t.Errorf("lost %q:\n%s", want, text)
		}
	}
	if _, err := auth.AddIdentity(path, "new"); !errors.Is(err, iot.ErrExists) {
		t.Errorf("got %v", err)
	}
}

func TestAddToOddFiles(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "comment": "# only\n", "null list": "identities:\noperators:\n", "flow list": "identities: []\n", "flow file": "{identities: [{name: x}], operators: []}\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := writeFile(t, text)
			for _, id := range []string{"one", "two"} {
				if _, err := auth.AddIdentity(path, id); err != nil {
					t.Fatal(err)
				}
			}
			d, err := auth.Open(path, auth.Options{})
			if err != nil || d.Current("one") == nil || d.Current("two") == nil {
				data, _ := os.ReadFile(path)
				t.Errorf("%v\n%s", err, data)
			}
			data, _ := os.ReadFile(path)
			if strings.HasPrefix(text, "#") && !strings.HasPrefix(string(data), text) {
				t.Errorf("comment lost:\n%s", data)
			}
		})
	}
}

func TestAddErrors(t *testing.T) {
	path := writeFile(t, "identities: []")
	for name, f := range map[string]func() error{
		"no name":   func() error { _, err := auth.AddIdentity(path, ""); return err },
		"space":     func() error { _, err := auth.AddIdentity(path, "a b"); return err },
		"authority": func() error { _, err := auth.AddIdentity(path, "a", auth.Authority{Address: "x*"}); return err },
		"hono":      func() error { _, err := auth.AddIdentity(writeFile(t, stock), "a"); return err },
	} {
		if err := f(); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestAddAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identities.yaml")
	var wg sync.WaitGroup
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		wg.Go(func() {
			if _, err := auth.AddIdentity(path, n); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	d, err := auth.Open(path, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		if d.Current(n) == nil {
			t.Errorf("%s is lost", n)
		}
	}
}
