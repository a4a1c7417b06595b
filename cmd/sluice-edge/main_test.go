package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/listen"
)

func TestCommandLine(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	for _, c := range []struct {
		args []string
		code int
		says string // on either output
	}{
		{[]string{"--version"}, 0, "sluice-edge "},
		{[]string{"--help"}, 0, "adapter http"},
		{[]string{"router", "--help"}, 0, "-listener"},
		{nil, 2, "Usage"},
		{[]string{"adapter"}, 1, `"adapter": expected router, adapter http`},
		{[]string{"adapter", "coap"}, 1, "expected router"},
		{[]string{"adapter", "mqtt"}, 1, "is not set: an adapter needs"},
		{[]string{"adapter", "mqtt", "http"}, 1, "is not set: an adapter needs"},
		{[]string{"adapter", "http", "mqtt", "coap"}, 1, `unexpected argument "coap"`},
		{[]string{"up"}, 1, "expected router"},
		{[]string{"router", "--colour"}, 2, "-colour"},
		{[]string{"router", "stat"}, 1, `unexpected argument "stat"`},
		{[]string{"router", "--set", "nmae=x"}, 1, "nmae"},
		{[]string{"router", "--config", "absent.yaml"}, 1, "absent.yaml"},
		{[]string{"adapter", "http", "--listener", `{role: health, address: "127.0.0.1:0"}`}, 1, "functions.identity is not set"},
		{[]string{"health", "--url", "http://127.0.0.1:1/readyz"}, 1, "refused"},
	} {
		var out bytes.Buffer
		if code := run(t.Context(), c.args, &out, &out); code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("%q: code %d, want %d: %s", c.args, code, c.code, &out)
		}
	}
}

// log is what a process logs, and where it listens by role.
type log struct {
	mu        sync.Mutex
	text      bytes.Buffer
	addresses map[string]string
	ready     chan struct{}
}

// Write takes one line, as slog writes it.
func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var line struct{ Msg, Role, Address string }
	_ = json.Unmarshal(b, &line)
	switch line.Msg {
	case "listening":
		l.addresses[line.Role] = line.Address
	case "ready":
		close(l.ready)
	}
	return l.text.Write(b)
}

// process runs a command line until the test ends, which expects an orderly stop.
func process(t *testing.T, args ...string) *log {
	t.Helper()
	l := &log{addresses: map[string]string{}, ready: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, append(args, "--log-format", "json"), l, l) }()
	select {
	case <-l.ready:
	case code := <-ended:
		t.Fatalf("exit code %d: %s", code, &l.text)
	}
	t.Cleanup(func() {
		cancel()
		if code := <-ended; code != 0 || t.Failed() {
			t.Errorf("exit code %d: %s", code, &l.text)
		}
	})
	return l
}

// proves are the flags by which a process proves itself.
func proves(dir, component string) []string {
	file := filepath.Join(dir, component)
	return []string{"--set", "tls.certificate=" + file + ".crt", "--set", "tls.key=" + file + ".key", "--set", "tls.ca=" + filepath.Join(dir, "ca.crt"),
		"--set", "functions.identity=https://127.0.0.1:1"}
}

// TestEdge starts a router and an adapter that finds it.
func TestEdge(t *testing.T) {
	dir := t.TempDir()
	authority, err := listen.OpenAuthority(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"router", "adapter"} {
		if _, err := authority.IssueComponent(dir, kind, "0", nil, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := auth.AddIdentity(filepath.Join(dir, "identities.yaml"), "app", auth.Authority{Address: "telemetry/T", May: auth.Read}); err != nil {
		t.Fatal(err)
	}
	router := process(t, append([]string{"router", "--data", filepath.Join(dir, "router"), "--identities", filepath.Join(dir, "identities.yaml"),
		"--listener", `{role: internal, address: "127.0.0.1:0", tls: {}}`, "--listener", `{role: health, address: "127.0.0.1:0"}`}, proves(dir, "router-0")...)...)
	// It keeps nothing: this folder cannot be made.
	nowhere := filepath.Join(dir, "ca.crt", "data")
	adapter := process(t, append([]string{"adapter", "http", "--data", nowhere, "--set", "routers=[amqps://" + router.addresses["internal"] + "]",
		"--listener", `{role: adapter/http, address: "127.0.0.1:0", tls: {}}`, "--listener", `{role: health, address: "127.0.0.1:0"}`}, proves(dir, "adapter-0")...)...)
	for name, p := range map[string]*log{"router": router, "adapter": adapter} {
		var out bytes.Buffer
		for code := 1; code != 0; {
			out.Reset()
			code = run(t.Context(), []string{"health", "--url", "http://" + p.addresses["health"] + "/readyz"}, &out, &out)
			if code != 0 && !strings.Contains(out.String(), "answered 503") {
				t.Fatalf("%s: %s", name, &out)
			}
		}
	}
	if _, err := os.Stat(nowhere); err == nil {
		t.Error("the adapter made a data folder")
	}
}

// TestAdapterWithoutCertificate expects that it says what it could not write.
func TestAdapterWithoutCertificate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	code := run(t.Context(), []string{"adapter", "http", "--data", filepath.Join(file, "data"), "--listener", `{role: health, address: "127.0.0.1:0"}`}, &out, &out)
	if code != 1 || !strings.Contains(out.String(), "data folder") {
		t.Errorf("exit code %d: %s", code, &out)
	}
}
