package sqlitestore_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/sqlitestore"
	"github.com/sluice-iot/sluice/internal/registry/storetest"
)

func openIndexed(t testing.TB, path string, indexes ...[]string) *sqlitestore.Store {
	t.Helper()
	s, err := sqlitestore.Open(t.Context(), path, sqlitestore.Options{Indexes: indexes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestIndexes(t *testing.T) {
	storetest.RunIndexed(t, func(t *testing.T, indexes [][]string) registry.Backend {
		return openIndexed(t, filepath.Join(t.TempDir(), "registry.db"), indexes...)
	})
}

// An index that is declared when the file is opened holds the devices that were
// there before, one that is no longer declared is gone, and comes back whole.
func TestDeclareIndex(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.db")
	serial, model := []string{"ext", "serial"}, []string{"ext", "model"}
	const devices = 50
	s := open(t, path)
	if err := s.CreateTenant(t.Context(), registry.TenantRecord{ID: "T", Version: "v", Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	put := func(s *sqlitestore.Store, n int) {
		t.Helper()
		d := registry.DeviceRecord{Tenant: "T", ID: iot.DeviceID(fmt.Sprint("d", n)), Version: "v"}
		d.Device.Ext = json.RawMessage(fmt.Sprintf(`{"serial":"s%d","model":"m%d"}`, n, n%5))
		if err := s.CreateDevice(t.Context(), d, "c", -1); err != nil {
			t.Fatal(err)
		}
	}
	find := func(s *sqlitestore.Store, path []string, value string) (int, error) {
		page, err := s.SearchDevices(t.Context(), "T", registry.Search{Limit: 5, MaxScan: 20, Filters: []registry.Filter{{Path: path, Value: value}}})
		return page.Total, err
	}
	for n := range devices {
		put(s, n)
	}
	if _, err := find(s, serial, "s7"); !errors.Is(err, iot.ErrInvalid) {
		t.Fatalf("got %v without an index, want %v", err, iot.ErrInvalid)
	}
	for i, indexes := range [][][]string{{serial}, {serial, model}, {model}, {}, {serial}} {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openIndexed(t, path, indexes...)
		put(s, devices+i)
		has := map[string]bool{}
		for _, p := range indexes {
			has[p[1]] = true
		}
		for _, c := range []struct {
			path  []string
			value string
			want  int
		}{{serial, "s7", 1}, {serial, fmt.Sprint("s", devices+i), 1}, {serial, fmt.Sprint("s", devices), 1}, {model, "m3", (devices + i + 2) / 5}} {
			got, err := find(s, c.path, c.value)
			switch {
			case has[c.path[1]] && (err != nil || got != c.want):
				t.Errorf("%d: %v=%s with index: got %d, %v, want %d", i, c.path, c.value, got, err, c.want)
			case !has[c.path[1]] && !errors.Is(err, iot.ErrInvalid):
				t.Errorf("%d: %v=%s without index: got %d, %v, want %v", i, c.path, c.value, got, err, iot.ErrInvalid)
			}
		}
	}
}

func TestNoPathOfADocument(t *testing.T) {
	for _, path := range [][]string{nil, {"id"}, {"status", "created"}} {
		s, err := sqlitestore.Open(t.Context(), filepath.Join(t.TempDir(), "registry.db"), sqlitestore.Options{Indexes: [][]string{path}})
		if err == nil {
			s.Close()
			t.Errorf("an index on %q was accepted", path)
		}
	}
}

// A file of the first schema, with devices, gets what the second one added.
func TestMigration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.db")
	s := open(t, path)
	if err := s.CreateTenant(t.Context(), registry.TenantRecord{ID: "T", Version: "v", Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []iot.DeviceID{"a", "b"} {
		d := registry.DeviceRecord{Tenant: "T", ID: id, Version: "v"}
		if id == "a" {
			d.Device.Via = []iot.DeviceID{"b", "b"}
		}
		if err := s.CreateDevice(t.Context(), d, "c", -1); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `DROP TABLE verified; DROP TABLE vias; DROP TABLE index_paths; DROP TABLE device_index; PRAGMA user_version = 1`); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	yes := true
	page, err := s.SearchDevices(t.Context(), "T", registry.Search{Limit: 5, IsGateway: &yes})
	if err != nil || page.Total != 1 || page.Devices[0].ID != "b" {
		t.Fatalf("got %+v, %v, want the gateway b", page, err)
	}
}

// Two programs may have the file open with different indexes: both find what
// either writes, and neither trusts an index that is gone.
func TestIndexesOfTwoPrograms(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.db")
	serial := []string{"ext", "serial"}
	first := openIndexed(t, path)
	if err := first.CreateTenant(t.Context(), registry.TenantRecord{ID: "T", Version: "v", Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	second := openIndexed(t, path, serial)
	put := func(s *sqlitestore.Store, id iot.DeviceID, value string) {
		t.Helper()
		d := registry.DeviceRecord{Tenant: "T", ID: id, Version: "v"}
		d.Device.Ext = json.RawMessage(`{"serial":"` + value + `"}`)
		results, err := s.ApplyDevices(t.Context(), "T", []registry.DeviceWrite{{Op: registry.PutOp, Device: d, CredentialsVersion: "c"}}, -1)
		if err := errors.Join(append(results, err)...); err != nil {
			t.Fatal(err)
		}
	}
	want := func(s *sqlitestore.Store, value string, want int) {
		t.Helper()
		page, err := s.SearchDevices(t.Context(), "T", registry.Search{Limit: 5, Filters: []registry.Filter{{Path: serial, Value: value}}})
		if err != nil || page.Total != want {
			t.Fatalf("%s: got %d, %v, want %d", value, page.Total, err, want)
		}
	}
	put(first, "a", "x")
	put(second, "b", "x")
	want(first, "x", 2)
	want(second, "x", 2)
	put(first, "b", "y")
	want(second, "x", 1)
	want(second, "y", 1)
	third := openIndexed(t, path) // drops the index
	put(third, "c", "x")
	want(second, "x", 2)
	want(second, "y", 1)
	openIndexed(t, path, []string{"ext", "other"}, serial)
	want(second, "x", 2)
	put(second, "c", "z")
	want(third, "x", 1)
}
