package sqlitestore

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/sluice-iot/sluice/internal/registry"
)

// Devices must be able to log in while others search.
func TestSearchesLeaveAReader(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "registry.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.CreateTenant(t.Context(), registry.TenantRecord{ID: "T", Version: "v"}); err != nil {
		t.Fatal(err)
	}
	begun, end, done := make(chan struct{}, 8), make(chan struct{}), make(chan error, 8)
	ctx, cancel := context.WithCancel(t.Context())
	for range cap(done) {
		go func() {
			done <- s.snapshot(ctx, func(context.Context, *conn) error {
				begun <- struct{}{}
				<-end
				return nil
			})
		}()
	}
	<-begun
	if _, err := s.Tenant(t.Context(), "T"); err != nil {
		t.Errorf("a tenant cannot be read: %v", err)
	}
	cancel() // those that wait for their turn go
	close(end)
	for range cap(done) {
		<-done
	}
}
