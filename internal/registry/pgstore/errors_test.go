package pgstore_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/pgstore"
	"github.com/sluice-iot/sluice/internal/registry/pgtest"
)

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

func TestClosed(t *testing.T) {
	s := open(t, pgtest.Start(t).URL, pgstore.Options{})
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	_, err := s.Tenant(t.Context(), "T")
	wantAway(t, err)
	wantAway(t, s.DeleteDevices(t.Context(), "T", at))
}

// A statement that fails undoes the whole change, and says no more to callers
// than that the store is away.
func TestDatabaseRefuses(t *testing.T) {
	db := pgtest.Start(t)
	s := open(t, db.URL, pgstore.Options{MaxConns: 1})
	addTenant(t, s)
	for _, c := range []struct{ name, breaks, mends string }{
		{"a table is gone", `ALTER TABLE sluice.feed RENAME TO gone`, `ALTER TABLE sluice.gone RENAME TO feed`},
		{"the commit fails", `
			CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'the disk is full' USING ERRCODE = '53100'; END $$;
			CREATE CONSTRAINT TRIGGER refused AFTER INSERT ON sluice.feed DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()`,
			`DROP TRIGGER refused ON sluice.feed`},
		{"read-only", `ALTER ROLE tester SET default_transaction_read_only = on; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sluice'`,
			`BEGIN; SET TRANSACTION READ WRITE; ALTER ROLE tester RESET default_transaction_read_only; COMMIT; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sluice'`},
	} {
		t.Run(c.name, func(t *testing.T) {
			db.Exec(t, c.breaks)
			wantAway(t, s.CreateDevice(t.Context(), device("D"), "c", -1))
			_, err := s.Device(t.Context(), "T", "D")
			if !errors.Is(err, iot.ErrNotFound) {
				t.Errorf("got %v, want %v: half of the change is there", err, iot.ErrNotFound)
			}
			db.Exec(t, c.mends)
			if err := s.CreateDevice(t.Context(), device("D"), "c", 1); err != nil {
				t.Error(err)
			}
			if err := s.DeleteDevice(t.Context(), "T", "D", "", at); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTooManyClients(t *testing.T) {
	db := pgtest.Start(t)
	db.Exec(t, `CREATE ROLE few LOGIN SUPERUSER PASSWORD 'f' CONNECTION LIMIT 0`)
	db.Exec(t, `ALTER ROLE few NOSUPERUSER`)
	url := "postgres://few:f@" + db.URL[strings.Index(db.URL, "127"):]
	_, err := pgstore.Open(t.Context(), url, pgstore.Options{})
	wantAway(t, err)
	if !strings.Contains(err.Error(), "too many connections") {
		t.Errorf("got %v", err)
	}
}

// A connection that ends while the commit is on its way leaves the caller in
// doubt, and the store says so.
func TestUnknownCommit(t *testing.T) {
	db := pgtest.Start(t)
	s := open(t, db.URL, pgstore.Options{})
	addTenant(t, s)
	db.Exec(t, `CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON sluice.feed DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()`)
	err := s.CreateDevice(t.Context(), device("D"), "c", -1)
	wantAway(t, err)
	var own *iot.Error
	if !errors.As(err, &own) || !strings.Contains(own.Text, "may or may not") {
		t.Fatalf("got %q", own.Text)
	}
	db.Exec(t, `DROP TRIGGER dies ON sluice.feed`)
	if err := s.CreateDevice(t.Context(), device("D"), "c", -1); err != nil {
		t.Fatal(err)
	}
}

// What the database undoes for the sake of another transaction is made again,
// a few times.
func TestRepeats(t *testing.T) {
	db := pgtest.Start(t)
	s := open(t, db.URL, pgstore.Options{})
	addTenant(t, s)
	var calls int
	s.Observe(func(_ context.Context, changes []registry.Change) { calls += len(changes) })
	for _, code := range []string{"40001", "40P01"} {
		db.Exec(t, `CREATE SEQUENCE attempts;
			CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				IF nextval('attempts') < 3 THEN RAISE 'try again' USING ERRCODE = '`+code+`'; END IF; RETURN NEW; END $$;
			CREATE TRIGGER fails BEFORE INSERT ON sluice.feed FOR EACH ROW EXECUTE FUNCTION fail();
			ALTER FUNCTION fail() SET search_path = public`)
		if err := s.CreateDevice(t.Context(), device(code), "c", -1); err != nil {
			t.Error(code, err)
		}
		db.Exec(t, `ALTER SEQUENCE attempts MINVALUE -1000 RESTART WITH -1000`)
		wantAway(t, s.CreateDevice(t.Context(), device("other"), "c", -1))
		db.Exec(t, `DROP TRIGGER fails ON sluice.feed; DROP FUNCTION fail; DROP SEQUENCE attempts`)
	}
	if calls != 2 {
		t.Errorf("%d changes were observed, want 2", calls)
	}
}

// Callers that end while they wait for a lock leave nothing behind.
func TestEndsWhileWaiting(t *testing.T) {
	db := pgtest.Start(t)
	s := open(t, db.URL, pgstore.Options{Timeout: 500 * time.Millisecond})
	addTenant(t, s)
	other, err := pgx.Connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.WithoutCancel(t.Context()))
	tx, err := other.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT 1 FROM sluice.counters FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	wantAway(t, s.CreateDevice(t.Context(), device("D"), "c", -1))
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.CreateDevice(short, device("D"), "c", -1); !errors.Is(err, iot.ErrTimeout) {
		t.Errorf("got %v, want %v", err, iot.ErrTimeout)
	}
	gone, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := s.CreateDevice(gone, device("D"), "c", -1); !errors.Is(err, context.Canceled) || errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.CreateDevice(t.Context(), device("D"), "c", -1); err != nil {
		t.Error(err)
	}
}

// Texts that the database cannot hold are not found, and refused in a change.
func TestStrangeTexts(t *testing.T) {
	s := open(t, pgtest.Start(t).URL, pgstore.Options{})
	addTenant(t, s)
	for _, id := range []string{"a\x00b", "a\xffb"} {
		_, err := s.Device(t.Context(), "T", iot.DeviceID(id))
		if !errors.Is(err, iot.ErrNotFound) {
			t.Errorf("%q: got %v, want %v", id, err, iot.ErrNotFound)
		}
		if err := s.CreateDevice(t.Context(), device(id), "c", -1); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("%q: got %v, want %v", id, err, iot.ErrInvalid)
		}
		snap, err := s.Read(t.Context(), registry.Query{Tenant: registry.TenantKey{ID: "T"}, Type: iot.PSK, AuthID: id})
		if err != nil || snap.Credential != nil {
			t.Errorf("%q: got %v, %v, want no credential", id, snap.Credential, err)
		}
		if err := s.KeepVerified(t.Context(), "T", iot.PSK, id, registry.Verified{SecretID: id}); err != nil {
			t.Errorf("%q: %v", id, err)
		}
		results, err := s.ApplyDevices(t.Context(), "T", []registry.DeviceWrite{
			{Op: registry.CreateOp, Device: device(id), CredentialsVersion: "c"},
			{Op: registry.PutOp, Device: device("good"), CredentialsVersion: "c"},
		}, -1)
		if err != nil || !errors.Is(results[0], iot.ErrInvalid) || results[1] != nil {
			t.Errorf("%q: got %v, %v", id, results, err)
		}
	}
}
