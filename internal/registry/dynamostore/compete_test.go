package dynamostore_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// TestFiftyWriters has fifty processes create devices of one tenant at once,
// and then fifty callers of one process.
func TestFiftyWriters(t *testing.T) {
	const writers = 50
	o := options(t)
	first := open(t, o)
	must(t, first.CreateTenant(t.Context(), tenant("T")))
	var all sync.WaitGroup
	for i := range 2 * writers {
		s := first
		if i < writers {
			s = open(t, o)
		}
		all.Go(func() {
			if err := s.CreateDevice(t.Context(), device(iot.DeviceID(fmt.Sprint("D", i))), "c", 2*writers); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := first.CreateDevice(t.Context(), device("one more"), "c", 2*writers); !errors.Is(err, iot.ErrForbidden) {
		t.Fatalf("got %v, want iot.ErrForbidden: the devices are counted", err)
	}
	changes, _, err := first.Changes(t.Context(), registry.Position{Sequences: map[iot.TenantID]uint64{"T": 0}}, 1000)
	must(t, err)
	if len(changes) != 1+2*writers {
		t.Fatalf("got %d changes, want %d", len(changes), 1+2*writers)
	}
	for i, c := range changes {
		if c.Sequence != uint64(i+1) {
			t.Fatalf("change %d has sequence %d", i, c.Sequence)
		}
	}
}

// TestTenantClaims has tenants of several processes claim one name and one
// trust anchor.
func TestTenantClaims(t *testing.T) {
	o := options(t)
	var won [2]atomic.Int64
	var all sync.WaitGroup
	for i := range 8 {
		s := open(t, o)
		all.Go(func() {
			r := tenant(iot.TenantID(fmt.Sprint("T", i)))
			if i%2 == 0 {
				r.Tenant.Alias = "wanted"
			} else {
				r.Tenant.TrustedCA = []iot.TrustAnchor{{ID: "1", SubjectDN: "CN=wanted"}}
			}
			if err := s.CreateTenant(t.Context(), r); err == nil {
				won[i%2].Add(1)
			} else if !errors.Is(err, iot.ErrExists) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won[0].Load() != 1 || won[1].Load() != 1 {
		t.Fatalf("%d tenants have the alias and %d the trust anchor, want 1 each", won[0].Load(), won[1].Load())
	}
}
