package interop_test

import (
	"io"
	"net/http"
	"os/exec"
	"testing"
)

// waiter is curl that waits for a command.
type waiter struct{ *child }

// waits starts an upload that waits; whoever gets it knows that the device can be reached.
func (q request) waits(t *testing.T, p *plant) *waiter {
	t.Helper()
	args, body := q.line(p)
	w := &waiter{startChild(t, "curl "+q.target, exec.Command("curl", args...), nil)}
	if _, err := io.WriteString(w.stdin, body); err != nil {
		t.Fatal(err)
	}
	w.stdin.Close()
	return w
}

// answered is what came of the upload.
func (w *waiter) answered(t *testing.T) reply {
	t.Helper()
	err := w.wait(t)
	if err == nil {
		var r reply
		if r, err = parseReply([]byte(w.stdout.String())); err == nil {
			return r
		}
	}
	t.Fatalf("%s: %v", w.name, err)
	return reply{}
}

// gets expects a command, and returns its request id; target is the device that it
// is for when it is for one of a gateway.
func (w *waiter) gets(t *testing.T, name, target, contentType, body string) (id string) {
	t.Helper()
	r := w.answered(t)
	got := []string{r.header.Get("hono-command"), r.header.Get("hono-cmd-target-device"), r.header.Get("Content-Type"), r.body}
	want := []string{name, target, contentType, body}
	for i := range want {
		if r.status != http.StatusOK || got[i] != want[i] {
			t.Fatalf("answered %d %q; want 200 with %q", r.status, got, want)
		}
	}
	return r.header.Get("hono-cmd-req-id")
}
