package auth_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
)

const stock = `{
  "roles": {
    "protocol-adapter": [
      {"resource": "telemetry/*", "activities": ["WRITE"]},
      {"resource": "tenant", "activities": ["READ", "WRITE"]},
      {"operation": "tenant/*:*", "activities": ["EXECUTE"]},
      {"resource": "registration/*", "activities": ["READ", "WRITE"]},
      {"operation": "registration/*:assert", "activities": ["EXECUTE"]}
    ],
    "application": [{"resource": "telemetry/*", "activities": ["READ"]}]
  },
  "users": {
    "http-adapter@HONO": {"mechanism": "PLAIN", "password": "http-secret", "authorities": ["hono-component", "protocol-adapter"]},
    "consumer@HONO": {"mechanism": "PLAIN", "password": "verysecret", "authorities": ["application", "unheard-of"], "comment": "x"},
    "Eclipse IoT;Hono": {"mechanism": "EXTERNAL", "authorities": []}
  }
}`

func TestPermissions(t *testing.T) {
	d := open(t, stock, auth.Options{})
	adapter, err := d.Authenticate(t.Context(), "PLAIN", []byte("\x00http-adapter@HONO\x00http-secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if adapter.AssertionsRequired || adapter.Kind != auth.Application {
		t.Errorf("got %+v", adapter)
	}
	if !adapter.May("telemetry/A", auth.Write) || adapter.May("telemetry/A", auth.Read) || !adapter.May("tenant/reply-1", auth.Read) ||
		!adapter.MayOperate("tenant/A", "get") || !adapter.MayOperate("registration/A", "assert") || adapter.MayOperate("registration/A", "get") {
		t.Error("authorities of the adapter")
	}
	for authzid, want := range map[string]string{"consumer@HONO": "consumer@HONO", "nobody": "http-adapter@HONO", "": "http-adapter@HONO"} {
		id, err := d.Authenticate(t.Context(), "PLAIN", []byte(authzid+"\x00http-adapter@HONO\x00http-secret"), nil)
		if err != nil || id.Name != want {
			t.Errorf("as %q: got %v, %v", authzid, id, err)
		}
	}
	id, err := d.Authenticate(t.Context(), "PLAIN", []byte("http-adapter@HONO\x00consumer@HONO\x00verysecret"), nil)
	if err != nil || id.Name != "consumer@HONO" {
		t.Errorf("an application acts for another: %v, %v", id, err)
	}
	if _, err := d.Password(t.Context(), "Eclipse IoT;Hono", "x"); !errors.Is(err, iot.ErrUnauthenticated) {
		t.Errorf("got %v", err)
	}
}

func TestPermissionsErrors(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"activity":  {`{"roles": {"r": [{"resource": "a", "activities": ["read"]}]}}`, `role "r": activity "read"`},
		"both":      {`{"roles": {"r": [{"resource": "a", "operation": "a:b", "activities": []}]}}`, "either resource or operation"},
		"operation": {`{"roles": {"r": [{"operation": "a:b", "activities": ["READ"]}]}}`, "EXECUTE"},
		"mechanism": {`{"users": {"u": {"mechanism": "X"}}}`, `user "u": mechanism "X"`},
		"password":  {`{"users": {"u": {"mechanism": "PLAIN"}}}`, "without password"},
		"syntax":    {"{\"users\": {\n\n x}}", "identities.yaml:3: "},
		"type":      {"{\"users\":\n []}", "identities.yaml:2: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := auth.Open(writeFile(t, c.text), auth.Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}
