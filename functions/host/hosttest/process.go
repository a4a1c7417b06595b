package hosttest

import (
	"bytes"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
)

// Log keeps what a process writes. Safe for concurrent use.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements [io.Writer].
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Process is a program that runs until the test ends.
type Process struct {
	Log   *Log
	Ended <-chan struct{} // closed when it has
}

// Start runs a program with further variables in its environment until the test
// ends, and fails the test when it does not end by itself after SIGTERM. What it
// wrote is shown where the test failed.
func Start(t testing.TB, environ []string, program string, args ...string) *Process {
	t.Helper()
	ended := make(chan struct{})
	p := &Process{Log: &Log{}, Ended: ended}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), environ...)
	cmd.Stdout, cmd.Stderr = p.Log, p.Log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		if t.Failed() {
			t.Logf("%s wrote:\n%s", program, p.Log)
		}
	})
	return p
}
