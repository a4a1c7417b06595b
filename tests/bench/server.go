package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// startLimit is how long a server may take to listen before the run is given up.
const startLimit = 20 * time.Second

// stopLimit is how long a server may take to end before it is killed.
const stopLimit = 15 * time.Second

// server is a running server under test.
type server struct {
	cmd     *exec.Cmd
	out     *output
	addr    string // host:port
	url     string // with credentials, where the server asks for them
	tlsURL  string // over TLS
	tokens  string // file of assertions that the server takes
	version string
	ready   time.Duration // from start to the first accepted connection
	done    chan struct{} // closed when the process has ended
	process int           // what to measure, where it is not the one that was started
	beside  *server       // to be ended afterwards
	with    []*server     // do its work with it: measured and ended as well
	mqtt    string        // host:port where devices speak MQTT
	mqttTLS string
	names   string // what the processes are, as they are measured
}

// output keeps the end of what a server printed.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

const keptOutput = 16 << 10

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b.Write(p)
	if extra := o.b.Len() - keptOutput; extra > 0 {
		o.b.Next(extra)
	}
	return len(p), nil
}

func (s *server) pid() int {
	if s.process != 0 {
		return s.process
	}
	return s.cmd.Process.Pid
}

// pids are the processes to measure, as peerbench takes them.
func (s *server) pids() string {
	text := strconv.Itoa(s.pid())
	for _, other := range s.with {
		text += "," + strconv.Itoa(other.pid())
	}
	return text
}

func (s *server) log() string {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	return "the server printed:\n" + s.out.b.String()
}

// stop ends the server; a nil server has nothing to end.
func (s *server) stop() {
	if s == nil {
		return
	}
	defer s.beside.stop()
	for _, other := range s.with {
		defer other.stop()
	}
	// Erlang takes SIGINT for a request to ask what to do; the others end on both.
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(stopLimit):
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		<-s.done
	}
}

func (s *server) residentMB() float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid()))
	if err != nil {
		return 0
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		return 0
	}
	kib, _ := strconv.ParseFloat(string(m[1]), 64)
	return kib / 1024
}

// start runs a program and waits until addr accepts connections.
func start(ctx context.Context, addr, program string, args ...string) (*server, error) {
	return startWith(ctx, startLimit, nil, addr, program, args...)
}

// startWith is start with a limit of its own and, unless it is nil, an environment.
func startWith(ctx context.Context, limit time.Duration, env []string, addr, program string, args ...string) (*server, error) {
	s := &server{cmd: exec.Command(program, args...), out: &output{}, addr: addr, done: make(chan struct{})}
	s.cmd.Env, s.cmd.SysProcAttr = env, &syscall.SysProcAttr{Setpgid: true} // so that its children can be ended with it
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.done)
	}()
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			s.ready = time.Since(began)
			return s, c.Close()
		}
		select {
		case <-s.done:
			return nil, fmt.Errorf("%s ended before it listened on %s; %s", program, addr, s.log())
		case <-ctx.Done():
			s.stop()
			return nil, ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
		if time.Since(began) > limit {
			s.stop()
			return nil, fmt.Errorf("%s does not listen on %s after %s; %s", program, addr, limit, s.log())
		}
	}
}

// freeAddr returns a loopback address that nothing listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// identities are those of the generator: it is one application with many connections.
const identities = `identities:
  - name: bench@BENCH
    secret: "{plain}bench-secret"
    assertions: optional
    limits: {connections: 100000, links: 200000}
    authorities:
      - {address: "telemetry/*", may: [read, write]}
      - {address: "event/*", may: [read, write]}
      - {address: "command/*", may: [write]}
      - {address: "command_response/*", may: [read]}
`

const login = "bench%40BENCH:bench-secret@"

func startRouter(ctx context.Context, o options) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	secure, err := freeAddr()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.dir, "router-")
	if err != nil {
		return nil, err
	}
	files := map[string]string{
		"router.yaml": fmt.Sprintf("insecure: true\nlog: {level: warn}\nlisteners:\n  - {role: northbound, address: %q}\n"+
			"  - {role: northbound, address: %q, tls: {}}\n", addr, secure),
		"identities.yaml": identities,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	s, err := start(ctx, addr, o.sluice, "router", "--data", filepath.Join(dir, "data"),
		"--config", filepath.Join(dir, "router.yaml"), "--identities", filepath.Join(dir, "identities.yaml"))
	if err != nil {
		return nil, err
	}
	s.url, s.tlsURL = "amqp://"+login+addr, "amqps://"+login+secure
	return s, nil
}

// assertedCommand makes this program a router that takes assertions of its own making.
const assertedCommand = "serve-asserted"

func startAsserted(ctx context.Context, o options) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	file, tokens := filepath.Join(o.dir, "asserted.yaml"), filepath.Join(o.dir, "tokens")
	if err := os.WriteFile(file, []byte(identities), 0o600); err != nil {
		return nil, err
	}
	s, err := start(ctx, addr, self, assertedCommand, "-listen", addr, "-identities", file, "-tokens", tokens)
	if err != nil {
		return nil, err
	}
	s.url, s.tokens = "amqp://"+login+addr, tokens
	return s, nil
}

// startMosquitto starts mosquitto with more lines in its configuration. It returns nil when
// mosquitto is not installed.
func startMosquitto(ctx context.Context, o options, more ...string) (*server, error) {
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		program = "/usr/sbin/mosquitto" // where Debian puts it, outside of a plain user's PATH
		if _, err := os.Stat(program); errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	// No limit in flight, so that the subscriber never makes it wait: its best case.
	conf := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\npersistence false\nmax_inflight_messages 0\nmax_queued_messages 0\nlog_dest none\n%s\n", port, strings.Join(more, "\n"))
	file := filepath.Join(o.dir, "mosquitto-"+port+".conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	help, _ := exec.Command(program, "-h").Output() // it prints its version there, and fails
	s, err := start(ctx, addr, program, "-c", file)
	if err != nil {
		return nil, err
	}
	s.version, _, _ = strings.Cut(string(help), "\n")
	return s, nil
}
