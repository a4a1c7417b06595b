package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// together runs f(0..n-1) at once and waits.
func together(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

func testLostUpdates(t *testing.T, s registry.Backend) {
	const workers, rounds = 4, 10
	population(t, s)
	together(workers, func(i int) {
		for round := 0; round < rounds; {
			d, err := s.Device(t.Context(), "T", "D")
			if err != nil {
				t.Error(err)
				return
			}
			old := d.Version
			d.Version = fmt.Sprintf("w%d-%d", i, round)
			d.Device.Authorities = append(d.Device.Authorities, d.Version)
			switch err := s.UpdateDevice(t.Context(), d, old); {
			case err == nil:
				round++
			case !errors.Is(err, iot.ErrVersion):
				t.Error(err)
				return
			}
		}
	})
	d, err := s.Device(t.Context(), "T", "D")
	must(t, err)
	if got, want := len(d.Device.Authorities), workers*rounds; got != want {
		t.Fatalf("got %d updates, want %d: some were lost", got, want)
	}
}

func testAuthIDRace(t *testing.T, s registry.Backend) {
	const workers = 8
	addTenant(t, s, "T")
	for i := range workers {
		addDevice(t, s, device("T", iot.DeviceID(fmt.Sprint("D", i))))
	}
	var won atomic.Int64
	together(workers, func(i int) {
		err := s.PutCredentials(t.Context(), registry.CredentialsRecord{Tenant: "T", Device: iot.DeviceID(fmt.Sprint("D", i)),
			Version: "c2", Set: []iot.Credential{password("wanted")}}, "", at)
		if err == nil {
			won.Add(1)
		} else if !errors.Is(err, iot.ErrExists) {
			t.Error(err)
		}
	})
	if won.Load() != 1 {
		t.Fatalf("%d devices got the same auth-id, want 1", won.Load())
	}
}

func testDense(t *testing.T, s registry.Backend) {
	const workers, rounds = 4, 20
	addTenant(t, s, "T")
	together(workers, func(i int) {
		for round := range rounds {
			if err := s.CreateDevice(t.Context(), device("T", iot.DeviceID(fmt.Sprint(i, "-", round))), "c", -1); err != nil {
				t.Error(err)
			}
			s.CreateDevice(t.Context(), device("T", "same"), "c", -1) // all but one fail and count nothing
		}
	})
	changes, _, err := s.Changes(t.Context(), registry.Position{Sequences: map[iot.TenantID]uint64{"T": 0}}, 1000)
	must(t, err)
	for i, c := range changes {
		if c.Sequence != uint64(i+1) {
			t.Fatalf("change %d has sequence %d", i, c.Sequence)
		}
	}
	if got, want := len(changes), 1+workers*rounds+1; got != want {
		t.Fatalf("got %d changes, want %d", got, want)
	}
}

// testConsistentReads has a writer that alternates between two states which
// differ in tenant, device and sequence; no read may see a mixture.
func testConsistentReads(t *testing.T, s registry.Backend) {
	population(t, s) // 4 changes
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for ctx.Err() == nil {
				snap, err := s.Read(t.Context(), registry.Query{Tenant: registry.TenantKey{ID: "T"}, Device: "D"})
				if err != nil {
					t.Error(err)
					return
				}
				if want := fmt.Sprint("n", snap.Sequence); snap.Sequence > 4 && snap.Device.Version != want {
					t.Errorf("sequence %d with device version %s", snap.Sequence, snap.Device.Version)
					return
				}
			}
		})
	}
	d := device("T", "D")
	for n := 5; n < 100; n++ {
		d.Version = fmt.Sprint("n", n)
		if err := s.UpdateDevice(t.Context(), d, ""); err != nil {
			t.Error(err)
		}
	}
	stop()
	readers.Wait()
}

func testEndedContext(t *testing.T, s registry.Backend) {
	addTenant(t, s, "T")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Tenant(ctx, "T"); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	if err := s.CreateTenant(ctx, tenant("U")); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	expired, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	_, err := s.Tenant(expired, "T")
	wantErr(t, err, iot.ErrTimeout)
}
