package campaign_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// parts are functions, router and adapter as processes of their own.
type parts struct {
	dir      string
	function *part // nil where it is not started
	router   *part
	adapter  *part

	functions, management    string // host:port
	internal, ingress        string
	northbound, device       string
	functionsHealth          string
	routerHealth             string
	adapterHealth            string
	identities, registryKeys string // file; more of the functions' configuration
}

// part is one process.
type part struct {
	name    string
	args    []string
	cmd     *exec.Cmd
	done    chan struct{}
	mu      sync.Mutex
	printed bytes.Buffer
}

// Write keeps the end of what the process prints.
func (p *part) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.printed.Len() > 1<<20 {
		p.printed.Reset()
	}
	return p.printed.Write(b)
}

func (p *part) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.printed.String()
}

// newParts makes certificates and chooses addresses; registry is more of the
// configuration of the functions.
func newParts(t *testing.T, registry string) *parts {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	p := &parts{dir: t.TempDir(), registryKeys: registry}
	for _, a := range []*string{&p.functions, &p.management, &p.internal, &p.ingress, &p.northbound, &p.device,
		&p.functionsHealth, &p.routerHealth, &p.adapterHealth} {
		*a = freeAddr(t)
	}
	certs := exec.Command(path, "certs", "--out", filepath.Join(p.dir, "certs"), "adapter/http-0", "router/router-0", "function/identity-0", "function/proxy-0")
	if out, err := certs.CombinedOutput(); err != nil {
		t.Fatalf("certs: %v\n%s", err, out)
	}
	p.identities = filepath.Join(p.dir, "identities.yaml")
	writeFile(t, p.identities, fmt.Sprintf(`identities:
  - name: %s
    secret: "{plain}%s"
    assertions: optional
    authorities:
      - {address: "telemetry/*", may: [read]}
operators:
  - {name: admin, secret: "{plain}%s", scopes: [{tenant: "*", may: [read, write]}]}
`, user, secret, secret))
	return p
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *parts) startFunction(t *testing.T) {
	t.Helper()
	ingress := ""
	if p.router != nil || p.ingress != "" {
		ingress = fmt.Sprintf("notices: {ingresses: [\"https://%s\"]}\n", p.ingress)
	}
	p.function = p.start(t, []string{"function", "identity"}, "function-identity-0", fmt.Sprintf(`listeners:
  - {role: function, address: %q, tls: {}}
  - {role: management, address: %q}
  - {role: health, address: %q}
%s%s`, p.functions, p.management, p.functionsHealth, ingress, p.registryKeys))
	p.function.awaitListener(t, p.functions)
	p.function.awaitListener(t, p.management)
}

func (p *parts) startRouter(t *testing.T) {
	t.Helper()
	p.router = p.start(t, []string{"router"}, "router-router-0", fmt.Sprintf(`listeners:
  - {role: internal, address: %q, tls: {}}
  - {role: northbound, address: %q}
  - {role: ingress, address: %q, tls: {}}
  - {role: health, address: %q}
functions: {identity: "https://%s"}
`, p.internal, p.northbound, p.ingress, p.routerHealth, p.functions))
	p.router.awaitListener(t, p.northbound)
	p.router.awaitListener(t, p.ingress)
}

// startAdapter starts the HTTP adapter, which asks the functions at the given
// host:port, and waits until it has a router.
func (p *parts) startAdapter(t *testing.T, functions string) {
	t.Helper()
	p.adapter = p.start(t, []string{"adapter", "http"}, "adapter-http-0", fmt.Sprintf(`listeners:
  - {role: adapter/http, address: %q}
  - {role: health, address: %q}
routers: ["amqps://%s"]
functions: {identity: "https://%s"}
`, p.device, p.adapterHealth, p.internal, functions))
	p.adapter.awaitListener(t, p.device)
	p.adapter.eventually(t, "ready", func() error {
		resp, err := http.Get("http://" + p.adapterHealth + "/readiness")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

// start starts a process with its certificate and a data folder of its own.
func (p *parts) start(t *testing.T, command []string, certificate, config string) *part {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	certs := filepath.Join(p.dir, "certs")
	config += fmt.Sprintf("insecure: true\nlog: {level: warn}\nidentities: %q\ntls: {certificate: %q, key: %q, ca: %q}\n", p.identities,
		filepath.Join(certs, certificate+".crt"), filepath.Join(certs, certificate+".key"), filepath.Join(certs, "ca.crt"))
	file := filepath.Join(p.dir, certificate+".yaml")
	writeFile(t, file, config)
	return startPart(t, strings.Join(command, " "), append([]string{path}, append(command, "--data", p.data(certificate), "--config", file)...))
}

// data is the data folder of a process.
func (p *parts) data(certificate string) string { return filepath.Join(p.dir, certificate) }

func startPart(t *testing.T, name string, args []string) *part {
	t.Helper()
	p := &part{name: name, args: args, cmd: exec.Command(args[0], args[1:]...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			text := p.output()
			t.Logf("sluice %s printed:\n%s", name, text[max(0, len(text)-4000):])
		}
	})
	return p
}

// kill ends the process as a loss of power would.
func (p *part) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop ends the process in order.
func (p *part) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(os.Interrupt)
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("sluice %s did not end", p.name)
	}
}

func (p *part) awaitListener(t *testing.T, addr string) {
	t.Helper()
	p.eventually(t, "listening on "+addr, func() error {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

func (p *part) eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-p.done:
			t.Fatalf("sluice %s ended before it was %s", p.name, what)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("sluice %s is not %s: %v", p.name, what, err)
		}
	}
}

// used is what the process has taken of the machine.
type used struct {
	processor time.Duration
	resident  int // bytes
}

func (p *part) used(t *testing.T) (u used) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return u // no figures here
	}
	// After the name, which may contain spaces: state is the first field, utime the 12th.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const ticks = 100 // a second, on every Linux that Go runs on
	for _, i := range []int{11, 12} {
		n, _ := strconv.Atoi(fields[i])
		u.processor += time.Duration(n) * time.Second / ticks
	}
	pages, _ := strconv.Atoi(fields[21])
	u.resident = pages * syscall.Getpagesize()
	return u
}

// figure reads a metric by its name with labels as they are written.
func figure(t *testing.T, health, name string) float64 {
	t.Helper()
	resp, err := http.Get("http://" + health + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	sum, found := 0.0, false
	for _, m := range regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(name)+`(?:\{[^}]*\})? (\S+)$`).FindAllSubmatch(text, -1) {
		f, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		sum, found = sum+f, true
	}
	if !found {
		t.Fatalf("no %s in\n%s", name, text)
	}
	return sum
}

// mutual is a TLS configuration with the certificate of a part.
func (p *parts) mutual(t *testing.T, certificate string) *tls.Config {
	t.Helper()
	certs := filepath.Join(p.dir, "certs")
	cert, err := tls.LoadX509KeyPair(filepath.Join(certs, certificate+".crt"), filepath.Join(certs, certificate+".key"))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(certs, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
}

// operator makes one request of the management API and wants the status.
func (p *parts) operator(t *testing.T, method, path, contentType string, body io.Reader, want int) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.management+"/v1/"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", secret)
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		t.Fatalf("%s %s: %s %.300s, %v; want %d", method, path, resp.Status, text, err, want)
	}
	return text
}

// figures returns the lines of the metrics that begin so.
func figures(t *testing.T, health string, prefixes ...string) string {
	t.Helper()
	resp, err := http.Get("http://" + health + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var found strings.Builder
	for line := range strings.Lines(string(text)) {
		for _, prefix := range prefixes {
			if strings.HasPrefix(line, prefix) {
				found.WriteString(line)
			}
		}
	}
	return found.String()
}
