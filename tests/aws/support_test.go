package aws_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience is how long a test waits for something that must happen. It only turns a
// hang into a failure that says what was waited for.
const patience = 2 * time.Minute

func repository(t *testing.T, path ...string) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(append([]string{root}, path...)...)
}

// needs skips a test, or fails it, where a file is not there.
func needs(t *testing.T, how string, path ...string) string {
	t.Helper()
	file := repository(t, path...)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		missing(t, file+" is not here: run "+how)
	} else if err != nil {
		t.Fatal(err)
	}
	return file
}

func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("SLUICE_TEST_ALL") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// command runs a program in the repository and returns what it wrote.
func command(t *testing.T, env []string, program string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir, cmd.Env = repository(t), append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// eventually repeats what must come to be true.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func readFile(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(repository(t, path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func has(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
}
