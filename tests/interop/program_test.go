package interop_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/listen/listentest"
)

// patience is how long a test waits for something that must happen. It only
// turns a hang into a failure that shows what every process printed.
const patience = 60 * time.Second

// TestMain removes the program that the tests built.
func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

var built struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// program returns the path of sluice: SLUICE_BIN, or built once.
func program(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if given := os.Getenv("SLUICE_BIN"); given != "" {
			built.path, built.err = filepath.Abs(given)
			return
		}
		if built.dir, built.err = os.MkdirTemp("", "sluice-interop-"); built.err != nil {
			return
		}
		built.path = filepath.Join(built.dir, "sluice")
		cmd := exec.Command("go", "build", "-o", built.path, "./cmd/sluice")
		cmd.Dir = repository()
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build sluice: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

// repository is the root of the source: tests run in their own folder.
func repository() string {
	root, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return root
}

// need skips the test for want of something foreign, or fails it where all tests must run.
func need(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("SLUICE_TEST_ALL") == "1" {
		t.Fatalf("%s is missing (make deps installs it): %v", what, err)
	}
	t.Skipf("%s is missing (make deps installs it): %v", what, err)
}

// transcript keeps everything a process printed.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *transcript) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *transcript) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// child is a process that ends with the test; when the test fails, what it
// printed is shown.
type child struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *transcript
	stderr *transcript
	done   chan struct{} // closed when the process has ended; then err is set
	err    error
}

// startChild starts a process. lines, if not nil, also gets its standard output.
func startChild(t *testing.T, name string, cmd *exec.Cmd, output io.Writer) *child {
	t.Helper()
	c := &child{name: name, cmd: cmd, stdout: &transcript{}, stderr: &transcript{}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = io.Writer(c.stdout), c.stderr
	if output != nil {
		cmd.Stdout = io.MultiWriter(c.stdout, output)
	}
	var err error
	if c.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	t.Cleanup(func() {
		c.kill()
		if t.Failed() {
			t.Logf("%s printed:\n%s", name, shortened(c.stdout.String()+c.stderr.String()))
		}
	})
	return c
}

// shortened cuts the lines that carry a message's body.
func shortened(text string) string {
	const most = 300
	var b strings.Builder
	for line := range strings.Lines(text) {
		if len(line) > most {
			line = line[:most] + "...\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

// kill ends the process without giving it a chance to say anything.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// wait returns how the process ended.
func (c *child) wait(t *testing.T) error {
	t.Helper()
	select {
	case <-c.done:
		return c.err
	case <-time.After(patience):
		t.Fatalf("%s did not end", c.name)
		return nil
	}
}

// interrupt does what Ctrl-C does, and returns how long the process took to end and its exit code.
func (c *child) interrupt(t *testing.T) (time.Duration, int) {
	t.Helper()
	began := time.Now()
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatalf("interrupt %s: %v", c.name, err)
	}
	_ = c.wait(t)
	return time.Since(began), c.cmd.ProcessState.ExitCode()
}

// awaitListener waits until addr accepts connections and the process is still there.
func (c *child) awaitListener(t *testing.T, addr string) {
	t.Helper()
	eventually(t, c.name+" listens on "+addr, func() error {
		select {
		case <-c.done:
			t.Fatalf("%s ended before it listened on %s: %v", c.name, addr, c.err)
		default:
		}
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

// eventually repeats a check until it holds.
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
		time.Sleep(5 * time.Millisecond)
	}
}

// freeAddr returns a loopback address that nothing listens on, and no address twice.
func freeAddr(t *testing.T) string {
	t.Helper()
	port, err := listentest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// readEnv reads a file of KEY=value lines, quoted or not.
func readEnv(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	env := map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "export "))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, errors.New(path + ": not KEY=value: " + line)
		}
		env[key] = strings.Trim(value, `"'`)
	}
	return env, nil
}
