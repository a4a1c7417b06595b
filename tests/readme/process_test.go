//go:build unix

package readme_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

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

// process is a shell and whatever it started, in a process group of their own.
type process struct {
	script string
	cmd    *exec.Cmd
	output transcript
	done   chan struct{} // closed when the shell has ended
}

// start runs a script in a shell. The group is killed when the test ends.
func start(t *testing.T, dir, script string, env []string) *process {
	t.Helper()
	p := &process{script: script, cmd: exec.Command("sh", "-e", "-c", script), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = dir, env
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.signal(syscall.SIGKILL)
		<-p.done
		if t.Failed() {
			t.Logf("%s\nprinted:\n%s", p.script, p.output.String())
		}
	})
	return p
}

// signal reaches every process of the group, as the keys of a terminal do.
func (p *process) signal(s syscall.Signal) error {
	return syscall.Kill(-p.cmd.Process.Pid, s)
}

// wait returns the exit code of a script that ends by itself.
func (p *process) wait(ctx context.Context, t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-ctx.Done():
		t.Fatalf("%s\ndid not end", p.script)
		return -1
	}
}

// interrupt does what Ctrl-C does, and expects that nothing of the group remains.
func (p *process) interrupt(ctx context.Context, t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
		t.Errorf("%s\nended by itself: %v", p.script, p.cmd.ProcessState)
		return
	default:
	}
	if err := p.signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	code := p.wait(ctx, t)
	if strings.Contains(p.script, "exec bin/sluice") && code != 0 {
		t.Errorf("%s\nended with exit code %d after Ctrl-C; want 0", p.script, code)
	}
	await(ctx, t, "every process of "+p.script+" has ended", func() bool {
		return errors.Is(p.signal(0), syscall.ESRCH)
	})
}

// ended reports whether the shell has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// await repeats a check until it holds.
func await(ctx context.Context, t *testing.T, what string, check func() bool) {
	t.Helper()
	for !check() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// over is when waiting ends: in time for every test to clean up before the test
// program is ended from outside.
var over struct {
	once sync.Once
	at   time.Time
}

// deadline ends with the test, and with the patience of whoever runs it.
func deadline(t *testing.T) context.Context {
	t.Helper()
	at, ok := t.Deadline()
	if !ok {
		return t.Context()
	}
	over.once.Do(func() { over.at = at.Add(-time.Until(at) / 10) })
	ctx, cancel := context.WithDeadline(t.Context(), over.at)
	t.Cleanup(cancel)
	return ctx
}

// need skips the test for want of something foreign, or fails it where all tests must run.
func need(t *testing.T, what string, err error) {
	t.Helper()
	switch {
	case err == nil:
	case testAll():
		t.Fatalf("%s is missing (make deps installs it): %v", what, err)
	default:
		t.Skipf("%s is missing (make deps installs it): %v", what, err)
	}
}

func testAll() bool { return os.Getenv("SLUICE_TEST_ALL") == "1" }
