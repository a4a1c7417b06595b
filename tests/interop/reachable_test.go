package interop_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestReachableAtTheRouter asks a router that runs apart which device waits for a
// command, as an operator, as a component and as nobody.
func TestReachableAtTheRouter(t *testing.T) {
	s := startThree(t)
	s.manage(t, http.MethodPost, "tenants/ACME", "{}", 201)
	for _, device := range []string{"0815", "asleep"} {
		s.manage(t, http.MethodPost, "devices/ACME/"+device, "{}", 201)
	}
	s.manage(t, http.MethodPut, "credentials/ACME/0815",
		`[{"type": "hashed-password", "auth-id": "meter-1", "secrets": [{"pwd-plain": "secret of the device"}]}]`, 204)
	startReceiver(t, "go-amqp", s.app).ignore(t)

	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	waiting.Go(func() { s.waitForCommands(ctx) })
	defer waiting.Wait()
	defer cancel()

	adapter, err := tls.LoadX509KeyPair(filepath.Join(s.dir, "certs", "adapter-http-0.crt"), filepath.Join(s.dir, "certs", "adapter-http-0.key"))
	if err != nil {
		t.Fatal(err)
	}
	operator := func(path string) (int, string, error) { return s.reachable(t.Context(), path, nil, s.operatorPassword) }
	eventually(t, "the device is reached", func() error {
		code, body, err := operator("ACME")
		if err == nil && (code != http.StatusOK || !strings.Contains(body, `{"device-id":"0815","adapter":"hono-http","since":"`)) {
			err = fmt.Errorf("%d %s", code, body)
		}
		return err
	})
	for _, tt := range []struct {
		path, password string
		certificates   []tls.Certificate
		want           int
		body           string
	}{
		{"ACME/0815", s.operatorPassword, nil, 200, `{"device-id":"0815","reachable":true,"adapter":"hono-http",`},
		{"ACME/asleep", s.operatorPassword, nil, 200, `{"device-id":"asleep","reachable":false}`},
		{"ACME/unknown", s.operatorPassword, nil, 404, `{"error":`},
		{"ACME?max=0", s.operatorPassword, nil, 400, `{"error":`},
		{"ACME", "not it", nil, 401, `{"error":`},
		{"ACME", "", nil, 401, `{"error":`},
		{"ACME/0815", "", []tls.Certificate{adapter}, 403, `{"error":`},
	} {
		code, body, err := s.reachable(t.Context(), tt.path, tt.certificates, tt.password)
		if err != nil || code != tt.want || !strings.HasPrefix(body, tt.body) || !json.Valid([]byte(body)) {
			t.Errorf("%s: got %d %s, %v; want %d %s", tt.path, code, body, err, tt.want, tt.body)
		}
	}
	cancel()
	eventually(t, "the device is no longer reached", func() error {
		code, body, err := operator("ACME/0815")
		if err == nil && (code != http.StatusOK || body != "{\"device-id\":\"0815\",\"reachable\":false}\n") {
			err = fmt.Errorf("%d %s", code, body)
		}
		return err
	})
}

// waitForCommands has the device wait for a command after an upload, until ctx ends.
func (s *three) waitForCommands(ctx context.Context) {
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.device+"/telemetry", strings.NewReader("awake"))
		if err != nil {
			return
		}
		req.Header.Set("hono-ttd", "60")
		_, _ = send(req, "meter-1@ACME", "secret of the device", "text/plain", nil)
	}
}

// reachable asks the router, as the operator where there is a password.
func (s *three) reachable(ctx context.Context, path string, certificates []tls.Certificate, password string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.routerIngress+"/v1/reachable/"+path, nil)
	if err != nil {
		return 0, "", err
	}
	if password != "" {
		req.SetBasicAuth(s.operator, password)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certificates}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: patience}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}
