package storetest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// all returns the changes of T from the feed.
func all(t *testing.T, s registry.Backend) []registry.Change {
	t.Helper()
	changes, _, err := s.Changes(t.Context(), registry.Position{Sequences: map[iot.TenantID]uint64{"T": 0}}, 10_000)
	must(t, err)
	return changes
}

type mark struct{}

func testObserve(t *testing.T, s registry.Backend) {
	ctx := context.WithValue(t.Context(), mark{}, "mine")
	var seen []registry.Change
	calls := 0
	s.Observe(func(ctx context.Context, changes []registry.Change) {
		calls++
		seen = append(seen, changes...)
		if len(changes) == 0 {
			t.Error("told of no change")
		}
		if ctx.Value(mark{}) != "mine" {
			t.Error("the context is not the caller's")
		}
		// The change is there for everybody by now, and the store can be used.
		snap, err := s.Read(ctx, registry.Query{Tenant: registry.TenantKey{ID: "T"}})
		if err == nil && snap.Sequence < changes[len(changes)-1].Sequence {
			t.Errorf("told of %d while the sequence is %d", changes[len(changes)-1].Sequence, snap.Sequence)
		}
		if err := s.KeepVerified(ctx, "T", iot.HashedPassword, "a", verified("s1", "m")); err != nil {
			t.Error(err)
		}
	})
	put := func(authIDs ...string) error {
		c := credentialsOf("D", "c2")
		for _, a := range authIDs {
			c.Set = append(c.Set, password(a))
		}
		return s.PutCredentials(ctx, *c, "", at)
	}
	bulk := func(writes ...registry.DeviceWrite) error {
		_, err := s.ApplyDevices(ctx, "T", writes, -1)
		return err
	}
	for _, step := range []struct {
		name    string
		do      func() error
		changes int
	}{
		{"create tenant", func() error { return s.CreateTenant(ctx, tenant("T")) }, 1},
		{"update tenant", func() error { return s.UpdateTenant(ctx, tenant("T"), "") }, 1},
		{"create device", func() error { return s.CreateDevice(ctx, device("T", "D"), "c", -1) }, 1},
		{"create it again", func() error { s.CreateDevice(ctx, device("T", "D"), "c", -1); return nil }, 0},
		{"wrong version", func() error { s.UpdateDevice(ctx, device("T", "D"), "x"); return nil }, 0},
		{"update device", func() error { return s.UpdateDevice(ctx, device("T", "D"), "") }, 1},
		{"put credentials", func() error { return put("a") }, 1},
		{"conflict", func() error { put("b", "b"); return nil }, 0},
		{"mark notified", func() error { return s.MarkNotified(ctx, "T", "D", "v1", "v2", at) }, 1},
		{"keep verified", func() error { return s.KeepVerified(ctx, "T", iot.HashedPassword, "a", verified("s1", "m")) }, 0},
		{"bulk", func() error {
			return bulk(write(registry.CreateOp, "E", "v1"), write(registry.CreateOp, "D", "v1"), write(registry.PutOp, "F", "v1"))
		}, 2},
		{"bulk of failures", func() error { return bulk(write(registry.CreateOp, "E", "v1")) }, 0},
		{"bulk without change", func() error {
			return bulk(registry.DeviceWrite{Op: registry.SetEnabledOp, Device: bulkDevice("E", "v9", nil)})
		}, 0},
		{"delete device", func() error { return s.DeleteDevice(ctx, "T", "D", "", at) }, 1},
		{"delete devices", func() error { return s.DeleteDevices(ctx, "T", at) }, 1},
		{"delete tenant", func() error { return s.DeleteTenant(ctx, "T", "", at) }, 1},
	} {
		before := len(seen)
		must(t, step.do())
		if got := len(seen) - before; got != step.changes {
			t.Fatalf("%s: told of %d changes, want %d", step.name, got, step.changes)
		}
	}
	sameChanges(t, seen, all(t, s))
	if calls > len(seen) {
		t.Errorf("%d calls for %d changes", calls, len(seen))
	}
}

func testObserveConcurrent(t *testing.T, s registry.Backend) {
	const workers, rounds = 4, 15
	var mu sync.Mutex
	var seen []registry.Change
	s.Observe(func(_ context.Context, changes []registry.Change) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, changes...)
	})
	addTenant(t, s, "T")
	together(workers, func(i int) {
		for round := range rounds {
			id := iot.DeviceID(fmt.Sprint("w", i, "-", round))
			if round%3 == 0 {
				if _, err := s.ApplyDevices(t.Context(), "T", []registry.DeviceWrite{write(registry.PutOp, id, "v1"),
					write(registry.CreateOp, "same", "v1"), write(registry.DeleteOp, id, "")}, -1); err != nil {
					t.Error(err)
				}
				continue
			}
			if err := s.CreateDevice(t.Context(), device("T", id), "c", -1); err != nil {
				t.Error(err)
			}
			s.CreateDevice(t.Context(), device("T", "same"), "c", -1)
		}
	})
	mu.Lock()
	defer mu.Unlock()
	slices.SortFunc(seen, func(a, b registry.Change) int { return cmp.Compare(a.Sequence, b.Sequence) })
	sameChanges(t, seen, all(t, s))
}
