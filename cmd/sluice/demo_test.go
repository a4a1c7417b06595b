package main

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// TestBannerSendsACommand pastes what the demo prints: a device that waits, and the
// command to it.
func TestBannerSendsACommand(t *testing.T) {
	data := t.TempDir() + "/a folder"
	ctx, cancel := context.WithCancel(context.Background())
	var out shared
	var wg sync.WaitGroup
	wg.Go(func() {
		if code := run(ctx, []string{"up", "--demo", "--data", data, "--log-level", "error", "--listener", `{role: northbound, address: "127.0.0.1:0"}`,
			"--listener", `{role: management, address: "127.0.0.1:0"}`, "--listener", `{role: adapter/http, address: "127.0.0.1:0"}`}, &out, &out); code != 0 {
			t.Errorf("up: %d", code)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	awaitText(t, &out, "Ctrl-C stops.\n")
	device := regexp.MustCompile(`(?m)^curl -u ([^:]*):(\S*) -H 'Content-Type: application/json' -d '(.*)' '(.*)'$`).FindStringSubmatch(out.String())
	line := regexp.MustCompile(`(?m)^bin/sluice (command .*)$`).FindStringSubmatch(out.String())
	if device == nil || line == nil {
		t.Fatalf("got %s", out.String())
	}
	answer := make(chan string, 1)
	wg.Go(func() {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, device[4], strings.NewReader(device[3]))
		if err != nil {
			answer <- err.Error()
			return
		}
		r.SetBasicAuth(device[1], device[2])
		r.Header.Set("Content-Type", "application/json")
		reply, err := http.DefaultClient.Do(r)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer reply.Body.Close()
		body, _ := io.ReadAll(reply.Body)
		answer <- reply.Header.Get("hono-command") + " " + string(body)
	})
	(&console{t, data}).comes("4711 can be reached", "device", "reachable", demoTenant, demoDevice)
	got := runWith(t, newRootCommand(), nil, shellWords(line[1])...)
	if got.failure != nil || !strings.HasPrefix(got.err, "4711 has the command setBrightness") {
		t.Errorf("%s: got %v", line[1], got)
	}
	if got := <-answer; got != `setBrightness {"brightness":80}` {
		t.Errorf("the device got %s", got)
	}
}

// shellWords splits a line whose quotes are single ones.
func shellWords(line string) (words []string) {
	for _, m := range regexp.MustCompile(`'([^']*)'|(\S+)`).FindAllStringSubmatch(line, -1) {
		words = append(words, m[1]+m[2])
	}
	return words
}
