package registry_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/sqlitestore"
)

func newService(t *testing.T, o registry.Options) *registry.Service {
	t.Helper()
	store, err := sqlitestore.Open(t.Context(), filepath.Join(t.TempDir(), "registry.db"), sqlitestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	if o.MaxBcryptCost == 0 {
		o.MaxBcryptCost = 4
	}
	s, err := registry.New(store, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, got, want error) {
	t.Helper()
	if want == nil && got != nil || !errors.Is(got, want) {
		t.Fatalf("got error %v, want %v", got, want)
	}
}

func addTenant(t *testing.T, s *registry.Service, id iot.TenantID, body string) {
	t.Helper()
	v, err := registry.DecodeTenant([]byte(body))
	must(t, err)
	_, _, err = s.CreateTenant(t.Context(), id, v)
	must(t, err)
}

func addDevice(t *testing.T, s *registry.Service, tenant iot.TenantID, id iot.DeviceID, body string) {
	t.Helper()
	v, err := registry.DecodeDevice([]byte(body))
	must(t, err)
	_, _, err = s.CreateDevice(t.Context(), tenant, id, v)
	must(t, err)
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
