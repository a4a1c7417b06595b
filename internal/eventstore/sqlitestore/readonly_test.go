package sqlitestore_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/sqlitestore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// TestReadOnlyForAWhile makes the files ones that nobody may write to, while there are
// readers, too: whoever opens them then sees them so until the last connection is gone, and whoever
// has the index of the log mapped faults on the next write to it, which the driver makes an error.
func TestReadOnlyForAWhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.db")
	s, err := sqlitestore.Open(t.Context(), path, sqlitestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	change := func(how string) error {
		files, err := filepath.Glob(path + "*")
		if raced {
			files = []string{path, path + "-wal"} // and not what is mapped into memory
		}
		if err != nil {
			return err
		}
		return exec.Command("chattr", append([]string{how}, files...)...).Run()
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		_ = change("-i")
	})
	use := func() error {
		_, err := s.PartitionsOf(t.Context(), "T")
		return errors.Join(append(s.Update(t.Context(), []eventstore.Change{{Key: eventstore.Key{Tenant: "T"},
			Apply: func(p *eventstore.Partition, _ *eventstore.Writes) error { p.Fence++; return nil }}}), err)...)
	}
	if err := use(); err != nil {
		t.Fatal(err)
	}
	if err := change("+i"); err != nil {
		t.Skipf("files cannot be made immutable here: %v", err)
	}
	for range 4 { // connections are opened again meanwhile
		if err := use(); !errors.Is(err, iot.ErrUnavailable) {
			t.Errorf("with files that are read-only: %v; want it unavailable", err)
		}
	}
	if err := change("-i"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		err = use()
	}
	if err != nil {
		t.Errorf("after the files could be written again: %v", err)
	}
}
