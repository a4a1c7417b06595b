package sqlitestore_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// However fast changes come, old ones go faster.
func TestFeedIsShortenedUnderLoad(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "registry.db"))
	start := time.UnixMilli(1_700_000_000_000)
	if err := s.CreateTenant(t.Context(), registry.TenantRecord{ID: "T", Version: "v", Created: start}); err != nil {
		t.Fatal(err)
	}
	load := func(at time.Time, round int) {
		t.Helper()
		writes := make([]registry.DeviceWrite, registry.MaxBatch)
		for i := range writes {
			d := registry.DeviceRecord{Tenant: "T", ID: iot.DeviceID(fmt.Sprint(round, "-", i)), Version: "v"}
			d.Status.Created.Time, d.Status.Updated.Time = at, at
			writes[i] = registry.DeviceWrite{Op: registry.CreateOp, Device: d, CredentialsVersion: "c"}
		}
		results, err := s.ApplyDevices(t.Context(), "T", writes, -1)
		if err := errors.Join(append(results, err)...); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 4 {
		load(start, round)
	}
	for round := range 3 { // in the same moment
		load(start.Add(registry.FeedRetention+time.Second), 4+round)
	}
	changes, _, err := s.Changes(t.Context(), registry.Position{Sequences: map[iot.TenantID]uint64{"T": 0}}, 10_000)
	if err != nil || len(changes) != 3000 || changes[0].Sequence != 4002 {
		t.Fatalf("got %d changes, %v, want 3000 from 4002 on", len(changes), err)
	}
}
