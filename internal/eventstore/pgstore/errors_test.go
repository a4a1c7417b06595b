package pgstore_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/pgstore"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry/pgtest"
)

// one makes a small change and returns its error.
func one(ctx context.Context, s *pgstore.Store) error {
	return errors.Join(s.Update(ctx, []eventstore.Change{put(key("T", 0), 1, 0, "x")})...)
}

func TestOpenFails(t *testing.T) {
	db := pgtest.Start(t)
	wrong := strings.Replace(db.URL, "tester:", "tester:wrong", 1)
	_, err := pgstore.Open(t.Context(), wrong, pgstore.Options{})
	wantAway(t, err)
	if !strings.Contains(err.Error(), "password authentication failed") {
		t.Errorf("got %v", err)
	}
	wantDiscreet(t, err.Error(), "wrong")
	_, err = pgstore.Open(t.Context(), strings.Replace(db.URL, "sslmode=disable", "sslmode=require", 1), pgstore.Options{})
	wantAway(t, err)
	if !strings.Contains(err.Error(), "TLS") {
		t.Errorf("got %v", err)
	}
	db.Exec(t, `CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1'`)
	_, err = pgstore.Open(t.Context(), strings.Replace(db.URL, "/postgres?", "/latin?", 1), pgstore.Options{})
	if err == nil || !strings.Contains(err.Error(), "LATIN1") {
		t.Errorf("got %v", err)
	}
	db.Stop(t)
	_, err = pgstore.Open(t.Context(), db.URL, pgstore.Options{})
	wantAway(t, err)
}

func TestConnectionString(t *testing.T) {
	for _, c := range []struct{ name, url, want string }{
		{"no URL", "sqlite:///p%40ss/w:rd", "want postgres://"},
		{"raw password", "postgres://sluice:" + pgtest.Password + "@127.0.0.1/db", "percent-encoded"},
		{"port", "postgres://sluice:p%2540ss%2Fw:rd@127.0.0.1:none/db", "percent-encoded"},
		{"parameter", "postgres://sluice:secret-word@127.0.0.1/db?sslmode=maybe", "sslmode"},
		{"missing file", "postgres://sluice:secret-word@127.0.0.1/db?sslmode=verify-full&sslrootcert=/none/ca.pem", "/none/ca.pem"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := pgstore.Open(t.Context(), c.url, pgstore.Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q in it", err, c.want)
			}
			wantDiscreet(t, err.Error(), "secret-word", "\n")
		})
	}
	if _, err := pgstore.Open(t.Context(), "postgres://127.0.0.1/x", pgstore.Options{MaxConns: -1}); err == nil || !strings.Contains(err.Error(), "MaxConns") {
		t.Fatalf("got %v", err)
	}
}

func TestClosed(t *testing.T) {
	s := open(t, pgtest.Start(t).URL, pgstore.Options{})
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	_, err := s.Partition(t.Context(), key("T", 0))
	wantAway(t, err)
	wantAway(t, one(t.Context(), s))
}

// A statement that fails undoes the whole change, and says no more to callers
// than that the store is away; when the database has recovered, so has the store.
func TestDatabaseRefuses(t *testing.T) {
	const end = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sluice'`
	db := pgtest.Start(t)
	s := open(t, db.URL, pgstore.Options{MaxConns: 1})
	if err := one(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, breaks, mends string }{
		{"a table is gone", `ALTER TABLE sluice_events.event_batches RENAME TO gone`, `ALTER TABLE sluice_events.gone RENAME TO event_batches`},
		{"the commit fails", `
			CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'the disk is full' USING ERRCODE = '53100'; END $$;
			CREATE CONSTRAINT TRIGGER refused AFTER INSERT ON sluice_events.event_batches DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()`,
			`DROP TRIGGER refused ON sluice_events.event_batches`},
		{"read-only", `ALTER ROLE tester SET default_transaction_read_only = on; ` + end,
			`BEGIN; SET TRANSACTION READ WRITE; ALTER ROLE tester RESET default_transaction_read_only; COMMIT`},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := state(t, s, key("T", 0)).End
			db.Exec(t, c.breaks)
			wantAway(t, one(t.Context(), s))
			if got := state(t, s, key("T", 0)).End; got != before {
				t.Errorf("half of the change is there: end %d, want %d", got, before)
			}
			db.Exec(t, c.mends)
			if err := one(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
}

// A connection that ends while the commit is on its way leaves the caller in
// doubt, and the store says so and does not apply the change once more.
func TestUnknownCommit(t *testing.T) {
	db := pgtest.Start(t)
	s := open(t, db.URL, pgstore.Options{})
	db.Exec(t, `CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON sluice_events.event_batches DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()`)
	applied := 0
	c := put(key("T", 0), 1, 0, "x")
	err := errors.Join(s.Update(t.Context(), []eventstore.Change{{Key: c.Key, Apply: func(p *eventstore.Partition, w *eventstore.Writes) error {
		applied++
		return c.Apply(p, w)
	}}})...)
	wantAway(t, err)
	var own *iot.Error
	if !errors.As(err, &own) || !strings.Contains(own.Text, "may or may not") || applied != 1 {
		t.Fatalf("got %q after %d times", own.Text, applied)
	}
	db.Exec(t, `DROP TRIGGER dies ON sluice_events.event_batches`)
	if err := one(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// What the database undoes for the sake of another transaction is made again,
// a few times, each time from the state as it is.
func TestRepeats(t *testing.T) {
	db := pgtest.Start(t)
	s := open(t, db.URL, pgstore.Options{})
	for i, code := range []string{"40001", "40P01", "57P01"} {
		db.Exec(t, `CREATE SEQUENCE attempts;
			CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				IF nextval('attempts') < 3 THEN RAISE 'try again' USING ERRCODE = '`+code+`'; END IF; RETURN NEW; END $$;
			CREATE TRIGGER fails BEFORE INSERT ON sluice_events.event_batches FOR EACH ROW EXECUTE FUNCTION fail();
			ALTER FUNCTION fail() SET search_path = public`)
		if err := one(t.Context(), s); err != nil {
			t.Error(code, err)
		}
		if p := state(t, s, key("T", 0)); p.End != uint64(i+2) || p.Bytes != int64(i+1) {
			t.Errorf("%s: got %+v", code, p)
		}
		db.Exec(t, `ALTER SEQUENCE attempts MINVALUE -1000 RESTART WITH -1000`)
		wantAway(t, one(t.Context(), s))
		db.Exec(t, `DROP TRIGGER fails ON sluice_events.event_batches; DROP FUNCTION fail; DROP SEQUENCE attempts`)
	}
}

// A connection that died while nobody used it is not noticed by callers.
func TestDeadConnections(t *testing.T) {
	db := pgtest.Start(t)
	s := open(t, db.URL, pgstore.Options{})
	for range 3 {
		if err := one(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		db.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sluice'`)
	}
}

// Callers that end while they wait for a lock leave nothing behind.
func TestEndsWhileWaiting(t *testing.T) {
	db := pgtest.Start(t)
	s := open(t, db.URL, pgstore.Options{Timeout: 500 * time.Millisecond})
	if err := one(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	other, err := pgx.Connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.WithoutCancel(t.Context()))
	tx, err := other.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT 1 FROM sluice_events.event_partitions FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	wantAway(t, one(t.Context(), s))
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := one(short, s); !errors.Is(err, iot.ErrTimeout) {
		t.Errorf("got %v, want %v", err, iot.ErrTimeout)
	}
	gone, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := one(gone, s); !errors.Is(err, context.Canceled) || errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := one(t.Context(), s); err != nil {
		t.Error(err)
	}
}

// Commits are flushed, whatever the user's default is.
func TestFlushesCommits(t *testing.T) {
	db := pgtest.Start(t)
	for _, c := range []struct{ set, want string }{{"off", "on"}, {"remote_apply", "remote_apply"}} {
		db.Exec(t, `ALTER ROLE tester SET synchronous_commit = `+c.set)
		s := open(t, db.URL, pgstore.Options{})
		db.Exec(t, `CREATE TABLE seen (setting text);
			CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$;
			CREATE TRIGGER looks BEFORE INSERT ON sluice_events.event_batches FOR EACH ROW EXECUTE FUNCTION look()`)
		if err := one(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		db.Exec(t, `DO $$ BEGIN IF (SELECT count(*) FROM seen WHERE setting = '`+c.want+`') <> 1 THEN RAISE 'the setting is %', (SELECT setting FROM seen); END IF; END $$;
			DROP TRIGGER looks ON sluice_events.event_batches; DROP FUNCTION look; DROP TABLE seen`)
	}
}

// One state that cannot be read fails its own changes only.
func TestStateOfAnotherKind(t *testing.T) {
	db := pgtest.Start(t)
	s := open(t, db.URL, pgstore.Options{})
	update(t, s, put(key("T", 0), 1, 0, "x"), put(key("T", 1), 1, 0, "x"))
	db.Exec(t, `UPDATE sluice_events.event_partitions SET state = 'none' WHERE number = 0`)
	errs := s.Update(t.Context(), []eventstore.Change{put(key("T", 1), 1, 0, "x"), put(key("T", 0), 1, 0, "x")})
	if len(errs) != 2 || errs[0] != nil {
		t.Fatalf("got %v", errs)
	}
	wantAway(t, errs[1])
	if p := state(t, s, key("T", 1)); p.End != 3 {
		t.Errorf("got %+v", p)
	}
}
