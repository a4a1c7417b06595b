package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/auth"
)

// startUp runs `sluice up` on free ports, with more flags, until the test ends and returns its
// data folder.
func startUp(t *testing.T, more ...string) string {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	failed := make(chan string, 1)
	wg.Go(func() {
		var stderr bytes.Buffer
		if run(ctx, append([]string{"up", "--data", data, "--listener", `{role: northbound, address: "127.0.0.1:0"}`,
			"--listener", `{role: northbound, address: "127.0.0.1:0", tls: {}}`,
			"--listener", `{role: management, address: "127.0.0.1:0"}`, "--log-level", "error"}, more...), &stderr, &stderr) != 0 {
			failed <- stderr.String()
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case text := <-failed:
			t.Fatal(text)
		case <-t.Context().Done():
			t.Fatal("did not start")
		case <-tick.C:
		}
		if out, err := runCommand(t, newRouterStatCommand(), "--data", data); err == nil && out != "" {
			return data
		}
	}
}

func TestRouterCommands(t *testing.T) {
	data := startUp(t)
	stat := func(args ...string) string {
		t.Helper()
		out, err := runCommand(t, newRouterStatCommand(), append(args, "--data", data)...)
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return out
	}
	for word, want := range map[string]string{
		"router": "sluice.local", "listeners": "northbound", "connections": "admin@local", "links": "$management",
		"addresses": "local", "identities": "read+write $management",
	} {
		if out := stat(word); !strings.Contains(out, want) || strings.Contains(out, "<nil>") || strings.Contains(out, "%!") {
			t.Errorf("%s: no %q in\n%s", word, want, out)
		}
		var list []map[string]any
		if err := json.Unmarshal([]byte(stat(word, "-o", "json")), &list); err != nil || len(list) == 0 || list[0]["identity"] == nil {
			t.Errorf("%s as JSON: %v, %v", word, err, list)
		}
	}
	env, err := readEnv(filepath.Join(data, operatorFile))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(data, operatorFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v, %v", operatorFile, info.Mode(), err)
	}
	// Every attribute that the tables name is one that the router tells.
	for _, table := range tables {
		var list []map[string]any
		json.Unmarshal([]byte(stat(table.word, "-o", "json")), &list)
		for _, c := range table.columns {
			if _, ok := list[0][c.attribute]; !ok {
				t.Errorf("%s: no attribute %s", table.word, c.attribute)
			}
		}
	}
	identities := filepath.Join(data, "identities.yaml")
	looker, err := auth.AddIdentity(identities, "looker", auth.Authority{Address: "$management", May: auth.Read | auth.Write})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the new identity", func() bool {
		_, err := runCommand(t, newRouterStatCommand(), "--url", env["SLUICE_ROUTER_URL"], "--user", "looker", "--password", looker)
		return err == nil
	})
	closeAs := func(args ...string) error {
		_, err := runCommand(t, newRouterCloseCommand(), append(args, "--data", data)...)
		return err
	}
	if err := closeAs("1", "--user", "looker", "--password", looker); err == nil || !strings.Contains(err.Error(), "not granted (403)") {
		t.Errorf("without the authority: got %v", err)
	}
	if err := closeAs("99999"); err == nil || !strings.Contains(err.Error(), `no connection "99999" (404)`) {
		t.Errorf("unknown connection: got %v", err)
	}
	var connections []map[string]any
	json.Unmarshal([]byte(stat("connections", "-o", "json")), &connections)
	for _, c := range connections {
		if c["host"] == "in-process" {
			if err := closeAs(c["identity"].(string)); err != nil {
				t.Errorf("close: %v", err)
			}
		}
	}
	if _, err := runCommand(t, newRouterStatCommand(), "--data", data, "--user", "admin@local", "--password", "x"); err == nil || !strings.Contains(err.Error(), "name or secret is wrong") {
		t.Errorf("wrong secret: got %v", err)
	}
}

// await waits until f holds.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-t.Context().Done():
			t.Fatal(what)
		case <-tick.C:
		}
	}
}

func TestRouterCommandsRefuse(t *testing.T) {
	t.Setenv("SLUICE_DATA", t.TempDir())
	for _, name := range []string{"SLUICE_ROUTER_URL", "SLUICE_ROUTER_USER", "SLUICE_ROUTER_PASSWORD", "SLUICE_CA"} {
		t.Setenv(name, "")
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"router", "stat", "queues"}, "expected one of router, listeners, connections, links, addresses, identities"},
		{[]string{"router", "stat", "-o", "xml"}, "expected text or json"},
		{[]string{"router", "stat"}, "who are you?"},
		{[]string{"router", "close-connection"}, "expected the ID of a connection"},
		{[]string{"router", "close-connection", "x"}, `"x" is no ID of a connection`},
		{[]string{"router", "stat", "--user", "u", "--password", "p", "--url", "http://x"}, "expected a URL such as amqp://"},
		{[]string{"router", "other"}, `unknown command "other"`},
	} {
		var out, stderr bytes.Buffer
		if code := run(t.Context(), tt.args, &out, &stderr); code != 1 || !strings.Contains(stderr.String(), tt.want) {
			t.Errorf("%v: got %d, %q, want %q", tt.args, code, stderr.String(), tt.want)
		}
	}
}

// TestFigures expects the figures of every part of `sluice up` at the health listener.
func TestFigures(t *testing.T) {
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := probe.Addr().String()
	probe.Close()
	startUp(t, "--listener", `{role: health, address: "`+address+`"}`, "--listener", `{role: adapter/http, address: "127.0.0.1:0"}`)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"sluice_build_info{", "sluice_router_connections{", "sluice_router_notices_tenants ", "sluice_router_logins_refused_total ",
		"sluice_router_ingress_refused_total 0", `sluice_registry_changes_posted_total{result="left"} 0`, `sluice_adapter_admissions_total{adapter="hono-http",result="miss"} 0`,
		`sluice_adapter_admissions_kept{adapter="hono-mqtt"} 0`, `sluice_adapter_admission_calls{adapter="hono-http"} 0`, "sluice_adapter_registry_followed{",
		`hono_connections_unauthenticated{component_name="hono-mqtt",component_type="adapter",`,
	} {
		if !strings.Contains(string(text), "\n"+want) {
			t.Errorf("%s is missing", want)
		}
	}
}
