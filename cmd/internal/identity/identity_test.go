package identity_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// TestReplaceTheKeyEncryptionKey opens a store that was made under another key.
func TestReplaceTheKeyEncryptionKey(t *testing.T) {
	const replacement = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	cfg := config.Defaults()
	for name, replace := range map[string]func(t *testing.T, keys string){
		"by variables": func(t *testing.T, keys string) {
			old, err := os.ReadFile(filepath.Join(keys, "kek"))
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv(identity.KEKVariable, replacement)
			t.Setenv(identity.PreviousKEKVariable, string(old))
		},
		"by files": func(t *testing.T, keys string) {
			if err := os.Rename(filepath.Join(keys, "kek"), filepath.Join(keys, "kek.previous")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			before := made(t, &cfg, dir)
			t.Run("without the previous one", func(t *testing.T) {
				t.Setenv(identity.KEKVariable, replacement)
				id, err := open(t, &cfg, dir)
				if err != nil {
					t.Fatal(err)
				}
				if err := id.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "another key-encryption key") {
					t.Errorf("got %v", err)
				}
			})
			t.Run("with it", func(t *testing.T) {
				replace(t, filepath.Join(dir, "keys"))
				id, err := open(t, &cfg, dir)
				if err != nil {
					t.Fatal(err)
				}
				if after := kid(t, id); after != before {
					t.Errorf("signs with %s, not with %s", after, before)
				}
				if _, err := id.Signer.Rotate(t.Context(), cfg.Assertions.Overlap, time.Time{}); err != nil {
					t.Fatal(err)
				}
			})
			if name == "by variables" {
				t.Setenv(identity.KEKVariable, replacement)
			} else if err := os.Remove(filepath.Join(dir, "keys", "kek.previous")); err != nil {
				t.Fatal(err)
			}
			id, err := open(t, &cfg, dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := id.Ready(t.Context()); err != nil {
				t.Errorf("after a rotation: %v", err)
			}
			if _, err := os.Stat(filepath.Join(dir, "keys", "kek.previous")); err == nil {
				t.Error("a previous key was made")
			}
		})
	}
	t.Setenv(identity.PreviousKEKVariable, "secret")
	if _, err := open(t, &cfg, t.TempDir()); err == nil || !strings.Contains(err.Error(), identity.PreviousKEKVariable) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

// made returns the signing key of a store that is made in dir and closed again.
func made(t *testing.T, cfg *config.Config, dir string) string {
	t.Helper()
	data, err := config.OpenData(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	id, err := identity.Open(t.Context(), cfg, data, log, identity.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer id.Close()
	return kid(t, id)
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
