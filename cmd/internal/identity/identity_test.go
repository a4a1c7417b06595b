package identity_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/cmd/internal/identity"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/invoke/inproc"
	"github.com/sluice-iot/sluice/internal/config"
)

var log = slog.New(slog.DiscardHandler)

func open(t *testing.T, cfg *config.Config, dir string) (*identity.Identity, error) {
	t.Helper()
	data, err := config.OpenData(dir)
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.Open(t.Context(), cfg, data, log, identity.Deps{})
	t.Cleanup(func() {
		if id != nil {
			_ = id.Close() // twice, where the test did
		}
		data.Close()
	})
	return id, err
}

func kid(t *testing.T, id *identity.Identity) string {
	t.Helper()
	inv, err := inproc.New(log, id.Functions()...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.Call(t.Context(), inv, events.AssertionSign{TenantID: "T", DeviceID: "D"}); err != nil {
		t.Fatal(err)
	}
	keys, err := events.Call(t.Context(), inv, events.AssertionKeys{})
	if err != nil || len(keys.Keys) != 1 {
		t.Fatalf("%d keys, %v", len(keys.Keys), err)
	}
	return string(keys.Keys[0])
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	cfg := config.Defaults()
	id, err := open(t, &cfg, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if up, _ := id.Readiness(t.Context()); !up {
		t.Error("not ready")
	}
	kid(t, id)
	if set, _, err := id.KeySource()(t.Context()); err != nil || len(set.Keys) != 1 {
		t.Errorf("%d keys, %v", len(set.Keys), err)
	}
	if err := id.Close(); err != nil {
		t.Error(err)
	}
	if id.Ready(t.Context()) == nil {
		t.Error("a closed store is ready")
	}
	for _, name := range []string{"registry.db", "keys/kek"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestTheKeyEncryptionKeyFromTheEnvironment(t *testing.T) {
	dir := t.TempDir()
	cfg := config.Defaults()
	t.Setenv(identity.KEKVariable, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	id, err := open(t, &cfg, dir)
	if err != nil {
		t.Fatal(err)
	}
	kid(t, id)
	if _, err := os.Stat(filepath.Join(dir, "keys", "kek")); err == nil {
		t.Error("a key file was made")
	}
	t.Setenv(identity.KEKVariable, "secret")
	if _, err := open(t, &cfg, t.TempDir()); err == nil || !strings.Contains(err.Error(), identity.KEKVariable) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

func TestWithoutDataFolder(t *testing.T) {
	cfg := config.Defaults()
	if _, err := identity.Open(t.Context(), &cfg, nil, log, identity.Deps{}); err == nil {
		t.Error("SQLite without a folder")
	}
	cfg.Registry = config.Registry{Store: "postgres", URL: "postgres://127.0.0.1:1/x"}
	if !identity.NeedsData(&cfg) {
		t.Error("the key-encryption key needs a folder")
	}
	t.Setenv(identity.KEKVariable, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	if identity.NeedsData(&cfg) {
		t.Error("nothing needs a folder")
	}
	cfg.Registry.Store = "paper"
	if _, err := identity.Open(t.Context(), &cfg, nil, log, identity.Deps{}); err == nil || !strings.Contains(err.Error(), "sqlite") {
		t.Errorf("got %v", err)
	}
}
