package main

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/listen/listentest"
)

// TestCommandToDevice has a device of the demo wait for a command over HTTP, be seen
// to, get one and answer it.
func TestCommandToDevice(t *testing.T) {
	port, err := listentest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	c := &console{t, startUp(t, "--demo", "--listener", fmt.Sprintf(`{role: adapter/http, address: "127.0.0.1:%d"}`, port))}
	c.fails("4711 cannot be reached", "device", "reachable", "DEMO", "4711")
	c.fails("4711 is not reachable", "command", "DEMO", "4711", "blink")
	c.fails("the command was rejected: ", "command", "DEMO", "nobody", "blink")
	c.prints("DEVICE  ADAPTER  SINCE  UNTIL  GATEWAY\n", "device", "reachable", "DEMO")
	demo, err := readEnv(filepath.Join(c.data, demoFile))
	if err != nil {
		t.Fatal(err)
	}
	post := func(path, body string) *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return nil
		}
		r.SetBasicAuth(demoAuthID+"@"+demoTenant, demo["SLUICE_DEVICE_PASSWORD"])
		r.Header.Set("Content-Type", "application/json")
		r.Close = true
		reply, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Error(err)
			return nil
		}
		return reply
	}
	waiting := func(answer string) (done chan struct{}) {
		done = make(chan struct{})
		go func() {
			defer close(done)
			reply := post("/event?hono-ttd=50", "{}")
			if reply == nil {
				return
			}
			defer reply.Body.Close()
			body, _ := io.ReadAll(reply.Body)
			id := reply.Header.Get("hono-cmd-req-id")
			if id == "" {
				return
			}
			answered := post("/command/res/"+id+"?hono-cmd-status="+answer, fmt.Sprintf(`{"got": %q}`, reply.Header.Get("hono-command")+" "+string(body)))
			if answered != nil {
				answered.Body.Close()
			}
		}()
		for c.run("", "device", "reachable", "DEMO", "4711").failure != nil {
			select {
			case <-t.Context().Done():
				t.Fatal("the device was never seen to wait")
			case <-time.After(10 * time.Millisecond):
			}
		}
		return done
	}
	done := waiting("200")
	if got := c.run("", "device", "reachable", "DEMO"); got.failure != nil || !strings.HasPrefix(strings.Split(got.out, "\n")[1], "4711 ") {
		t.Error(got)
	}
	c.prints(`{"got": "set 5"}`, "command", "DEMO", "4711", "set", "5", "--timeout", "1m")
	<-done
	done = waiting("503")
	if got := c.run("", "command", "DEMO", "4711", "set", "5", "--timeout", "1m"); got.failure == nil || got.failure.Error() != "the device answered with 503" || got.out != `{"got": "set 5"}` {
		t.Error(got)
	}
	<-done
	done = waiting("")
	if got := c.run("", "command", "DEMO", "4711", "set", "5", "--one-way", "--timeout", "1m"); got.failure != nil || got.out != "" || !strings.HasPrefix(got.err, "4711 has the command set after ") {
		t.Error(got)
	}
	<-done
}
