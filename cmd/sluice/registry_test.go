package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/registry/sqlitestore"
)

func TestRegistryMaintain(t *testing.T) {
	dir := t.TempDir()
	maintain := func(args ...string) (string, error) {
		return runCommand(t, newRegistryCommand(), append([]string{"maintain", "--data", dir}, args...)...)
	}
	if _, err := maintain(); err == nil || !strings.Contains(err.Error(), "no registry at "+dir) {
		t.Errorf("without a store: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("it made %v", left)
	}
	s, err := sqlitestore.Open(t.Context(), filepath.Join(dir, "registry.db"), sqlitestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	text, err := maintain("--set", "registry.indexes=[/ext/site]")
	if err != nil || text != "store            sqlite\ndeleted devices  this store leaves nothing of them\nindexes          this store completes them when it is opened; now: /ext/site\n" {
		t.Errorf("%v\n%s", err, text)
	}
	data, err := config.OpenData(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	if _, err := maintain(); err == nil || !strings.Contains(err.Error(), "in use by process") || !strings.Contains(err.Error(), "stop that one") {
		t.Errorf("beside another process: %v", err)
	}
}
