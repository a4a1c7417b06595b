package pgstore_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/pgstore"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry/pgtest"
)

// wantDiscreet checks that a text shows none of what it must not.
func wantDiscreet(t testing.TB, said string, secrets ...string) {
	t.Helper()
	for _, secret := range append(secrets, pgtest.Password, "p%2540ss", "ss/w") {
		if strings.Contains(said, secret) {
			t.Errorf("%q shows %q", said, secret)
		}
	}
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

const (
	producers    = 8
	perAppend    = 20
	appendsEach  = 100
	faultTenants = 3
	faultRounds  = 3
)

// outage has producers append in order while the database goes away and comes
// back: what was refused is appended again under the ids that it had.
type outage struct {
	store        *pgstore.Store
	up           atomic.Pointer[chan struct{}] // closed when the database is back from the next outage
	acknowledged atomic.Int64
	refused      atomic.Int64
}

func (o *outage) produce(t *testing.T, writer uint64) {
	log := eventstore.New(o.store, eventstore.Options{})
	e := &events{writer: writer}
	for range appendsEach {
		records := e.next(perAppend, faultTenants, 5)
		for i := range records {
			records[i].Device = iot.DeviceID(fmt.Sprint(writer, "/", records[i].Device))
		}
		for len(records) > 0 {
			up := *o.up.Load()
			got, err := log.Append(t.Context(), eventstore.AppendRequest{Records: records})
			if err != nil {
				t.Error(err)
				return
			}
			var again []eventstore.Record
			for i, r := range got.Results {
				switch r.Status {
				case 200:
					o.acknowledged.Add(1)
				case 503:
					again = append(again, records[i])
				default:
					t.Errorf("%+v", r)
					return
				}
			}
			if records = again; len(again) > 0 {
				o.refused.Add(int64(len(again)))
				select {
				case <-up:
				case <-t.Context().Done():
					return
				}
			}
		}
	}
}

// Whatever was acknowledged is there after the database was killed, or stopped,
// again and again; nothing is there twice, and each device's in order.
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
			o := &outage{store: open(t, db.URL, pgstore.Options{})}
			up := make(chan struct{})
			o.up.Store(&up)
			var all sync.WaitGroup
			for w := range producers {
				all.Go(func() { o.produce(t, uint64(w+1)) })
			}
			const total = producers * perAppend * appendsEach
			for round := range faultRounds {
				for o.acknowledged.Load() < int64(total*(round+1)/(faultRounds+1)) && !t.Failed() {
					time.Sleep(time.Millisecond)
				}
				c.end(db, t)
				wantAway(t, errors.Join(o.store.Update(t.Context(), []eventstore.Change{put(key("none", 0), 1, 0, "x")})...))
				_, err := o.store.Partition(t.Context(), key("none", 0))
				wantAway(t, err)
				db.Restart(t)
				back := up
				if round < faultRounds-1 {
					up = make(chan struct{})
					o.up.Store(&up)
				}
				close(back)
			}
			all.Wait()
			if got := o.acknowledged.Load(); got != total {
				t.Fatalf("%d events were acknowledged, want %d", got, total)
			}
			t.Logf("%d times an event was refused", o.refused.Load())
			wantEachOnce(t, o.store, total)
		})
	}
}

func wantEachOnce(t *testing.T, s *pgstore.Store, total int) {
	t.Helper()
	found := 0
	last := map[string]uint64{}
	for tenant := range faultTenants {
		id := iot.TenantID(fmt.Sprintf("tenant-%05d", tenant))
		stored, err := s.PartitionsOf(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range stored {
			batches, err := s.Batches(t.Context(), eventstore.Key{Tenant: id, Partition: p.ID}, 0, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			size, next := int64(0), uint64(1)
			for _, b := range batches {
				records, err := eventstore.DecodeAll(b.Body, 1000)
				if err != nil {
					t.Fatal(err)
				}
				size += int64(len(b.Body))
				for _, r := range records {
					from := fmt.Sprint(id, "/", r.Device)
					if r.Position != next || r.ID.Counter <= last[from] {
						t.Fatalf("%s: counter %d at %d, after %d, want position %d", from, r.ID.Counter, r.Position, last[from], next)
					}
					last[from], next, found = r.ID.Counter, next+1, found+1
				}
			}
			if next != p.State.End || size != p.State.Bytes {
				t.Errorf("%s %s: end %d, %d bytes, want %d, %d", id, p.ID, p.State.End, p.State.Bytes, next, size)
			}
		}
	}
	if found != total {
		t.Errorf("%d events are there, want %d", found, total)
	}
}
