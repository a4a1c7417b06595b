package interop_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
)

// revokedWithin is how long after the management API's answer a change may
// still be unknown to an adapter or a router.
const revokedWithin = time.Second

// register makes the tenant with one device.
func (s *three) register(t *testing.T) {
	t.Helper()
	s.manage(t, http.MethodPost, "tenants/ACME", "{}", 201)
	s.manage(t, http.MethodPost, "devices/ACME/0815", "{}", 201)
	s.credentials(t)
}

func (s *three) credentials(t *testing.T) {
	t.Helper()
	s.manage(t, http.MethodPut, "credentials/ACME/0815",
		`[{"type": "hashed-password", "auth-id": "meter-1", "secrets": [{"pwd-plain": "secret of the device"}]}]`, 204)
}

// awaitStatus uploads until the adapter answers so, and returns how long it took.
func (s *three) awaitStatus(t *testing.T, want int) time.Duration {
	t.Helper()
	began := time.Now()
	eventually(t, fmt.Sprintf("an upload is answered with %d", want), func() error {
		got, err := s.upload(t, "secret of the device", "1", []byte("upload"))
		if err == nil && got.status != want {
			err = fmt.Errorf("%+v", got)
		}
		return err
	})
	return time.Since(began)
}

// component is the TLS side of one of the installation's components.
func (s *three) component(t *testing.T, name string) *tls.Config {
	t.Helper()
	certs := filepath.Join(s.dir, "certs")
	pair, err := tls.LoadX509KeyPair(filepath.Join(certs, name+".crt"), filepath.Join(certs, name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(certs, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ServerName: "localhost"}
}

// assertion asks the functions for the device's token, as an adapter does.
func (s *three) assertion(t *testing.T) string {
	t.Helper()
	body := `{"adapter":"hono-http","tenant":{"id":"ACME"},"credential":{"type":"hashed-password","auth-id":"meter-1","password":"secret of the device"}}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+s.functions+"/", bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"Content-Type": "application/json", "ce-specversion": "1.0", "ce-type": "io.sluice.admission.admit",
		"ce-source": "//sluice.local/adapters/http-0", "ce-id": "1", "ce-time": time.Now().UTC().Format(time.RFC3339), "ce-timeoutms": "9000"} {
		req.Header.Set(name, value)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: s.component(t, "adapter-http-0")}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var admitted struct {
		Assertion string `json:"assertion"`
	}
	if err := json.Unmarshal(answer, &admitted); err != nil || admitted.Assertion == "" {
		t.Fatalf("%d %s: no assertion", resp.StatusCode, answer)
	}
	return admitted.Assertion
}

// replayer sends with one token to the router, as an adapter that heard of nothing.
type replayer struct {
	sender *amqp.Sender
	token  string
}

func (s *three) replay(t *testing.T, token string) *replayer {
	t.Helper()
	conn, err := amqp.Dial(t.Context(), "amqps://"+s.internal, &amqp.ConnOptions{
		ContainerID: "http-0", SASLType: amqp.SASLTypeExternal(""), TLSConfig: s.component(t, "adapter-http-0")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	session, err := conn.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := session.NewSender(t.Context(), "telemetry/ACME", nil)
	if err != nil {
		t.Fatal(err)
	}
	return &replayer{sender, token}
}

// send returns nil when the router forwarded the message and it was accepted.
func (r *replayer) send(t *testing.T) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return r.sender.Send(ctx, &amqp.Message{
		DeliveryAnnotations:   amqp.Annotations{"x-opt-reg-assertion": r.token},
		Annotations:           amqp.Annotations{"tenant_id": "ACME", "device_id": "0815"},
		ApplicationProperties: map[string]any{"device_id": "0815"},
		Data:                  [][]byte{[]byte("replayed")},
	}, nil)
}

// awaitRefused sends until the router refuses, and returns how long it took.
func (r *replayer) awaitRefused(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	eventually(t, "the router refuses the token", func() error {
		err := r.send(t)
		var rejected *amqp.Error
		switch {
		case err == nil:
			return errors.New("accepted")
		case errors.As(err, &rejected):
			return nil
		}
		return err
	})
	return time.Since(began)
}

func within(t *testing.T, what string, took, most time.Duration) {
	t.Helper()
	t.Logf("%s: refused after %s", what, took.Round(time.Millisecond))
	if took > most {
		t.Errorf("%s: refused after %s; want %s at most", what, took, most)
	}
}

// TestRevocation changes the registry while adapter, router and functions are
// processes of their own.
func TestRevocation(t *testing.T) {
	s := startThree(t)
	s.register(t)
	startReceiver(t, "go-amqp", s.app).ignore(t)
	s.awaitStatus(t, http.StatusAccepted)
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		token                    bool // ended by it, too
		restore                  func()
	}{
		{"device disabled", http.MethodPut, "devices/ACME/0815", `{"enabled": false}`, 404, true, func() {
			s.manage(t, http.MethodPut, "devices/ACME/0815", `{}`, 204)
		}},
		{"tenant disabled", http.MethodPut, "tenants/ACME", `{"enabled": false}`, 403, true, func() {
			s.manage(t, http.MethodPut, "tenants/ACME", `{}`, 204)
		}},
		{"credential removed", http.MethodPut, "credentials/ACME/0815", `[]`, 401, false, func() { s.credentials(t) }},
		{"credential disabled", http.MethodPut, "credentials/ACME/0815",
			`[{"type": "hashed-password", "auth-id": "meter-1", "enabled": false, "secrets": [{"pwd-plain": "secret of the device"}]}]`, 401, false, func() { s.credentials(t) }},
		{"device deleted", http.MethodDelete, "devices/ACME/0815", "", 401, true, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.awaitStatus(t, http.StatusAccepted)
			r := s.replay(t, s.assertion(t))
			if err := r.send(t); err != nil {
				t.Fatalf("before the change: %v", err)
			}
			s.manage(t, tt.method, tt.path, tt.body, 204)
			within(t, "by the adapter", s.awaitStatus(t, tt.status), revokedWithin)
			if tt.token {
				within(t, "by the router", r.awaitRefused(t), revokedWithin)
			} else if err := r.send(t); err != nil {
				t.Errorf("a credential voids no token: %v", err)
			}
			if tt.restore != nil {
				tt.restore()
			}
		})
	}
}

// TestRevocationWhileTheRouterIsDown changes the registry when nobody can be
// told: the router that comes back reads what it missed.
func TestRevocationWhileTheRouterIsDown(t *testing.T) {
	s := startThree(t)
	s.register(t)
	receiver := startReceiver(t, "go-amqp", s.app)
	s.awaitStatus(t, http.StatusAccepted)
	receiver.await(t, "message")
	token := s.assertion(t)
	args := s.router.cmd.Args
	s.router.kill()
	s.manage(t, http.MethodPut, "devices/ACME/0815", `{"enabled": false}`, 204)
	s.router = startChild(t, "sluice router again", exec.Command(args[0], args[1:]...), nil)
	s.router.awaitListener(t, s.internal)
	startReceiver(t, "go-amqp", s.app).ignore(t)
	within(t, "by the router, after its start", s.replay(t, token).awaitRefused(t), revokedWithin)
	s.awaitStatus(t, http.StatusNotFound)
}

// TestWriterKilledBeforeItTold ends the function between its commit and its post:
// the router's next confirmation finds the change in the feed.
func TestWriterKilledBeforeItTold(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a confirmation, up to a minute")
	}
	s := newThree(t)
	s.routerIngress = freeAddr(t)
	way := startWay(t, s.ingress, s.routerIngress)
	s.start(t)
	s.register(t)
	startReceiver(t, "go-amqp", s.app).ignore(t)
	s.awaitStatus(t, http.StatusAccepted)
	r := s.replay(t, s.assertion(t))
	if err := r.send(t); err != nil {
		t.Fatal(err)
	}
	way.blocked.Store(true)
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+s.management+"/v1/devices/ACME/0815", nil)
		if err == nil { // the answer is lost with the process
			_, _ = send(req, s.operator, s.operatorPassword, "application/json", []byte(`{"enabled": false}`))
		}
	}()
	<-way.reached // the change is committed, and being told
	began := time.Now()
	s.function.kill()
	<-changed
	args := s.function.cmd.Args
	s.function = startChild(t, "sluice function again", exec.Command(args[0], args[1:]...), nil)
	s.function.awaitListener(t, s.functions)
	r.awaitRefused(t)
	within(t, "by the router", time.Since(began), time.Minute)
	s.awaitStatus(t, http.StatusNotFound)
	within(t, "by the adapter", time.Since(began), time.Minute+revokedWithin)
}

// way carries bytes to an address, until it is blocked: then they are lost.
type way struct {
	blocked atomic.Bool
	reached chan struct{} // told of bytes that were lost
}

func startWay(t *testing.T, from, to string) *way {
	t.Helper()
	ln, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	w := &way{reached: make(chan struct{}, 1)}
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			go w.carry(near, far)
			go w.carry(far, near)
		}
	}()
	return w
}

func (w *way) carry(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if w.blocked.Load() {
			select {
			case w.reached <- struct{}{}:
			default:
			}
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
