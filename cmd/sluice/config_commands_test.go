package main

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/listen"
)

// runCommand returns what a command printed to standard output.
func runCommand(t *testing.T, cmd *cobra.Command, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&bytes.Buffer{})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestConfigCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.yaml")
	if err := os.WriteFile(file, []byte("name: from.file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SLUICE_CREDIT_WAIT", "300ms")
	args := []string{"--config", file, "--data", "/d", "--set", "adapters.http.realm=R", "--listener", `{role: health, address: "127.0.0.1:0"}`, "--insecure"}
	text, err := runCommand(t, newConfigCommand(), args...)
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]string{}
	for line := range strings.Lines(text) {
		key, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		lines[key] = strings.Join(strings.Fields(rest), " ")
	}
	for key, want := range map[string]string{
		"name": "from.file file " + file + ":1", "credit-wait": "300ms environment SLUICE_CREDIT_WAIT", "data": "/d flag --data",
		"adapters.http.realm": "R flag --set adapters.http.realm", "send-timeout": "1s default", "insecure": "true flag --insecure",
		"listeners[0]": `{role: health, address: '127.0.0.1:0'} flag --listener`, "adapters.http.max-payload-size": "2KiB default",
	} {
		if lines[key] != want {
			t.Errorf("%s: got %q, want %q", key, lines[key], want)
		}
	}
	text, err = runCommand(t, newConfigCommand(), append(args, "-o", "json")...)
	var values []struct {
		Key, Source string
		Value       any
	}
	if err != nil || json.Unmarshal([]byte(text), &values) != nil || len(values) < 20 {
		t.Errorf("%v\n%s", err, text)
	}
	for name, args := range map[string][]string{
		"expected text or json": {"-o", "xml"}, "expected KEY=VALUE": {"--set", "name"}, "unknown setting": {"--set", "nmae=x"}, "unknown key": {"--listener", "{rol: x}"},
	} {
		if _, err := runCommand(t, newConfigCommand(), args...); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: got %v", args, err)
		}
	}
}

func TestCertsCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	text, err := runCommand(t, newCertsCommand(), "--out", dir, "--host", "box.example", "adapter/http-0", "router/router-0")
	if err != nil || len(strings.Fields(text)) != 5 {
		t.Fatalf("%v\n%s", err, text)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := runCommand(t, newCertsCommand(), "--out", dir, "function/identity-0"); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(filepath.Join(dir, "ca.crt")); !bytes.Equal(ca, again) {
		t.Error("the second call made another CA")
	}
	for _, kind := range []string{"adapter-http-0", "router-router-0", "function-identity-0"} {
		if info, err := os.Stat(filepath.Join(dir, kind+".key")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", kind, err)
		}
		f := listen.Files{Certificate: filepath.Join(dir, kind+".crt"), Key: filepath.Join(dir, kind+".key"), CA: filepath.Join(dir, "ca.crt")}
		if _, err := listen.ServerTLS(f, listen.ServerOptions{RequireClient: true}); err != nil {
			t.Error(err)
		}
	}
	for want, args := range map[string][]string{
		"--out is missing":          {"adapter/x"},
		"no names":                  {"--out", dir},
		"expected KIND/INSTANCE":    {"--out", dir, "adapter"},
		`kind "device" is none of`:  {"--out", dir, "device/x"},
		`instance "../x": expected`: {"--out", dir, "adapter/../x"},
		"--days 0: expected":        {"--out", dir, "--days", "0", "adapter/x"},
	} {
		if _, err := runCommand(t, newCertsCommand(), args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", args, err)
		}
	}
}

func TestIdentityCommand(t *testing.T) {
	data := t.TempDir()
	path := filepath.Join(data, "identities.yaml")
	add := func(args ...string) string {
		t.Helper()
		text, err := runCommand(t, newIdentityCommand(), append([]string{"add", "--data", data, "-o", "json"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]string
		if err := json.Unmarshal([]byte(text), &got); err != nil || got["file"] != path {
			t.Fatalf("%v\n%s", err, text)
		}
		return got["secret"]
	}
	shop, odd, admin, look := add("shop", "--tenant", "DEMO"), add("odd", "--read", "telemetry/*", "--execute", "tenant/*:get"), add("admin", "--operator"), add("look", "--operator", "--tenant", "A", "--read-only")
	d, err := auth.Open(path, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	id, err := d.Password(t.Context(), "shop", shop)
	if err != nil || !id.May("event/DEMO", auth.Read) || !id.May("command/DEMO/4711", auth.Write) || id.May("telemetry/A", auth.Read) {
		t.Errorf("shop: %v, %v", id, err)
	}
	id, err = d.Password(t.Context(), "odd", odd)
	if err != nil || !id.May("telemetry/A", auth.Read) || !id.MayOperate("tenant/A", "get") {
		t.Errorf("odd: %v, %v", id, err)
	}
	if op, err := d.Operator(t.Context(), "admin", admin); err != nil || !op.May("*", auth.Write) {
		t.Errorf("admin: %v, %v", op, err)
	}
	if op, err := d.Operator(t.Context(), "look", look); err != nil || !op.May("A", auth.Read) || op.May("A", auth.Write) || op.May("B", auth.Read) {
		t.Errorf("look: %v, %v", op, err)
	}
	exporter := add("exporter", "--operator", "--read-only", "--export", "--tenant", "A")
	if secret := add("bob", "--operator", "--certificate", "CN=bob,O=ACME"); secret != "" {
		t.Error("an operator with a certificate got a secret")
	}
	if _, err := d.Reload(); err != nil {
		t.Fatal(err)
	}
	if op, err := d.Operator(t.Context(), "exporter", exporter); err != nil || !op.May("A", auth.Read|auth.Export) || op.May("A", auth.Write) {
		t.Errorf("exporter: %v, %v", op, err)
	}
	if op, err := d.OperatorCertificate(&x509.Certificate{Subject: pkix.Name{CommonName: "bob", Organization: []string{"ACME"}}}); err != nil || !op.May("*", auth.Write) || op.May("A", auth.Export) {
		t.Errorf("bob: %v, %v", op, err)
	}
	for want, args := range map[string][]string{
		"exists already":      {"--data", data, "shop", "--tenant", "A"},
		"may do nothing":      {"--data", data, "new"},
		"go with --operator":  {"--data", data, "new", "--export"},
		"are for":             {"--data", data, "new", "--operator", "--read", "x"},
		"whole segment":       {"--data", data, "new", "--read", "x*"},
		"expected text":       {"--data", data, "new", "-o", "xml"},
		"no installation at ": {"--data", filepath.Join(data, "absent"), "new", "--tenant", "A"},
	} {
		if _, err := runCommand(t, newIdentityCommand(), append([]string{"add"}, args...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", args, err)
		}
	}
	if text, err := runCommand(t, newIdentityCommand(), "add", "--data", data, "text", "--tenant", "A"); err != nil || !strings.HasPrefix(text, "name    text\nsecret  ") {
		t.Errorf("%v\n%s", err, text)
	}
}
