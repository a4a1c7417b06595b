package containers_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// table is what the tests measured, in the order in which they did.
type table struct {
	mu   sync.Mutex
	rows [][2]string
}

var measured table

// tableFile is where the figures are kept, seen from this folder.
var tableFile = filepath.Join("..", "..", "build", "containers.txt")

// measure adds a figure and shows it in the test's log.
func measure(t *testing.T, what, format string, args ...any) {
	t.Helper()
	value := fmt.Sprintf(format, args...)
	t.Logf("measured: %s: %s", what, value)
	measured.mu.Lock()
	defer measured.mu.Unlock()
	measured.rows = append(measured.rows, [2]string{what, value})
}

// print writes the table to w and to its file; nothing where nothing was measured.
func (f *table) print(w io.Writer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.rows) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(tableFile), 0o755); err != nil {
		return err
	}
	file, err := os.Create(tableFile)
	if err != nil {
		return err
	}
	defer file.Close()
	tab := tabwriter.NewWriter(io.MultiWriter(w, file), 0, 8, 2, ' ', 0)
	for _, row := range f.rows {
		fmt.Fprintf(tab, "%s\t%s\n", row[0], row[1])
	}
	return tab.Flush()
}

// ms rounds as a reader wants it.
func ms(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// mb are bytes in MB of 10^6.
func mb(n uint64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
