package pgstore_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-iot/sluice/internal/registry"
	"github.com/sluice-iot/sluice/internal/registry/pgstore"
	"github.com/sluice-iot/sluice/internal/registry/pgtest"
	"github.com/sluice-iot/sluice/internal/registry/storetest"
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

func TestStore(t *testing.T) {
	db := pgtest.Start(t)
	storetest.Run(t, func(t *testing.T) registry.Backend {
		return open(t, db.URL, pgstore.Options{Schema: pgtest.Schema()})
	})
}

func TestIndexedStore(t *testing.T) {
	db := pgtest.Start(t)
	storetest.RunIndexed(t, func(t *testing.T, indexes [][]string) registry.Backend {
		return open(t, db.URL, pgstore.Options{Schema: pgtest.Schema(), Indexes: indexes})
	})
}

// wantDiscreet checks that a text shows none of what it must not.
func wantDiscreet(t testing.TB, said string, secrets ...string) {
	t.Helper()
	for _, secret := range append(secrets, pgtest.Password, "p%2540ss", "ss/w") {
		if strings.Contains(said, secret) {
			t.Errorf("%q shows %q", said, secret)
		}
	}
}

func TestMigrations(t *testing.T) {
	db := pgtest.Start(t)
	t.Run("eight at once", func(t *testing.T) {
		schema := pgtest.Schema()
		var all sync.WaitGroup
		stores := make([]*pgstore.Store, 8)
		for i := range stores {
			all.Go(func() {
				o := pgstore.Options{Schema: schema, MaxConns: 2, Indexes: [][]string{{"ext", "a"}, {"ext", "b"}}}
				if s, err := pgstore.Open(t.Context(), db.URL, o); err != nil {
					t.Error(err)
				} else {
					stores[i] = s
				}
			})
		}
		all.Wait()
		for _, s := range stores {
			if s != nil {
				defer s.Close()
			}
		}
		addTenant(t, stores[0])
		if _, err := stores[7].Tenant(t.Context(), "T"); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("two installations", func(t *testing.T) {
		a, b := open(t, db.URL, pgstore.Options{Schema: pgtest.Schema()}), open(t, db.URL, pgstore.Options{Schema: `odd "name"`})
		addTenant(t, a)
		addTenant(t, b)
	})
	t.Run("newer", func(t *testing.T) {
		schema := pgtest.Schema()
		open(t, db.URL, pgstore.Options{Schema: schema})
		db.Exec(t, `UPDATE `+pgx.Identifier{schema, "schema_version"}.Sanitize()+` SET version = 1000`)
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
	owner := open(t, as("owner"), pgstore.Options{})
	addTenant(t, owner)
	db.Exec(t, `GRANT USAGE ON SCHEMA sluice TO runner; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA sluice TO runner`)
	runner := open(t, as("runner"), pgstore.Options{Indexes: [][]string{{"ext", "a"}}})
	if err := runner.CreateDevice(t.Context(), device("D"), "c", -1); err != nil {
		t.Fatal(err)
	}
	if err := runner.DeleteTenant(t.Context(), "T", "", at); err != nil {
		t.Fatal(err)
	}
	_, err := pgstore.Open(t.Context(), as("nobody"), pgstore.Options{Schema: "other"})
	if err == nil || !strings.Contains(err.Error(), "permission denied") || !strings.Contains(err.Error(), "other") {
		t.Fatalf("got %v", err)
	}
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
