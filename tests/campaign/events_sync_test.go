package campaign_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestEventIsSyncedBeforeItIsAccepted traces the system calls of the process: what the
// write-ahead log got of an event is on the disk before the device hears that the event is
// accepted. A process that is killed does not show this: its writes are the kernel's already.
func TestEventIsSyncedBeforeItIsAccepted(t *testing.T) {
	strace, err := exec.LookPath("strace")
	needed(t, "strace (Debian package)", err)
	s := newEventSite(t, 1, "")
	s.startUp(t)
	s.register(t, 1)
	trace := filepath.Join(s.dir, "trace")
	tracer := exec.Command(strace, "-f", "-y", "-s", "16384", "-o", trace,
		"-e", "trace=write,writev,pwrite64,pwritev,sendto,sendmsg,fsync,fdatasync", "-p", fmt.Sprint(s.routers[0].part.cmd.Process.Pid))
	said, err := tracer.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tracer.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	attached := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(said)
		first := lines.Scan()
		attached <- lines.Text()
		for first && lines.Scan() {
		}
		_, _ = io.Copy(io.Discard, said)
		done <- tracer.Wait()
	}()
	end := func() {
		_ = tracer.Process.Signal(os.Interrupt) // it lets go of the process
		<-done
		done <- nil
	}
	t.Cleanup(end)
	select {
	case line := <-attached:
		if !strings.Contains(line, "attached") {
			end()
			needed(t, "the right to trace a process", fmt.Errorf("strace says %q", line))
		}
	case <-time.After(patience):
		t.Fatal("strace says nothing")
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	const events = 20
	for n := range events {
		status, _, err := sendEvent(client, s.device, "event", eventDevice(0), 0, []byte(token(n)))
		if status != http.StatusAccepted {
			t.Fatalf("event %d: %d, %v", n, status, err)
		}
	}
	end()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	calls := strings.Split(string(text), "\n")
	for n := range events {
		if calls, err = durable(calls, token(n), "events.db-wal"); err != nil {
			t.Fatalf("event %d: %v", n, err)
		}
	}
}

func token(n int) string { return fmt.Sprintf("traced event number %04d.", n) }

// needed skips the test for want of something, or fails it where all tests must run.
func needed(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if runs() != small {
		t.Fatalf("%s is missing: %v", what, err)
	}
	t.Skipf("%s is missing: %v", what, err)
}

// call is a line of strace, of a call as it begins; with -y a descriptor is followed by its file.
var (
	begun   = regexp.MustCompile(`^(\d+) +(\w+)\(\d+<([^>]*)>(.*)$`)
	resumed = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>.*= (-?\d+)`)
)

// durable looks through calls for what must happen in turn: the text is written to the
// file, the file is synced by a call that begins after that write has ended and succeeds,
// and only then the answer 202 is written to a connection. It returns the calls that are left.
func durable(calls []string, text, file string) ([]string, error) {
	var writing, syncing string // threads in the middle of the call
	written, synced := false, false
	for i, line := range calls {
		if m := resumed.FindStringSubmatch(line); m != nil {
			switch {
			case m[1] == writing && strings.Contains(m[2], "write"):
				writing, written = "", true
			case m[1] == syncing && strings.HasSuffix(m[2], "sync"):
				syncing, synced = "", synced || m[3] == "0"
			}
			continue
		}
		m := begun.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		thread, name, of, rest := m[1], m[2], m[3], m[4]
		whole := !strings.HasSuffix(rest, "<unfinished ...>")
		switch is := strings.HasSuffix(of, "/"+file); {
		case is && strings.Contains(name, "write") && strings.Contains(rest, text):
			if written, synced = whole, false; !whole {
				writing = thread
			}
		case is && strings.HasSuffix(name, "sync") && written:
			if whole {
				synced = synced || strings.HasSuffix(rest, "= 0")
			} else {
				syncing = thread
			}
		case strings.Contains(rest, `"HTTP/1.1 202`):
			switch {
			case !written:
				return nil, fmt.Errorf("accepted before it was written to %s, in line %d: %.200s", file, i+1, line)
			case !synced:
				return nil, fmt.Errorf("accepted before %s was synced, in line %d: %.200s", file, i+1, line)
			}
			return calls[i+1:], nil
		}
	}
	return nil, fmt.Errorf("no answer 202 among %d system calls", len(calls))
}

// TestDurableTellsWhatIsMissing feeds traces of what must not be.
func TestDurableTellsWhatIsMissing(t *testing.T) {
	const (
		write  = `7 pwrite64(9</d/events.db-wal>, "\0\1the text\0", 4096, 32) = 4096`
		sync   = `7 fdatasync(9</d/events.db-wal>) = 0`
		answer = `8 write(11<socket:[77]>, "HTTP/1.1 202 Accepted\r\n", 90) = 90`
	)
	for _, tc := range []struct {
		name  string
		calls []string
		want  string // in the error; "" = none
	}{
		{"in order", []string{write, sync, answer}, ""},
		{"in two halves", []string{
			`7 pwrite64(9</d/events.db-wal>, "\0the text", 4096, 32 <unfinished ...>`, `8 futex(1) = 0`, `7 <... pwrite64 resumed>) = 4096`,
			`7 fsync(9</d/events.db-wal> <unfinished ...>`, `8 write(2</dev/null>, "x", 1) = 1`, `7 <... fsync resumed>) = 0`, answer}, ""},
		{"nothing written", []string{sync, answer}, "before it was written"},
		{"no sync", []string{write, answer}, "was synced"},
		{"sync of another file", []string{write, `7 fdatasync(9</d/registry.db-wal>) = 0`, answer}, "was synced"},
		{"sync before the write", []string{sync, write, answer}, "was synced"},
		{"sync while it is written", []string{`7 pwrite64(9</d/events.db-wal>, "the text", 4096, 32 <unfinished ...>`, `6 fdatasync(9</d/events.db-wal>) = 0`,
			`7 <... pwrite64 resumed>) = 4096`, answer}, "was synced"},
		{"sync that is not over", []string{write, `7 fdatasync(9</d/events.db-wal> <unfinished ...>`, answer, `7 <... fdatasync resumed>) = 0`}, "was synced"},
		{"sync that fails", []string{write, `7 fdatasync(9</d/events.db-wal>) = -1 EIO (Input/output error)`, answer}, "was synced"},
		{"no answer", []string{write, sync}, "no answer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := durable(tc.calls, "the text", "events.db-wal")
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v; want %q", err, tc.want)
			}
		})
	}
}
