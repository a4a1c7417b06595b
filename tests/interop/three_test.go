package interop_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// three is the same product as three processes that prove themselves to each
// other with certificates.
type three struct {
	dir                        string // configuration, certificates and data
	functions, management      string // host:port
	internal, northbound       string
	ingress                    string // where the function posts to
	routerIngress              string // where the router listens
	device                     string
	function, router, adapter  *child
	operator, operatorPassword string
	app                        linkOptions
}

// startThree makes the certificates with the program and starts functions, router and adapter.
func startThree(t *testing.T) *three {
	t.Helper()
	s := newThree(t)
	s.start(t)
	return s
}

// newThree chooses addresses.
func newThree(t *testing.T) *three {
	t.Helper()
	s := &three{
		dir: t.TempDir(), functions: freeAddr(t), management: freeAddr(t), internal: freeAddr(t), ingress: freeAddr(t), northbound: freeAddr(t), device: freeAddr(t),
		operator: "admin", operatorPassword: "secret of the operator",
	}
	s.routerIngress = s.ingress
	s.app = linkOptions{addr: s.northbound, user: "app@ACME", password: "secret of the application", address: "telemetry/ACME"}
	return s
}

func (s *three) start(t *testing.T) {
	t.Helper()
	certs := exec.Command(program(t), "certs", "--out", filepath.Join(s.dir, "certs"), "adapter/http-0", "router/router-0", "function/identity-0")
	if out, err := certs.CombinedOutput(); err != nil {
		t.Fatalf("certs: %v\n%s", err, out)
	}
	identities := writeFile(t, filepath.Join(s.dir, "identities.yaml"), fmt.Sprintf(`identities:
  - name: %s
    secret: "{plain}%s"
    assertions: optional
    authorities:
      - {address: "telemetry/ACME", may: [read]}
operators:
  - {name: %s, secret: "{plain}%s", scopes: [{tenant: "*", may: [read, write]}]}
`, s.app.user, s.app.password, s.operator, s.operatorPassword))

	s.function = s.startPart(t, []string{"function", "identity"}, "function-identity-0", identities, fmt.Sprintf(`listeners:
  - {role: function, address: %q, tls: {}}
  - {role: management, address: %q}
notices: {ingresses: ["https://%s"]}
`, s.functions, s.management, s.ingress))
	s.function.awaitListener(t, s.functions)
	s.router = s.startPart(t, []string{"router"}, "router-router-0", identities, fmt.Sprintf(`listeners:
  - {role: internal, address: %q, tls: {}}
  - {role: northbound, address: %q}
  - {role: ingress, address: %q, tls: {}}
functions: {identity: "https://%s"}
`, s.internal, s.northbound, s.routerIngress, s.functions))
	s.router.awaitListener(t, s.northbound)
	s.adapter = s.startPart(t, []string{"adapter", "http"}, "adapter-http-0", identities, fmt.Sprintf(`listeners:
  - {role: adapter/http, address: %q}
routers: ["amqps://%s"]
functions: {identity: "https://%s"}
`, s.device, s.internal, s.functions))
	s.adapter.awaitListener(t, s.device)
	s.function.awaitListener(t, s.management)
}

// startPart starts one of the processes with its certificate and a data folder of its own.
func (s *three) startPart(t *testing.T, command []string, certificate, identities, config string) *child {
	t.Helper()
	certs := filepath.Join(s.dir, "certs")
	config += fmt.Sprintf("insecure: true\nidentities: %q\ntls: {certificate: %q, key: %q, ca: %q}\n", identities,
		filepath.Join(certs, certificate+".crt"), filepath.Join(certs, certificate+".key"), filepath.Join(certs, "ca.crt"))
	file := writeFile(t, filepath.Join(s.dir, certificate+".yaml"), config)
	args := append(command, "--data", filepath.Join(s.dir, certificate), "--config", file)
	return startChild(t, "sluice "+command[0], exec.Command(program(t), args...), nil)
}

// manage makes one request of the operator.
func (s *three) manage(t *testing.T, method, path, body string, want int) {
	t.Helper()
	got, err := call(t, method, "http://"+s.management+"/v1/"+path, s.operator, s.operatorPassword, "application/json", []byte(body))
	if err != nil || got.status != want {
		t.Fatalf("%s %s: %+v, %v; want %d", method, path, got, err, want)
	}
}

func (s *three) upload(t *testing.T, password, qos string, body []byte) (answer, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.device+"/telemetry", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("QoS-Level", qos)
	return send(req, "meter-1@ACME", password, "text/plain", body)
}

// TestThreeProcesses registers a device, uploads, and looks at what arrives.
func TestThreeProcesses(t *testing.T) {
	s := startThree(t)
	s.manage(t, http.MethodPost, "tenants/ACME", "{}", 201)
	s.manage(t, http.MethodPost, "devices/ACME/0815", "{}", 201)
	s.manage(t, http.MethodPut, "credentials/ACME/0815",
		`[{"type": "hashed-password", "auth-id": "meter-1", "secrets": [{"pwd-plain": "secret of the device"}]}]`, 204)

	in := &installation{tenant: "ACME", deviceID: "0815"}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			receiver := startReceiver(t, kind, s.app)
			for _, qos := range []string{"0", "1"} {
				body := []byte("upload with quality of service " + qos)
				got, err := s.upload(t, "secret of the device", qos, body)
				if err != nil || got.status != http.StatusAccepted {
					t.Fatalf("upload: %+v, %v; want 202", got, err)
				}
				in.checkTelemetry(t, receiver.await(t, "message"), "text/plain", qos, body)
			}
		})
	}
	if got, err := s.upload(t, "not it", "1", nil); err != nil || got.status != http.StatusUnauthorized {
		t.Errorf("wrong password: %+v, %v; want 401", got, err)
	}
	s.manage(t, http.MethodPut, "devices/ACME/0815", `{"enabled": false}`, 204)
	startReceiver(t, "go-amqp", s.app).ignore(t)
	began := time.Now()
	for {
		got, err := s.upload(t, "secret of the device", "1", []byte("disabled"))
		if err != nil {
			t.Fatal(err)
		}
		if got.status == http.StatusNotFound {
			break
		}
		if time.Since(began) > disabledWithin {
			t.Fatalf("%+v %s after the device was disabled; want 404", got, time.Since(began))
		}
	}
	for _, c := range []*child{s.adapter, s.router, s.function} {
		if took, code := c.interrupt(t); code != 0 || took > stopsWithin {
			t.Errorf("%s ended with exit code %d after %s; want 0 within %s", c.name, code, took, stopsWithin)
		}
	}
}

// TestRouterComesBack restarts the router under a running adapter.
func TestRouterComesBack(t *testing.T) {
	s := startThree(t)
	s.manage(t, http.MethodPost, "tenants/ACME", "{}", 201)
	s.manage(t, http.MethodPost, "devices/ACME/0815", "{}", 201)
	s.manage(t, http.MethodPut, "credentials/ACME/0815",
		`[{"type": "hashed-password", "auth-id": "meter-1", "secrets": [{"pwd-plain": "secret of the device"}]}]`, 204)
	deliver := func() {
		t.Helper()
		receiver := startReceiver(t, "go-amqp", s.app)
		eventually(t, "an upload is accepted", func() error {
			got, err := s.upload(t, "secret of the device", "1", []byte("upload"))
			if err == nil && got.status != http.StatusAccepted {
				err = fmt.Errorf("%+v", got)
			}
			return err
		})
		receiver.await(t, "message")
	}
	deliver()
	args := s.router.cmd.Args
	s.router.kill()
	if got, err := s.upload(t, "secret of the device", "1", []byte("nobody there")); err != nil || got.status != http.StatusServiceUnavailable {
		t.Errorf("without a router: %+v, %v; want 503", got, err)
	}
	s.router = startChild(t, "sluice router again", exec.Command(args[0], args[1:]...), nil)
	s.router.awaitListener(t, s.northbound)
	deliver()
}

// TestComponentsNeedACertificate knocks at the doors that are for components only.
func TestComponentsNeedACertificate(t *testing.T) {
	s := startThree(t)
	other := t.TempDir()
	if out, err := exec.Command(program(t), "certs", "--out", other, "adapter/http-0").CombinedOutput(); err != nil {
		t.Fatalf("certs: %v\n%s", err, out)
	}
	stranger, err := tls.LoadX509KeyPair(filepath.Join(other, "adapter-http-0.crt"), filepath.Join(other, "adapter-http-0.key"))
	if err != nil {
		t.Fatal(err)
	}
	for door, addr := range map[string]string{"function": s.functions, "internal": s.internal} {
		for who, certificates := range map[string][]tls.Certificate{"nobody": nil, "a stranger's CA": {stranger}} {
			// With TLS 1.3 the client learns only when it reads that it was refused.
			conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, Certificates: certificates})
			if err != nil {
				continue
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			n, err := conn.Read(make([]byte, 1))
			if n > 0 || err == nil || isTimeout(err) {
				t.Errorf("%s was let in at %s: %d bytes, %v", who, door, n, err)
			}
			conn.Close()
		}
	}
	for _, name := range []string{"ca.key", "adapter-http-0.key", "router-router-0.key", "function-identity-0.key"} {
		info, err := os.Stat(filepath.Join(s.dir, "certs", name))
		if err != nil {
			t.Error(err)
		} else if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("%s has mode %o; want 600", name, got)
		}
	}
}
