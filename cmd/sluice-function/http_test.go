package main_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-iot/sluice/events"
	invokehttp "github.com/sluice-iot/sluice/events/invoke/http"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/listen"
	"github.com/sluice-iot/sluice/internal/status"
)

const listeners = `listeners=[
	{role: function, address: "127.0.0.1:0", tls: {}},
	{role: management, address: "127.0.0.1:0"},
	{role: health, address: "127.0.0.1:0"}]`

// component reaches a process by the certificate of a component.
func component(t *testing.T, p *process, data, kind string) events.Invoker {
	t.Helper()
	ca, err := listen.OpenAuthority(filepath.Join(data, "tls"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	files, err := ca.IssueComponent(t.TempDir(), kind, kind+"-0", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	files.CA = ca.CAFile()
	client, err := listen.ClientTLS(files, nil)
	if err != nil {
		t.Fatal(err)
	}
	inv, err := invokehttp.New(invokehttp.Config{URL: "https://" + p.address(t, "function"), Source: "//sluice.local/" + kind + "s/0", TLS: client("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(inv.Close)
	return inv
}

func TestListeners(t *testing.T) {
	data := t.TempDir()
	_, password := operator(t, data)
	env := environment("SLUICE_DATA=" + data)
	p := start(t, env, "--set", listeners)
	register(t, overHTTP(p.address(t, "management"), password))
	admits(t, component(t, p, data, "adapter"))
	router := component(t, p, data, "router")
	if got, err := events.Call(t.Context(), router, events.TenantGet{ID: "T"}); err != nil || got.ID != "T" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := router.Invoke(t.Context(), events.AssertionSign{TenantID: "T", DeviceID: "D"}); !errors.Is(err, status.ErrUnknownType) {
		t.Errorf("assertion.sign is hosted: %v", err)
	}
	url := "http://" + p.address(t, "health") + "/readyz"
	if text, code := output(t, env, "health", "--url", url); code != 0 {
		t.Errorf("health: %d %s", code, text)
	}
	p.stop(t)
	if text, code := output(t, env, "health", "--url", url); code != 1 || !strings.Contains(text, "refused") {
		t.Errorf("health of what has ended: %d %s", code, text)
	}
	if strings.Contains(p.log(), "hunter2") || strings.Contains(p.log(), password) {
		t.Error("a secret is logged")
	}
}

// issuer is one that the identities file trusts.
// TestOldSigningKeysAreReplaced where no schedule does it.
func TestOldSigningKeysAreReplaced(t *testing.T) {
	data := t.TempDir()
	_, password := operator(t, data)
	env := environment("SLUICE_DATA=" + data)
	p := start(t, env, "--set", listeners)
	register(t, overHTTP(p.address(t, "management"), password))
	admits(t, component(t, p, data, "adapter"))
	p.stop(t)
	p = start(t, env, "--set", listeners, "--set", "assertions.rotate-after=1ms")
	for !strings.Contains(p.log(), "signing key rotated") {
		time.Sleep(10 * time.Millisecond)
	}
	keys, err := events.Call(t.Context(), component(t, p, data, "router"), events.AssertionKeys{})
	if err != nil || len(keys.Keys) != 2 {
		t.Errorf("got %+v, %v, want the old key and the new one", keys, err)
	}
}

func issuer(t *testing.T) (url string, token func(authorities string) string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/keys" {
			fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","alg":"EdDSA","use":"sig","x":%q}]}`, base64.RawURLEncoding.EncodeToString(public))
			return
		}
		fmt.Fprintf(w, `{"issuer":"http://%s","jwks_uri":"http://%s/keys"}`, r.Host, r.Host)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, func(authorities string) string {
		tok := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
			"iss": srv.URL, "aud": "sluice.local", "sub": "adapter-0", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
			"sluice": json.RawMessage(authorities),
		})
		tok.Header["kid"] = "1"
		text, err := tok.SignedString(private)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
}

func TestThePlatformsPort(t *testing.T) {
	data := t.TempDir()
	file, password := operator(t, data)
	url, token := issuer(t)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = fmt.Appendf(text, "\nissuers:\n  - {issuer: %q, audience: sluice.local, authorities-claim: sluice}\n", url)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, environment("SLUICE_DATA="+data, "PORT=0"))
	address := p.address(t, "function")
	register(t, overHTTP(address, password))
	bearer := func(authorities string) events.Invoker {
		inv, err := invokehttp.New(invokehttp.Config{URL: "http://" + address, Source: "//sluice.local/x/0",
			Token: func(context.Context) (string, error) { return token(authorities), nil }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(inv.Close)
		return inv
	}
	admits(t, bearer(`[{"operation":"functions:adapter"}]`))
	for _, authorities := range []string{`[]`, `[{"operation":"*:*"}]`, `[{"operation":"functions:*"}]`, `[{"operation":"functions:router"}]`} {
		if _, err := bearer(authorities).Invoke(t.Context(), events.Admit{Adapter: "a"}); !errors.Is(err, iot.ErrUnavailable) {
			t.Errorf("%s: %v", authorities, err)
		}
	}
	_, port, _ := strings.Cut(address, ":")
	if text, code := output(t, environment("PORT="+port), "health"); code != 0 {
		t.Errorf("health: %d %s", code, text)
	}
	p.stop(t)
}

func TestASubset(t *testing.T) {
	data := t.TempDir()
	p := start(t, environment("SLUICE_DATA="+data), "--functions", "tenant,assertion", "--set", listeners)
	inv := component(t, p, data, "router")
	if _, err := inv.Invoke(t.Context(), events.RegistrationAssert{TenantID: "T", DeviceID: "D"}); !errors.Is(err, status.ErrUnknownType) {
		t.Errorf("got %v", err)
	}
	if _, err := inv.Invoke(t.Context(), events.TenantGet{ID: "T"}); !errors.Is(err, iot.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if strings.Contains(p.log(), `"role":"management"`) {
		t.Error("management is served")
	}
	p.stop(t)
}

func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	env := environment("SLUICE_DATA=" + dir)
	for _, tt := range []struct {
		name string
		env  []string
		args []string
		code int
		want string
	}{
		{"version", env, []string{"--version"}, 0, "sluice-function "},
		{"help", env, []string{"--help"}, 0, "-functions"},
		{"unknown flag", env, []string{"--nothing"}, 2, "nothing"},
		{"argument", env, []string{"serve"}, 1, "health"},
		{"unknown function", env, []string{"--functions", "tenant,paint"}, 1, "paint"},
		{"no operators", env, nil, 1, "identities.yaml does not exist"},
		{"unknown setting", env, []string{"--set", "colour=red"}, 1, "colour"},
		{"port", plus(env, "PORT=http"), []string{"--functions", "tenant"}, 1, "PORT"},
		{"key", plus(env, "SLUICE_KEK=x"), []string{"--functions", "tenant"}, 1, "SLUICE_KEK"},
		{"no data folder", []string{"HOME="}, []string{"--functions", "tenant"}, 1, "no data folder: neither --data"},
		{"certificate twice", plus(env, "SLUICE_TLS_KEY=x", "SLUICE_TLS_KEY_PEM=y"), nil, 1, "SLUICE_TLS_KEY_PEM and SLUICE_TLS_KEY are both set"},
		{"accept", plus(env, "AWS_LAMBDA_RUNTIME_API=127.0.0.1:1", "SLUICE_LAMBDA_ACCEPT=mail"), []string{"--functions", "tenant"}, 1, "SLUICE_LAMBDA_ACCEPT"},
		{"direct", plus(env, "AWS_LAMBDA_RUNTIME_API=127.0.0.1:1", "SLUICE_LAMBDA_DIRECT=mail"), []string{"--functions", "tenant"}, 1, "SLUICE_LAMBDA_DIRECT"},
		{"roles", plus(env, "AWS_LAMBDA_RUNTIME_API=127.0.0.1:1", "SLUICE_LAMBDA_ROLES=mail"), []string{"--functions", "tenant"}, 1, "SLUICE_LAMBDA_ROLES"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, code := output(t, tt.env, tt.args...)
			if code != tt.code || !strings.Contains(text, tt.want) {
				t.Errorf("%d %s, want %d with %s", code, text, tt.code, tt.want)
			}
		})
	}
}

// plus is env with more variables.
func plus(env []string, vars ...string) []string { return slices.Concat(env, vars) }
