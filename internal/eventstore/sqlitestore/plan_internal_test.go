package sqlitestore

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/storetest"
)

// No statement that the suite makes the store use goes through a whole table.
func TestPlans(t *testing.T) {
	texts := map[string]bool{}
	storetest.Run(t, func(t *testing.T) eventstore.Store {
		s := openFile(t, filepath.Join(t.TempDir(), "events.db"))
		t.Cleanup(func() { // before the store is closed
			for range s.count {
				c := <-s.readers
				defer func() { s.readers <- c }()
				for text := range statements(c) {
					texts[text] = true
				}
			}
			s.onWriterOf(t, func(c *conn) {
				for text := range statements(c) {
					texts[text] = true
				}
			})
		})
		return s
	})
	if len(texts) < 15 {
		t.Errorf("only %d statements were used", len(texts))
	}
	s := openFile(t, filepath.Join(t.TempDir(), "events.db"))
	s.onWriterOf(t, func(c *conn) {
		for text := range texts {
			for _, step := range plan(t, c, text) {
				if strings.HasPrefix(step, "SCAN ") && !strings.HasPrefix(step, "SCAN (") && step != "SCAN b" {
					t.Errorf("%s: %s", text, step)
				}
				if strings.Contains(step, "TEMP B-TREE") {
					t.Errorf("%s: %s", text, step)
				}
			}
		}
	})
}

func statements(c *conn) map[string]bool {
	out := map[string]bool{}
	if c == nil {
		return out
	}
	for text := range c.stmts {
		switch verb, _, _ := strings.Cut(text, " "); verb {
		case "SELECT", "INSERT", "UPDATE", "DELETE":
			out[text] = true
		}
	}
	return out
}

func plan(t *testing.T, c *conn, text string) (steps []string) {
	t.Helper()
	args := make([]any, strings.Count(text, "?"))
	for i := range args {
		args[i] = 1
	}
	rows, err := c.sql.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+text, args...)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, step)
	}
	return steps
}
