package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/pgstore"
	"github.com/sluice-iot/sluice/internal/registry/pgtest"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func addTenant(t testing.TB, s *pgstore.Store) {
	t.Helper()
	if err := s.CreateTenant(t.Context(), registry.TenantRecord{ID: "T", Version: "v", Created: at}); err != nil {
		t.Fatal(err)
	}
}

func device(id string) registry.DeviceRecord {
	return registry.DeviceRecord{Tenant: "T", ID: iot.DeviceID(id), Version: "v", Status: iot.DeviceStatus{Created: iot.Timestamp{Time: at}}}
}

// wantAway checks that an error says what is true for callers, when to come
// back, and nothing of the database.
func wantAway(t testing.TB, err error) {
	t.Helper()
	var own *iot.Error
	if !errors.Is(err, iot.ErrUnavailable) || !errors.As(err, &own) || iot.RetryAfter(err) <= 0 {
		t.Fatalf("got %v, want %v with the time of a retry", err, iot.ErrUnavailable)
	}
	wantDiscreet(t, own.Text, "127.0.0.1", "SQLSTATE", "postgres")
	wantDiscreet(t, err.Error(), "\n")
}

// registrations registers devices from many callers, while the database goes
// away and comes back. Whoever is told that the store is away asks again when
// it is back, and may then learn that the device exists.
type registrations struct {
	store        *pgstore.Store
	next         atomic.Int64
	acknowledged atomic.Int64
	refused      atomic.Int64
	up           chan struct{}
}

const registered = 1000

func (r *registrations) work(t *testing.T) {
	for {
		n := r.next.Add(1)
		if n > registered {
			return
		}
		for uncertain := false; ; uncertain = true {
			err := r.store.CreateDevice(t.Context(), device(fmt.Sprint("D", n)), "c", -1)
			if err == nil || uncertain && errors.Is(err, iot.ErrExists) {
				r.acknowledged.Add(1)
				break
			}
			if !errors.Is(err, iot.ErrUnavailable) || iot.RetryAfter(err) <= 0 {
				t.Errorf("device %d: %v", n, err)
				return
			}
			r.refused.Add(1)
			<-r.up
		}
	}
}

func TestDatabaseGoesAway(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*pgtest.Server, testing.TB)
	}{
		{"killed", (*pgtest.Server).Kill},
		{"stopped", (*pgtest.Server).Stop},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := pgtest.Start(t)
			s := open(t, db.URL, pgstore.Options{})
			addTenant(t, s)
			r := &registrations{store: s, up: make(chan struct{})}
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() { r.work(t) })
			}
			for r.acknowledged.Load() < registered/3 {
				time.Sleep(time.Millisecond)
			}
			c.end(db, t)
			wantAway(t, s.CreateDevice(t.Context(), device("none"), "c", -1))
			_, err := s.Device(t.Context(), "T", "D1")
			wantAway(t, err)
			db.Restart(t)
			close(r.up)
			all.Wait()
			if got := r.acknowledged.Load(); got != registered {
				t.Fatalf("%d registrations were acknowledged, want %d", got, registered)
			}
			t.Logf("%d calls were refused", r.refused.Load())
			wantEachOnce(t, s)
		})
	}
}

// Two processes share the limit of devices, the auth-ids and the sequence.
func TestTwoProcesses(t *testing.T) {
	db := pgtest.Start(t)
	stores := []*pgstore.Store{open(t, db.URL, pgstore.Options{}), open(t, db.URL, pgstore.Options{})}
	addTenant(t, stores[0])
	const limit = 25
	var all sync.WaitGroup
	var made, claimed, observed atomic.Int64
	for i, s := range stores {
		s.Observe(func(_ context.Context, changes []registry.Change) { observed.Add(int64(len(changes))) })
		for w := range 4 {
			all.Go(func() {
				for n := range 10 {
					id := fmt.Sprintf("D%d-%d-%d", i, w, n)
					switch err := s.CreateDevice(t.Context(), device(id), "c", limit); {
					case err == nil:
						made.Add(1)
					case !errors.Is(err, iot.ErrForbidden):
						t.Error(err)
					}
					set := []iot.Credential{{Type: iot.PSK, AuthID: "one"}}
					err := s.PutCredentials(t.Context(), registry.CredentialsRecord{Tenant: "T", Device: iot.DeviceID(id), Set: set, Version: "c"}, "", at)
					switch {
					case err == nil:
						claimed.Add(1)
					case !errors.Is(err, iot.ErrExists) && !errors.Is(err, iot.ErrNotFound):
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
	if made.Load() != limit || claimed.Load() != 1 || observed.Load() != limit+1 {
		t.Errorf("%d devices were made, want %d; %d got the auth-id, want 1; %d changes were observed", made.Load(), limit, claimed.Load(), observed.Load())
	}
	snap, err := stores[1].Read(t.Context(), registry.Query{Tenant: registry.TenantKey{ID: "T"}})
	if err != nil || snap.Sequence != limit+2 {
		t.Errorf("the sequence is %d, %v, want %d", snap.Sequence, err, limit+2)
	}
}

func wantEachOnce(t *testing.T, s *pgstore.Store) {
	t.Helper()
	changes, more, err := s.Changes(t.Context(), registry.Position{Sequences: map[iot.TenantID]uint64{"T": 0}}, 10*registered)
	if err != nil || more {
		t.Fatal(err, more)
	}
	made := make(map[iot.DeviceID]int)
	for i, ch := range changes {
		if ch.Sequence != uint64(i+1) {
			t.Fatalf("change %d has the sequence %d", i+1, ch.Sequence)
		}
		if ch.Kind == registry.DeviceChanged {
			made[ch.Device]++
		}
	}
	for i := range registered {
		id := iot.DeviceID(fmt.Sprint("D", i+1))
		if made[id] != 1 {
			t.Errorf("%s was made %d times", id, made[id])
		}
		if _, err := s.Device(t.Context(), "T", id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	if len(made) != registered {
		t.Errorf("%d devices were made, want %d", len(made), registered)
	}
	// The count is kept beside: one more fits exactly.
	if err := s.CreateDevice(t.Context(), device("more"), "c", registered+1); err != nil {
		t.Error(err)
	}
	if err := s.CreateDevice(t.Context(), device("too many"), "c", registered+1); !errors.Is(err, iot.ErrForbidden) {
		t.Errorf("got %v, want %v", err, iot.ErrForbidden)
	}
}
