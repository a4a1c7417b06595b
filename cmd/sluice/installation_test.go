package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestInterruptedDuringTheStart expects an orderly stop, whatever was reached.
func TestInterruptedDuringTheStart(t *testing.T) {
	for _, reached := range []string{"", "keys", operatorFile, demoFile} {
		t.Run("after "+reached, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if reached == "" {
				cancel()
			}
			go func() {
				for ctx.Err() == nil {
					if _, err := os.Stat(filepath.Join(data, reached)); err == nil {
						cancel()
					}
					time.Sleep(100 * time.Microsecond)
				}
			}()
			var stderr bytes.Buffer
			if code := run(ctx, []string{"up", "--demo", "--data", data, "--listener", `{role: northbound, address: "127.0.0.1:0"}`,
				"--listener", `{role: management, address: "127.0.0.1:0"}`, "--log-level", "warn"}, &stderr, &stderr); code != 0 {
				t.Errorf("exit code %d: %s", code, &stderr)
			}
		})
	}
}

// TestStartFails expects that a start which fails by itself says so.
func TestStartFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"up", "--data", t.TempDir(), "--listener", `{role: northbound, address: "` + l.Addr().String() + `"}`}, &stderr, &stderr)
	if code != 1 || !bytes.Contains(stderr.Bytes(), []byte(l.Addr().String())) {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
}
