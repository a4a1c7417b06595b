//go:build unix

package readme_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/sluice-iot/sluice/internal/registry/dynamotest"
)

// source is a copy of the repository in which bin/sluice was made.
var source struct {
	once sync.Once
	dir  string
	err  error
}

// TestMain removes the copy, and stops the server of DynamoDB.
func TestMain(m *testing.M) {
	code := dynamotest.Run(m)
	if source.dir != "" {
		os.RemoveAll(source.dir)
	}
	os.Exit(code)
}

// sourceCopy returns the folder of the copy.
func sourceCopy(t *testing.T) string {
	t.Helper()
	_, err := exec.LookPath("make")
	need(t, "make", err)
	source.once.Do(func() {
		if source.dir, source.err = os.MkdirTemp("", "sluice-readme-"); source.err != nil {
			return
		}
		if source.err = copySource(source.dir); source.err != nil {
			return
		}
		cmd := exec.Command("make", "build")
		cmd.Dir, cmd.Env = source.dir, environment(source.dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			source.err = fmt.Errorf("make build: %w\n%s", err, out)
		}
	})
	if source.err != nil {
		t.Fatal(source.err)
	}
	return source.dir
}

// copySource leaves out what is made and kept beside the source.
func copySource(to string) error {
	from := repository()
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch rel {
		case ".git", "bin", "build", "data":
			return filepath.SkipDir
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if !e.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil // of an editor, gone already
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), text, 0o755)
	})
}
