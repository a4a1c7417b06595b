package pgtest_test

import (
	"errors"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-iot/sluice/internal/registry/pgtest"
)

func TestServer(t *testing.T) {
	var dir string
	t.Run("life", func(t *testing.T) {
		db := pgtest.Start(t)
		dir = db.Dir
		db.Exec(t, `CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)`)
		db.Kill(t)
		if _, err := pgx.Connect(t.Context(), db.URL); err == nil {
			t.Fatal("it answers after its end")
		}
		db.Restart(t)
		db.Stop(t)
		db.Restart(t)
		c, err := pgx.Connect(t.Context(), db.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(t.Context())
		var n int
		if err := c.QueryRow(t.Context(), `SELECT n FROM kept`).Scan(&n); err != nil || n != 1 {
			t.Fatalf("got %d, %v, want 1", n, err)
		}
		db.Kill(t) // and left so
	})
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("its folder is still there: %v", err)
	}
}
