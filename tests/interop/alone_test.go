package interop_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/tests/interop/wire"
)

// alone is a running `sluice router` that serves several identities.
type alone struct {
	*child
	addr, health string
}

// The secret of every identity of the tests' router.
const secret = "secret of the test"

// The identities: one that may do everything, and the applications of two tenants.
const (
	anybody = "user@TEST"
	appA    = "app@A"
	appB    = "app@B"
)

// startAlone runs the router for the applications of three tenants.
func startAlone(t *testing.T) *alone {
	t.Helper()
	r := &alone{addr: freeAddr(t), health: freeAddr(t)}
	dir := t.TempDir()
	config := writeFile(t, filepath.Join(dir, "router.yaml"), fmt.Sprintf(
		"insecure: true\nlisteners:\n  - {role: northbound, address: %q}\n  - {role: health, address: %q}\n", r.addr, r.health))
	identities := "identities:\n" + identity(anybody, "*", "read, write")
	for name, tenant := range map[string]string{appA: "A", appB: "B"} {
		identities += identity(name, tenant, "read, write")
	}
	file := writeFile(t, filepath.Join(dir, "identities.yaml"), identities)
	r.child = startChild(t, "sluice router", exec.Command(program(t), "router", "--data", filepath.Join(dir, "data"),
		"--config", config, "--identities", file), nil)
	r.awaitListener(t, r.addr)
	return r
}

func identity(name, tenant, may string) string {
	text := fmt.Sprintf("  - name: %s\n    secret: \"{plain}%s\"\n    assertions: optional\n    limits: {connections: 5000}\n    authorities:\n", name, secret)
	for _, endpoint := range []string{"telemetry", "command", "command_response", "notification"} {
		text += fmt.Sprintf("      - {address: \"%s/%s\", may: [%s]}\n", endpoint, tenant, may)
	}
	return text
}

// as is how an identity reaches an address of the router.
func (r *alone) as(name, address string) linkOptions {
	return linkOptions{addr: r.addr, user: name, password: secret, address: address}
}

// wire connects a client that sends nothing by itself.
func (r *alone) wire(t *testing.T, o wire.Options) *wire.Client {
	t.Helper()
	o.Addr, o.User, o.Password = r.addr, anybody, secret
	c, err := wire.Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Conn.Close() })
	if err := c.Conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// attached attaches a link and waits for the answer.
func attached(t *testing.T, c *wire.Client, a *amqp.Attach) {
	t.Helper()
	write(t, c, a, nil)
	await[*amqp.Attach](t, c)
}

func write(t *testing.T, c *wire.Client, p amqp.Performative, payload []byte) {
	t.Helper()
	if err := c.Write(p, payload); err != nil {
		t.Fatal(err)
	}
}

func await[P amqp.Performative](t *testing.T, c *wire.Client) (P, []byte) {
	t.Helper()
	p, payload, err := wire.Await[P](c)
	if err != nil {
		t.Fatalf("awaiting %T: %v", p, err)
	}
	return p, payload
}

var peakLine = regexp.MustCompile(`Vm(RSS|HWM):\s+(\d+) kB`)

// resident returns the router's resident memory and its peak since resetPeak, in bytes.
func (r *alone) resident(t *testing.T) (now, peak int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range peakLine.FindAllSubmatch(status, -1) {
		kib, _ := strconv.Atoi(string(m[2]))
		if string(m[1]) == "RSS" {
			now = kib << 10
		} else {
			peak = kib << 10
		}
	}
	return now, peak
}

// resetPeak makes the peak what is resident now (proc(5), clear_refs).
func (r *alone) resetPeak(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", r.cmd.Process.Pid), []byte("5"), 0); err != nil {
		t.Skipf("the peak of resident memory cannot be told: %v", err)
	}
}

// silent checks that a peer says nothing for a while: what must not happen has no
// moment at which it has not happened.
func (p *peer) silent(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	select {
	case e := <-p.events:
		t.Errorf("%s says %q (%s %s) where it should hear nothing", p.name, e.Event, e.Condition, e.Description)
	case <-ctx.Done():
	}
}
