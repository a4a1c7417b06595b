package campaign_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/listen/listentest"
)

// scale says how much of the campaign runs.
type scale int

const (
	small scale = iota // go test
	some               // make test-all
	full               // make campaign
)

func runs() scale {
	switch {
	case os.Getenv("SLUICE_CAMPAIGN") == "1":
		return full
	case os.Getenv("SLUICE_TEST_ALL") == "1":
		return some
	}
	return small
}

const (
	user   = "user@TEST"
	secret = "secret of the test"
)

// patience turns a hang into a failure.
const patience = 60 * time.Second

// program builds sluice once and returns its path, or that of SLUICE_BIN.
var program = sync.OnceValues(func() (string, error) {
	if given := os.Getenv("SLUICE_BIN"); given != "" {
		return filepath.Abs(given)
	}
	dir, err := os.MkdirTemp("", "sluice-campaign-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "sluice")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/sluice")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build sluice: %w\n%s", err, out)
	}
	return path, nil
})

// TestMain removes the program that the tests built.
func TestMain(m *testing.M) {
	code := m.Run()
	if os.Getenv("SLUICE_BIN") == "" {
		if path, err := program(); err == nil {
			os.RemoveAll(filepath.Dir(path))
		}
	}
	os.Exit(code)
}

// router is a running `sluice router`.
type router struct {
	cmd       *exec.Cmd
	addr, tls string // northbound in plain text; internal
	health    string
	certs     string // folder
	mu        sync.Mutex
	printed   bytes.Buffer
	done      chan struct{}
}

// Write keeps what the router prints.
func (r *router) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.printed.Len() < 1<<20 {
		r.printed.Write(p)
	}
	return len(p), nil
}

func startRouter(t *testing.T) *router {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := &router{addr: freeAddr(t), tls: freeAddr(t), health: freeAddr(t), certs: filepath.Join(dir, "certs"), done: make(chan struct{})}
	if out, err := exec.Command(path, "certs", "--out", r.certs, "adapter/http-0", "router/router-0").CombinedOutput(); err != nil {
		t.Fatalf("certs: %v\n%s", err, out)
	}
	config := filepath.Join(dir, "router.yaml")
	identities := filepath.Join(dir, "identities.yaml")
	for file, text := range map[string]string{
		config: fmt.Sprintf(`insecure: true
log: {level: warn}
listeners:
  - {role: northbound, address: %q}
  - {role: internal, address: %q, tls: {}}
  - {role: health, address: %q}
functions: {identity: "https://127.0.0.1:9"}
tls: {certificate: %q, key: %q, ca: %q}
`, r.addr, r.tls, r.health, filepath.Join(r.certs, "router-router-0.crt"), filepath.Join(r.certs, "router-router-0.key"), filepath.Join(r.certs, "ca.crt")),
		identities: fmt.Sprintf(`identities:
  - name: %s
    secret: "{plain}%s"
    assertions: optional
    limits: {connections: 20000}
    authorities:
      - {address: "telemetry/*", may: [read, write]}
`, user, secret),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.cmd = exec.Command(path, "router", "--data", filepath.Join(dir, "data"), "--config", config, "--identities", identities)
	r.cmd.Stdout, r.cmd.Stderr = r, r
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = r.cmd.Wait()
		close(r.done)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.done
		if t.Failed() {
			t.Logf("sluice router printed:\n%s", r.printed.String())
		}
	})
	for _, addr := range []string{r.addr, r.tls, r.health} {
		r.awaitListener(t, addr)
	}
	return r
}

func (r *router) awaitListener(t *testing.T, addr string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-r.done:
			t.Fatalf("the router ended before it listened on %s", addr)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// freeAddr returns a loopback address that nothing listens on. A process that is
// started again finds it free.
func freeAddr(t *testing.T) string {
	t.Helper()
	port, err := listentest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// state is what the router says of itself.
type state struct {
	goroutines int
	resident   int // bytes
	heap       int // bytes allocated, garbage included
	collected  int // when garbage was collected last, in seconds
}

func (s state) String() string {
	return fmt.Sprintf("%d goroutines, %.1f MB resident, %.1f MB of heap", s.goroutines, float64(s.resident)/1e6, float64(s.heap)/1e6)
}

func (r *router) state(t *testing.T) state {
	t.Helper()
	resp, err := http.Get("http://" + r.health + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	figure := func(name string) int {
		m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(text)
		if m == nil {
			t.Fatalf("no %s in\n%s", name, text)
		}
		f, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		return int(f)
	}
	return state{figure("go_goroutines"), figure("process_resident_memory_bytes"), figure("go_memstats_heap_alloc_bytes"),
		figure("go_memstats_last_gc_time_seconds")}
}

// live returns the state right after garbage was collected, which an idle process does
// every two minutes only: asking it makes the garbage for it to do so earlier.
func (r *router) live(t *testing.T) state {
	t.Helper()
	now := r.state(t)
	for range 2 { // what dies of finalizers and pools needs two
		for began := now.collected; now.collected == began; {
			now = r.state(t)
		}
	}
	return now
}
