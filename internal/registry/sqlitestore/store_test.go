package sqlitestore_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/sqlitestore"
	"github.com/sluice-iot/sluice/internal/registry/storetest"
)

func open(t testing.TB, path string) *sqlitestore.Store {
	t.Helper()
	s, err := sqlitestore.Open(t.Context(), path, sqlitestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) registry.Backend {
		return open(t, filepath.Join(t.TempDir(), "registry.db"))
	})
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a folder?with#odd%20characters", "registry.db")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	key := assertion.StoredKey{KID: "k1", Algorithm: assertion.EdDSA, Wrapped: []byte{1}, PublicJWK: []byte(`{}`), Created: time.UnixMilli(5).UTC()}
	want := registry.TenantRecord{ID: "T", Version: "v", Created: time.UnixMilli(1000).UTC()}
	s := open(t, path)
	if err := errors.Join(s.CreateTenant(t.Context(), want), s.PutSigningKey(t.Context(), key), s.Close()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("file mode is %o, want 600", got)
	}
	s = open(t, path)
	again := open(t, path) // a second one on the same file
	for _, s := range []*sqlitestore.Store{s, again} {
		got, err := s.Tenant(t.Context(), "T")
		if err != nil || !cmp.Equal(got, want) {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
		keys, err := s.SigningKeys(t.Context())
		if err != nil || !cmp.Equal(keys, []assertion.StoredKey{key}) {
			t.Fatalf("got %+v, %v, want %+v", keys, err, key)
		}
	}
	if err := again.DeleteDevices(t.Context(), "T", time.Now()); err != nil {
		t.Fatal(err)
	}
	snap, err := s.Read(t.Context(), registry.Query{Tenant: registry.TenantKey{ID: "T"}})
	if err != nil || snap.Sequence != 2 {
		t.Fatalf("got sequence %d, %v, want 2", snap.Sequence, err)
	}
}

func TestClosed(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "registry.db"))
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	_, err := s.Tenant(t.Context(), "T")
	if !errors.Is(err, iot.ErrUnavailable) || !strings.Contains(err.Error(), "closed") {
		t.Fatalf("got %v, want %v with the reason", err, iot.ErrUnavailable)
	}
	var own *iot.Error
	if !errors.As(err, &own) || strings.Contains(own.Text, "closed") {
		t.Fatalf("the text for callers is %+v", own)
	}
	if err := s.DeleteDevices(t.Context(), "T", time.Now()); !errors.Is(err, iot.ErrUnavailable) {
		t.Fatalf("got %v, want %v", err, iot.ErrUnavailable)
	}
}

// A driver error in the middle of a change undoes the change and says so.
func TestDriverError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.db")
	s := open(t, path)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `ALTER TABLE feed RENAME TO gone`); err != nil {
		t.Fatal(err)
	}
	tenant := registry.TenantRecord{ID: "T", Version: "v", Created: time.Now()}
	if err := s.CreateTenant(t.Context(), tenant); !errors.Is(err, iot.ErrUnavailable) {
		t.Fatalf("got %v, want %v", err, iot.ErrUnavailable)
	}
	if _, err := s.Tenant(t.Context(), "T"); !errors.Is(err, iot.ErrNotFound) {
		t.Fatalf("got %v, want %v: half of the change is there", err, iot.ErrNotFound)
	}
	if _, err := db.ExecContext(t.Context(), `ALTER TABLE gone RENAME TO feed`); err != nil {
		t.Fatal(err)
	}
	if err := s.CreateTenant(t.Context(), tenant); err != nil {
		t.Fatal(err)
	}
}

func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, want string }{
		{"missing folder", filepath.Join(dir, "none", "registry.db"), "folder " + filepath.Join(dir, "none") + " is not writable"},
		{"a file for a folder", filepath.Join(file, "registry.db"), "folder " + file + " is not writable"},
		{"a folder for a file", dir, "is not writable"},
		{"no database", file, "file is not a database"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := sqlitestore.Open(t.Context(), c.path, sqlitestore.Options{})
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got %q, want one line with %q", err, c.want)
			}
		})
	}
}

func TestOpenReadOnlyFolder(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("the superuser may write everywhere")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	_, err := sqlitestore.Open(t.Context(), filepath.Join(dir, "registry.db"), sqlitestore.Options{})
	if err == nil || !strings.Contains(err.Error(), "is not writable: permission denied") {
		t.Fatalf("got %v", err)
	}
}

func TestFeedIsShortened(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "registry.db"))
	start := time.UnixMilli(1_000_000_000_000).UTC()
	for i, at := range []time.Time{start, start.Add(time.Hour), start.Add(registry.FeedRetention + time.Minute)} {
		if err := s.DeleteDevices(t.Context(), "T", at); err != nil {
			t.Fatal(i, err)
		}
	}
	changes, _, err := s.Changes(t.Context(), registry.Position{Sequences: map[iot.TenantID]uint64{"T": 0}}, 10)
	if err != nil || len(changes) != 2 || changes[0].Sequence != 2 {
		t.Fatalf("got %+v, %v, want the changes 2 and 3", changes, err)
	}
}

func TestSigningKeys(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "registry.db"))
	at := time.UnixMilli(1_700_000_000_000).UTC()
	b := assertion.StoredKey{KID: "b", Algorithm: assertion.ES256, PublicJWK: []byte(`{"kid":"b"}`), Wrapped: []byte("w"), Created: at, NotBefore: at}
	a := assertion.StoredKey{KID: "a", Algorithm: assertion.EdDSA, PublicJWK: []byte(`{"kid":"a"}`), Wrapped: []byte("x"), Created: at.Add(1e9)}
	c := assertion.StoredKey{KID: "c", Algorithm: assertion.EdDSA, PublicJWK: []byte(`{"kid":"c"}`), Created: at, RetireAfter: at}
	for _, k := range []assertion.StoredKey{a, b, c} {
		if err := s.PutSigningKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	a.Wrapped, a.RetireAfter = nil, at.Add(2e9)
	if err := s.PutSigningKey(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	got, err := s.SigningKeys(t.Context())
	if d := cmp.Diff([]assertion.StoredKey{b, c, a}, got); err != nil || d != "" {
		t.Fatalf("%v, -want +got:\n%s", err, d)
	}
}

// BenchmarkRead measures the one read of an admission.
func BenchmarkRead(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "registry.db"))
	at := time.Now()
	tenant := registry.TenantRecord{ID: "T", Version: "v", Created: at}
	tenant.Tenant.Adapters = []iot.Adapter{{Type: "hono-http", Enabled: true, DeviceAuthenticationRequired: true}}
	if err := s.CreateTenant(b.Context(), tenant); err != nil {
		b.Fatal(err)
	}
	const devices = 1000
	for i := range devices {
		d := registry.DeviceRecord{Tenant: "T", ID: iot.DeviceID(fmt.Sprint("D", i)), Version: "v", Status: iot.DeviceStatus{Created: iot.Timestamp{Time: at}}}
		d.Device.Via = []iot.DeviceID{"D0"}
		_, secret := registry.GeneratePassword()
		set := []iot.Credential{{Type: iot.HashedPassword, AuthID: fmt.Sprint("a", i), Secrets: []iot.Secret{secret}}}
		if err := errors.Join(s.CreateDevice(b.Context(), d, "c", -1),
			s.PutCredentials(b.Context(), registry.CredentialsRecord{Tenant: "T", Device: d.ID, Set: set, Version: "c"}, "", at)); err != nil {
			b.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		device iot.DeviceID
	}{{"device", ""}, {"gateway", "D7"}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				q := registry.Query{Tenant: registry.TenantKey{ID: "T"}, Type: iot.HashedPassword, AuthID: fmt.Sprint("a", i%devices), Device: c.device}
				if _, err := s.Read(b.Context(), q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen measures opening a file that is there already.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "registry.db")
	open(b, path)
	for b.Loop() {
		s, err := sqlitestore.Open(b.Context(), path, sqlitestore.Options{})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
