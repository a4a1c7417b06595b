package pgstore_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/pgstore"
	"github.com/sluice-iot/sluice/internal/eventstore/storetest"
	"github.com/sluice-iot/sluice/internal/iot"
	registrystore "github.com/sluice-iot/sluice/internal/registry/pgstore"
	"github.com/sluice-iot/sluice/internal/registry/pgtest"
)

func open(t testing.TB, url string, o pgstore.Options) *pgstore.Store {
	t.Helper()
	s, err := pgstore.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func key(tenant string, number uint16) eventstore.Key {
	return eventstore.Key{Tenant: iot.TenantID(tenant), Partition: eventstore.PartitionID{Number: number}}
}

// put returns a change that adds one batch of n positions.
func put(k eventstore.Key, n uint64, expires int64, body string) eventstore.Change {
	return eventstore.Change{Key: k, Apply: func(p *eventstore.Partition, w *eventstore.Writes) error {
		b := eventstore.Batch{First: p.End, Last: p.End + n - 1, At: 7, Expires: expires, Body: []byte(body)}
		p.End += n
		if p.Head == 0 {
			p.Head = b.Last
		}
		p.Bytes += int64(len(body))
		w.Batches = append(w.Batches, b)
		return nil
	}}
}

func update(t testing.TB, s *pgstore.Store, changes ...eventstore.Change) {
	t.Helper()
	if err := errors.Join(s.Update(t.Context(), changes)...); err != nil {
		t.Fatal(err)
	}
}

func state(t testing.TB, s *pgstore.Store, k eventstore.Key) eventstore.Partition {
	t.Helper()
	p, err := s.Partition(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestStore(t *testing.T) {
	db := pgtest.Start(t)
	storetest.Run(t, func(t *testing.T) eventstore.Store {
		return open(t, db.URL, pgstore.Options{Schema: pgtest.Schema()})
	})
}

func TestUpdateOfMany(t *testing.T) {
	s := open(t, pgtest.Start(t).URL, pgstore.Options{})
	refused := errors.New("refused")
	changes := []eventstore.Change{put(key("b", 1), 3, 0, "abc"), put(key("a", 2), 1, 0, "x"),
		{Key: key("a", 1), Apply: func(*eventstore.Partition, *eventstore.Writes) error { return refused }},
		{Key: key("c", 1), Apply: func(_ *eventstore.Partition, w *eventstore.Writes) error { w.Unchanged = true; return nil }},
		put(key("a\x00", 1), 1, 0, "y"), put(key("b", 1), 1, 0, "twice")}
	errs := s.Update(t.Context(), changes)
	for i, want := range []error{nil, nil, refused, nil, iot.ErrInvalid, iot.ErrInvalid} {
		if !errors.Is(errs[i], want) {
			t.Errorf("change %d: got %v, want %v", i, errs[i], want)
		}
	}
	tenants, err := s.Tenants(t.Context(), "", 10)
	if err != nil || len(tenants) != 2 || tenants[0] != "a" || tenants[1] != "b" {
		t.Errorf("got tenants %v, %v", tenants, err)
	}
	if of, err := s.PartitionsOf(t.Context(), "a"); err != nil || len(of) != 1 || of[0].ID.Number != 2 {
		t.Errorf("got %v, %v: what failed left something", of, err)
	}
	if p := state(t, s, key("b", 1)); p.End != 4 || p.Bytes != 3 || p.Head != 3 {
		t.Errorf("got %+v", p)
	}
}

// A purge of more batches than one change removes goes on with the next change.
func TestRemovesInSteps(t *testing.T) {
	s := open(t, pgtest.Start(t).URL, pgstore.Options{})
	k := key("T", 0)
	for range 5 {
		update(t, s, eventstore.Change{Key: k, Apply: func(p *eventstore.Partition, w *eventstore.Writes) error {
			for range 500 {
				if err := put(k, 2, 0, "0123456789").Apply(p, w); err != nil {
					return err
				}
			}
			return nil
		}})
	}
	finish := eventstore.Change{Key: k, Apply: func(p *eventstore.Partition, w *eventstore.Writes) error {
		p.Cursor = p.End - 1 // inside of the last batch
		p.Mark = p.Cursor
		return nil
	}}
	for _, want := range []struct {
		bytes int64
		head  uint64
	}{{15_000, 2002}, {5_000, 4002}, {10, 5000}, {10, 5000}} {
		update(t, s, finish)
		if p := state(t, s, k); p.Bytes != want.bytes || p.Head != want.head {
			t.Fatalf("got %d bytes, head %d, want %+v", p.Bytes, p.Head, want)
		}
	}
}

// Batches beyond what one statement looks at are found as well.
func TestManySmallBatches(t *testing.T) {
	s := open(t, pgtest.Start(t).URL, pgstore.Options{})
	k := key("T", 0)
	update(t, s, eventstore.Change{Key: k, Apply: func(p *eventstore.Partition, w *eventstore.Writes) error {
		for range 1000 {
			if err := put(k, 1, 0, "12345").Apply(p, w); err != nil {
				return err
			}
		}
		return nil
	}})
	for _, c := range []struct {
		from        uint64
		bytes, want int
	}{{1, 1 << 20, 1000}, {1, 1, 1}, {1, 0, 1}, {1, 5, 1}, {1, 6, 2}, {1, 256 * 5, 256}, {1, 256*5 + 1, 257}, {900, 1 << 20, 101}, {1001, 10, 0}, {1 << 63, 10, 0}} {
		got, err := s.Batches(t.Context(), k, c.from, c.bytes)
		if err != nil || len(got) != c.want {
			t.Errorf("from %d, %d bytes: got %d batches, %v, want %d", c.from, c.bytes, len(got), err, c.want)
		}
		for i, b := range got {
			if b.First != c.from+uint64(i) || string(b.Body) != "12345" || b.At != 7 {
				t.Fatalf("batch %d is %+v", i, b)
			}
		}
	}
}

// Processes that begin to use the same partitions at once all get to them.
func TestNewPartitionsAtOnce(t *testing.T) {
	db := pgtest.Start(t)
	stores := []*pgstore.Store{open(t, db.URL, pgstore.Options{}), open(t, db.URL, pgstore.Options{})}
	const writers, rounds = 8, 20
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for r := range rounds {
				var changes []eventstore.Change
				for n := range 16 {
					// In another order for each, some new in each round.
					changes = append(changes, put(key("T", uint16(((n+w)*7)%16+r*4)), 1, 0, "body"))
				}
				if err := errors.Join(stores[w%2].Update(t.Context(), changes)...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	stored, err := stores[0].PartitionsOf(t.Context(), "T")
	sum := uint64(0)
	for _, p := range stored {
		sum += p.State.End - 1
	}
	if err != nil || sum != writers*rounds*16 {
		t.Fatalf("%d batches were kept, want %d: %v", sum, writers*rounds*16, err)
	}
}

func TestMigrations(t *testing.T) {
	db := pgtest.Start(t)
	t.Run("eight at once", func(t *testing.T) {
		schema := pgtest.Schema()
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				s, err := pgstore.Open(t.Context(), db.URL, pgstore.Options{Schema: schema, MaxConns: 2})
				if err != nil {
					t.Error(err)
					return
				}
				defer s.Close()
				if errs := s.Update(t.Context(), []eventstore.Change{put(key("T", 0), 1, 0, "x")}); errs != nil {
					t.Error(errs)
				}
			})
		}
		all.Wait()
	})
	t.Run("two installations", func(t *testing.T) {
		a, b := open(t, db.URL, pgstore.Options{Schema: pgtest.Schema()}), open(t, db.URL, pgstore.Options{Schema: `odd "name"`})
		update(t, a, put(key("T", 0), 1, 0, "x"))
		if p := state(t, b, key("T", 0)); p.End != 1 {
			t.Errorf("got %+v of the other", p)
		}
	})
	t.Run("the registry's schema", func(t *testing.T) {
		schema := pgtest.Schema()
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				s, err := pgstore.Open(t.Context(), db.URL, pgstore.Options{Schema: schema})
				if err != nil {
					t.Error(err)
					return
				}
				s.Close()
			})
			all.Go(func() {
				s, err := registrystore.Open(t.Context(), db.URL, registrystore.Options{Schema: schema})
				if err != nil {
					t.Error(err)
					return
				}
				s.Close()
			})
		}
		all.Wait()
	})
	t.Run("newer", func(t *testing.T) {
		schema := pgtest.Schema()
		open(t, db.URL, pgstore.Options{Schema: schema})
		db.Exec(t, `UPDATE `+pgx.Identifier{schema, "event_schema"}.Sanitize()+` SET version = 1000`)
		_, err := pgstore.Open(t.Context(), db.URL, pgstore.Options{Schema: schema})
		if err == nil || !strings.Contains(err.Error(), "newer than this program: version 1000") || !strings.Contains(err.Error(), schema) {
			t.Fatalf("got %v", err)
		}
	})
}

// The privileges that the package's documentation names are enough.
func TestPrivileges(t *testing.T) {
	db := pgtest.Start(t)
	db.Exec(t, `CREATE ROLE owner LOGIN PASSWORD 'o'; CREATE ROLE runner LOGIN PASSWORD 'r'; CREATE ROLE nobody LOGIN PASSWORD 'n';
		GRANT CREATE ON DATABASE postgres TO owner`)
	as := func(user string) string {
		return strings.Replace(db.URL, db.URL[len("postgres://"):strings.Index(db.URL, "@127")], user+":"+user[:1], 1)
	}
	update(t, open(t, as("owner"), pgstore.Options{}), put(key("T", 0), 1, 0, "x"))
	db.Exec(t, `GRANT USAGE ON SCHEMA sluice_events TO runner; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA sluice_events TO runner`)
	update(t, open(t, as("runner"), pgstore.Options{}), put(key("T", 0), 1, 0, "x"), put(key("T", 1), 1, 0, "x"))
	_, err := pgstore.Open(t.Context(), as("nobody"), pgstore.Options{Schema: "other"})
	if err == nil || !strings.Contains(err.Error(), "permission denied") || !strings.Contains(err.Error(), "other") {
		t.Fatalf("got %v", err)
	}
}
