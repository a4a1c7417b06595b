package images_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/listen"
)

// owner is whom the processes run as.
const owner = 65532

// site is a folder with what the containers of a test are given: certificates and
// the identities of applications and operators.
func site(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "site")
	authority, err := listen.OpenAuthority(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ kind, instance, host string }{{"router", "router-0", "router"}, {"adapter", "http-0", "adapter"}, {"function", "identity-0", "functions"}} {
		if _, err := authority.IssueComponent(dir, c.kind, c.instance, []string{c.host}, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := auth.AddOperator(filepath.Join(dir, "identities.yaml"), "admin", map[string]auth.Activity{"*": auth.Read | auth.Write}); err != nil {
		t.Fatal(err)
	}
	give(t, dir)
	return dir
}

// give lets the containers read a folder. Who may not give files away opens them.
func give(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(files, dir) {
		if os.Getuid() == 0 {
			err = os.Chown(f, owner, owner)
		} else if f == dir {
			err = os.Chmod(f, 0o755)
		} else {
			err = os.Chmod(f, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// as are the flags of a container that proves itself as a component, is reached by
// its host name in the network, and has listeners beside that for probes.
func as(network, dir, host, component string, listeners ...string) []string {
	all := strings.Join(append(listeners, `{role: health, address: "127.0.0.1:8088"}`), ", ")
	return []string{"--network", network, "--network-alias", host, "--volume", dir + ":/etc/sluice/site:ro",
		"--env", "SLUICE_TLS_CERTIFICATE=/etc/sluice/site/" + component + ".crt", "--env", "SLUICE_TLS_KEY=/etc/sluice/site/" + component + ".key",
		"--env", "SLUICE_TLS_CA=/etc/sluice/site/ca.crt", "--env", "SLUICE_IDENTITIES=/etc/sluice/site/identities.yaml",
		"--env", "SLUICE_LISTENERS=[" + all + "]"}
}

// TestRun runs every image in every way it has, with nothing but what it needs.
func TestRun(t *testing.T) {
	for _, i := range images {
		need(t, i.name+":"+tag)
	}
	dir := site(t)
	network := "sluice-images-" + strconv.Itoa(os.Getpid())
	docker(t, "network", "create", "--internal", network)
	t.Cleanup(func() {
		if out, err := try("network", "rm", network); err != nil {
			t.Errorf("remove the network: %v: %s", err, out)
		}
	})
	functions := run(t, as(network, dir, "functions", "function-identity-0", `{role: function, address: "0.0.0.0:8444", tls: {}}`), "sluice-function:"+tag)
	identity := []string{"--env", "SLUICE_FUNCTIONS_IDENTITY=https://functions:8444"}
	kept := append([]string{"--tmpfs", "/var/lib/sluice"}, identity...)
	router := run(t, append(as(network, dir, "router", "router-router-0", `{role: internal, address: "0.0.0.0:5673", tls: {}}`), kept...), "sluice-edge:"+tag, "router")
	// Nowhere may an adapter write that has a certificate.
	sealed := append([]string{"--volume", dir + ":/var/lib/sluice:ro", "--env", "SLUICE_ROUTERS=[amqps://router:5673]"}, identity...)
	adapter := run(t, append(as(network, dir, "adapter", "adapter-http-0", `{role: adapter/http, address: "0.0.0.0:8443", tls: {}}`), sealed...), "sluice-edge:"+tag, "adapter", "http")
	for _, c := range []*container{functions, router, adapter} {
		c.healthy(t)
	}
	for name, c := range map[string]*container{"sluice-edge router": router, "sluice-edge adapter http": adapter, "sluice-function with SQLite": functions} {
		t.Logf("%s: ready %v after docker start, %s resident", name, c.ready(t), c.resident(t))
	}
	adapter.stop(t)
	router.stop(t)
	functions.stop(t)
}

// TestHealthSaysNo expects that a process which is not ready is not healthy.
func TestHealthSaysNo(t *testing.T) {
	for _, i := range images {
		ref := i.name + ":" + tag
		need(t, ref)
		out, err := try(append(append([]string{"run", "--rm"}, hardened...), ref, "health")...)
		if err == nil || !strings.Contains(out, "http://127.0.0.1:8088/readyz") {
			t.Errorf("%s: %v: %s", i.name, err, out)
		}
	}
}

// TestPort runs the functions as a platform does that ends TLS and says the port.
func TestPort(t *testing.T) {
	need(t, "sluice-function:"+tag)
	run(t, []string{"--network", "none", "--env", "PORT=9000"}, "sluice-function:"+tag, "--functions", "admission").healthy(t)
}

// ready is how long it took from the call to start the container, with all that the
// engine does for it, to where the process says so.
func (c *container) ready(t *testing.T) time.Duration {
	t.Helper()
	for line := range strings.Lines(c.logs(t)) {
		at, text, _ := strings.Cut(line, " ")
		if !strings.Contains(text, `"msg":"ready"`) {
			continue
		}
		when, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			t.Fatal(err)
		}
		return when.Sub(c.began).Round(time.Millisecond)
	}
	t.Fatalf("it never said that it is ready: %s", c.logs(t))
	return 0
}

// resident is the memory of the process, as the kernel says it.
func (c *container) resident(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.state(t).State.Pid))
	if err != nil {
		return "memory of another machine" // the engine's processes are not ours
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strings.TrimSpace(value)
		}
	}
	return "nothing"
}
