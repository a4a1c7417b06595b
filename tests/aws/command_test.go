package aws_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// output keeps what a process writes. Safe for concurrent use.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// TestTheCommand starts what make local-aws starts, does what it says, and ends it
// as Ctrl-C does.
func TestTheCommand(t *testing.T) {
	if _, err := exec.LookPath("java"); err != nil {
		missing(t, "there is no Java runtime: run localstack/deps")
	}
	needs(t, "localstack/deps", "build", "dynamodb-local")
	needs(t, "localstack/deps", "build", "localstack", "bin", "python")
	sluice, archive := build(t)
	program, data := filepath.Join(t.TempDir(), "local-aws"), filepath.Join(t.TempDir(), "data")
	if out, err := command(t, nil, "go", "build", "-o", program, "./localstack/cmd/local-aws"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(program, "-data", data, "-sluice", sluice, "-archive", archive, "-idle", "1s", "-device", "", "-northbound", "", "-management", "", "-invoke", "")
	out := &output{}
	cmd.Dir, cmd.Stdout, cmd.Stderr = repository(t), out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // its children go with it
	eventually(t, "the start", func() error {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("it ended: %v\n%s", err, out)
		default:
		}
		if !strings.Contains(out.String(), "Ctrl-C ends everything") {
			return fmt.Errorf("it wrote:\n%s", out)
		}
		return nil
	})
	ask := hinted(t, out.String(), "curl -u ")
	if said, err := command(t, nil, "bash", "-c", ask+" -fsS"); err != nil || !strings.Contains(said, `"enabled":true`) {
		t.Errorf("%s: %v\n%s", ask, err, said)
	}
	// Nobody consumes yet, which is what the adapter says when it has admitted the device.
	send := hinted(t, out.String(), "curl -i ")
	if said, err := command(t, nil, "bash", "-c", send+" -sS"); err != nil || !strings.Contains(said, "no consumer") {
		t.Errorf("%s: %v\n%s", send, err, said)
	}
	stored := strings.Replace(send, "/telemetry", "/event", 1)
	if said, err := command(t, nil, "bash", "-c", stored+" -sS"); err != nil || !strings.Contains(said, "202 Accepted") {
		t.Errorf("%s: %v\n%s", stored, err, said)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v\n%s", err, out)
	}
	nobodyUses(t, data)
}

// hinted is the command that the program shows and that begins so.
func hinted(t *testing.T, text, begin string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, begin) {
			return line
		}
	}
	t.Fatalf("no line begins with %s:\n%s", begin, text)
	return ""
}

// nobodyUses finds processes that a folder is named to, or that have it as their own.
func nobodyUses(t *testing.T, dir string) {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		args, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		cwd, _ := os.Readlink(filepath.Join(p, "cwd"))
		if bytes.Contains(args, []byte(dir)) || strings.HasPrefix(cwd, dir) {
			t.Errorf("process %s is left: %s", filepath.Base(p), bytes.ReplaceAll(args, []byte{0}, []byte{' '}))
		}
	}
}
