package main_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/host/hosttest"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry/dynamotest"
)

// program is the path of the binary under test.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sluice-function-*")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "sluice-function")
	build := exec.Command("go", "build", "-trimpath", "-tags", "lambda.norpc", "-ldflags", "-s -w", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	code := 1
	if err := build.Run(); err == nil {
		code = dynamotest.Run(m)
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// process is a running sluice-function.
type process struct {
	cmd *exec.Cmd

	mu        sync.Mutex
	text      strings.Builder
	addresses map[string]string // by role
	ready     chan struct{}     // closed when it says so
	ended     chan struct{}     // closed when it writes no more
}

// environment is that of a process which nothing of the tests' own reaches.
func environment(vars ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}, vars...)
}

// start runs the program until the test ends and waits until it says that it is ready. A
// process that ends instead fails the test with what it wrote.
func start(t testing.TB, env []string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(program, args...), addresses: map[string]string{}, ready: make(chan struct{}), ended: make(chan struct{})}
	p.cmd.Env = env
	out, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.read(out)
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		_ = p.cmd.Wait()
		if t.Failed() {
			t.Log(p.log())
		}
	})
	select {
	case <-p.ready:
	case <-p.ended:
		if !p.saidReady() {
			t.Fatal("the program does not start") // its output follows
		}
	}
	return p
}

// startOn runs the program behind a Runtime API.
func startOn(t testing.TB, r *hosttest.Runtime, env []string, args ...string) *process {
	t.Helper()
	p := start(t, plus(env, "AWS_LAMBDA_RUNTIME_API="+r.Address()), args...)
	r.Runs(p.ended, p.log)
	return p
}

func (p *process) saidReady() bool {
	select {
	case <-p.ready:
		return true
	default:
		return false
	}
}

// read follows what the process logs.
func (p *process) read(out io.Reader) {
	defer close(p.ended)
	said := false
	for s := bufio.NewScanner(out); s.Scan(); {
		var line struct{ Msg, Role, Address string }
		_ = json.Unmarshal(s.Bytes(), &line)
		p.mu.Lock()
		fmt.Fprintln(&p.text, s.Text())
		if line.Msg == "listening" {
			p.addresses[line.Role] = line.Address
		}
		p.mu.Unlock()
		if line.Msg == "ready" && !said {
			said = true
			close(p.ready)
		}
	}
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// address is where the process listens in a role.
func (p *process) address(t testing.TB, role string) string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.addresses[role]
	if a == "" {
		t.Fatalf("no listener %s: %s", role, p.text.String())
	}
	return strings.Replace(a, "[::]", "127.0.0.1", 1)
}

// stop asks the process to end and expects it to do so in order.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if state, err := p.cmd.Process.Wait(); err != nil || state.ExitCode() != 0 {
		t.Errorf("ended with %v, %v", state, err)
	}
}

// output runs the program to its end.
func output(t *testing.T, env []string, args ...string) (text string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = env
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// operator writes an identities file with an operator.
func operator(t testing.TB, dir string) (file, password string) {
	t.Helper()
	file = filepath.Join(dir, "identities.yaml")
	password, err := auth.AddOperator(file, "admin", map[string]auth.Activity{"*": auth.Read | auth.Write})
	if err != nil {
		t.Fatal(err)
	}
	return file, password
}

// do is a request of the management API.
type do func(t *testing.T, method, path, body string) (status int, reply string)

// overHTTP asks at an address.
func overHTTP(address, password string) do {
	return func(t *testing.T, method, path, body string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.SetBasicAuth("admin", password)
		r.Close = true
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
}

// register makes the tenant T with the device D, which logs in as sensor with
// the password hunter2.
func register(t *testing.T, api do) {
	t.Helper()
	for _, step := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/tenants/T", `{}`, 201},
		{"POST", "/v1/devices/T/D", `{}`, 201},
		{"PUT", "/v1/credentials/T/D", `[{"type":"hashed-password","auth-id":"sensor","secrets":[{"pwd-plain":"hunter2"}]}]`, 204},
	} {
		if status, reply := api(t, step.method, step.path, step.body); status != step.status {
			t.Fatalf("%s %s: %d %s", step.method, step.path, status, reply)
		}
	}
}

// admits asks for the device by an invoker for adapters.
func admits(t *testing.T, inv events.Invoker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ask := func(password string) (*events.Admitted, error) {
		return events.Call(ctx, inv, events.Admit{Adapter: "hono-http", TenantRef: events.TenantRef{ID: "T"},
			Credential: &events.Credential{Type: "hashed-password", AuthID: "sensor", Password: password}})
	}
	got, err := ask("hunter2")
	if err != nil || got.DeviceID != "D" || got.Assertion == "" || got.MaxAge() == 0 {
		t.Errorf("admission: %+v, %v", got, err)
	}
	if _, err := ask("wrong"); !errors.Is(err, iot.ErrUnauthenticated) {
		t.Errorf("a wrong password: %v", err)
	}
	derives(t, inv)
}

// derives asks what applications are told of a device that takes commands now.
func derives(t *testing.T, inv events.Invoker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	change := events.PresenceChange{Kind: events.Subscribed, TenantID: "T", DeviceID: "D", Adapter: "hono-mqtt", At: time.Now()}
	got, err := events.Call(ctx, inv, events.NotificationDerive{Changes: []events.PresenceChange{change}})
	if err != nil || len(got.Events) != 1 || got.Events[0].Key() != change.Key() {
		t.Errorf("what follows from a subscription: %+v, %v", got, err)
	}
	change.TTDSeconds = 1
	if _, err := inv.Invoke(ctx, events.NotificationDerive{Changes: []events.PresenceChange{change}}); !errors.Is(err, iot.ErrInvalid) {
		t.Errorf("a change that is wrong: %v", err)
	}
}
