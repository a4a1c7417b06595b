package auth_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
)

// aFile has an application, one of the same name as an operator, and comments.
func aFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "identities.yaml")
	for _, name := range []string{"shop", "both"} {
		if _, err := auth.AddIdentity(path, name, auth.Authority{Address: "telemetry/A", May: auth.Read}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := auth.AddOperator(path, "both", map[string]auth.Activity{"*": auth.Read | auth.Write}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(data), "operators:", "# who manages\noperators:", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func entryNames(t *testing.T, path string) (out []string) {
	t.Helper()
	entries, err := auth.Entries(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := e.Name
		if e.Operator {
			name = "operator " + name
		}
		out = append(out, name)
	}
	return out
}

func TestEntries(t *testing.T) {
	path := aFile(t)
	if err := auth.AddCertifiedOperator(path, "carl", "CN=carl,O=A", map[string]auth.Activity{"A": auth.Read}); err != nil {
		t.Fatal(err)
	}
	entries, err := auth.Entries(path)
	if err != nil || len(entries) != 4 {
		t.Fatalf("%v, %v", entries, err)
	}
	if e := entries[0]; e.Name != "shop" || e.Operator || !e.HasSecret || len(e.Authorities) != 1 || e.Authorities[0].Address != "telemetry/A" || e.Authorities[0].May != auth.Read {
		t.Errorf("%+v", e)
	}
	if e := entries[3]; e.Name != "carl" || !e.Operator || e.HasSecret || e.Certificate != "CN=carl,O=A" || e.Scopes["A"] != auth.Read {
		t.Errorf("%+v", e)
	}
	if _, err := auth.Entries(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	hono := filepath.Join(t.TempDir(), "permissions.json")
	if err := os.WriteFile(hono, []byte(`{"roles":{},"users":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.Entries(hono); !errors.Is(err, iot.ErrInvalid) {
		t.Errorf("Hono's: %v", err)
	}
}

func TestRemoveEntry(t *testing.T) {
	path := aFile(t)
	if err := auth.RemoveEntry(path, "shop", true); !errors.Is(err, iot.ErrNotFound) {
		t.Errorf("an operator that is none: %v", err)
	}
	if err := auth.RemoveEntry(path, "both", false); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(entryNames(t, path), ","); got != "shop,operator both" {
		t.Errorf("got %s", got)
	}
	data, _ := os.ReadFile(path)
	if !strings.Contains(string(data), "# Who may connect") || !strings.Contains(string(data), "# who manages") {
		t.Errorf("comments are gone:\n%s", data)
	}
	for _, e := range []struct {
		name     string
		operator bool
	}{{"shop", false}, {"both", true}} {
		if err := auth.RemoveEntry(path, e.name, e.operator); err != nil {
			t.Fatal(err)
		}
	}
	// An empty list takes entries again.
	if _, err := auth.AddIdentity(path, "new", auth.Authority{Address: "telemetry/A", May: auth.Read}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(entryNames(t, path), ","); got != "new" {
		t.Errorf("got %s", got)
	}
}

func TestUpdateEntry(t *testing.T) {
	path := aFile(t)
	secret, err := auth.UpdateEntry(path, "shop", false, auth.Change{NewSecret: true, Authorities: []auth.Authority{{Address: "event/B", May: auth.Read}}})
	if err != nil {
		t.Fatal(err)
	}
	if more, err := auth.UpdateEntry(path, "both", true, auth.Change{Scopes: map[string]auth.Activity{"B": auth.Read}}); err != nil || more != "" {
		t.Fatalf("%q, %v", more, err)
	}
	d, err := auth.Open(path, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := d.Password(t.Context(), "shop", secret); err != nil || !id.May("event/B", auth.Read) || id.May("telemetry/A", auth.Read) {
		t.Errorf("%v, %v", id, err)
	}
	entries, err := auth.Entries(path)
	if err != nil || len(entries) != 3 || entries[2].Scopes["B"] != auth.Read || len(entries[2].Scopes) != 1 || entries[1].Authorities[0].Address != "telemetry/A" {
		t.Errorf("%+v, %v", entries, err)
	}
	if _, err := auth.UpdateEntry(path, "nobody", false, auth.Change{NewSecret: true}); !errors.Is(err, iot.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	before, _ := os.ReadFile(path)
	for name, c := range map[string]auth.Change{
		"an address that is none": {Authorities: []auth.Authority{{Address: "x*", May: auth.Read}}},
		"scopes":                  {Scopes: map[string]auth.Activity{"A": auth.Read}},
	} {
		if _, err := auth.UpdateEntry(path, "shop", false, c); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Error("a refused change has changed the file")
	}
}
