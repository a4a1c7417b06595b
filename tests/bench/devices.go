package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The tenant and the devices that send telemetry, and what they log in with.
const (
	deviceTenant   = "BENCH"
	deviceUser     = "device-%d@" + deviceTenant
	devicePassword = "secret of the device"
	operatorSecret = "secret of the operator"
)

// operators are those of the management API, in an identities file.
const operators = `operators:
  - {name: admin, secret: "{plain}` + operatorSecret + `", scopes: [{tenant: "*", may: [read, write]}]}
`

// site is an installation with devices, in one process or in several.
type site struct {
	dir                              string
	http, mqtt, mqttTLS              string // host:port, for devices
	northbound, management           string
	internal, ingress, functions     string
	functionHealth, routerHealth     string
	httpHealth, mqttHealth, upHealth string
	sluice                           string
}

func newSite(o options) (*site, error) {
	dir, err := os.MkdirTemp(o.dir, "site-")
	if err != nil {
		return nil, err
	}
	if o.sluice, err = filepath.Abs(o.sluice); err != nil {
		return nil, err
	}
	s := &site{dir: dir, sluice: o.sluice}
	for _, addr := range []*string{&s.http, &s.mqtt, &s.mqttTLS, &s.northbound, &s.management, &s.internal, &s.ingress, &s.functions,
		&s.functionHealth, &s.routerHealth, &s.httpHealth, &s.mqttHealth, &s.upHealth} {
		if *addr, err = freeAddr(); err != nil {
			return nil, err
		}
	}
	return s, os.WriteFile(s.file("identities.yaml"), []byte(identities+operators), 0o600)
}

func (s *site) file(name string) string { return filepath.Join(s.dir, name) }

// startUp starts everything in one process.
func (s *site) startUp(ctx context.Context) (*server, error) {
	up, err := s.part(ctx, s.upHealth, "", []string{"up"}, fmt.Sprintf(`listeners:
  - {role: northbound, address: %q}
  - {role: adapter/http, address: %q}
  - {role: adapter/mqtt, address: %q}
  - {role: adapter/mqtt, address: %q, tls: {}}
  - {role: management, address: %q}
  - {role: health, address: %q}
`, s.northbound, s.http, s.mqtt, s.mqttTLS, s.management, s.upHealth))
	if err != nil {
		return nil, err
	}
	s.settle(up)
	return up, nil
}

// startParts starts functions, router and adapters as a process each.
func (s *site) startParts(ctx context.Context) (*server, error) {
	certs := exec.CommandContext(ctx, s.sluice, "certs", "--out", s.file("certs"), "adapter/http-0", "adapter/mqtt-0", "router/router-0", "function/identity-0")
	if out, err := certs.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("certs: %w\n%s", err, out)
	}
	var started []*server
	fail := func(err error) (*server, error) {
		for _, p := range started {
			p.stop()
		}
		return nil, err
	}
	for _, part := range []struct {
		health, certificate string
		command             []string
		config              string
	}{
		{s.functionHealth, "function-identity-0", []string{"function", "identity"}, fmt.Sprintf(`listeners:
  - {role: function, address: %q, tls: {}}
  - {role: management, address: %q}
  - {role: health, address: %q}
notices: {ingresses: ["https://%s"]}
`, s.functions, s.management, s.functionHealth, s.ingress)},
		{s.routerHealth, "router-router-0", []string{"router"}, fmt.Sprintf(`listeners:
  - {role: internal, address: %q, tls: {}}
  - {role: northbound, address: %q}
  - {role: ingress, address: %q, tls: {}}
  - {role: health, address: %q}
functions: {identity: "https://%s"}
`, s.internal, s.northbound, s.ingress, s.routerHealth, s.functions)},
		{s.httpHealth, "adapter-http-0", []string{"adapter", "http"}, fmt.Sprintf(`listeners:
  - {role: adapter/http, address: %q}
  - {role: health, address: %q}
%s`, s.http, s.httpHealth, s.toRouter())},
		{s.mqttHealth, "adapter-mqtt-0", []string{"adapter", "mqtt"}, s.mqttConfig()},
	} {
		p, err := s.part(ctx, part.health, part.certificate, part.command, part.config)
		if err != nil {
			return fail(err)
		}
		started = append(started, p)
	}
	function, router, overHTTP, overMQTT := started[0], started[1], started[2], started[3]
	overMQTT.with = []*server{overHTTP, router, function}
	overMQTT.names = "MQTT adapter, HTTP adapter, router, functions"
	s.settle(overMQTT)
	return overMQTT, nil
}

func (s *site) toRouter() string {
	return fmt.Sprintf("routers: [\"amqps://%s\"]\nfunctions: {identity: \"https://%s\"}\n", s.internal, s.functions)
}

// part starts one process and waits until it can work.
func (s *site) part(ctx context.Context, health, certificate string, command []string, config string) (*server, error) {
	// Generator, application and servers share the processors: with the usual limits a moment in
	// which one of them gets none would end connections.
	config += fmt.Sprintf("insecure: true\nlog: {level: warn}\ncredit-wait: 2s\nsend-timeout: 10s\nidentities: %q\n", s.file("identities.yaml"))
	name := strings.Join(command, "-")
	if certificate != "" {
		config += fmt.Sprintf("tls: {certificate: %q, key: %q, ca: %q}\n", s.file("certs/"+certificate+".crt"), s.file("certs/"+certificate+".key"), s.file("certs/ca.crt"))
	}
	if err := os.WriteFile(s.file(name+".yaml"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	p, err := start(ctx, health, s.sluice, append(command, "--data", s.file(name), "--config", s.file(name+".yaml"))...)
	if err != nil {
		return nil, err
	}
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if err = ready(health); err == nil {
			return p, nil
		}
		if time.Since(began) > startLimit {
			p.stop()
			return nil, fmt.Errorf("sluice %s is not ready after %s: %w; %s", name, startLimit, err, p.log())
		}
	}
}

func ready(health string) error {
	resp, err := http.Get("http://" + health + "/readiness")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// settle says where the server is reached.
func (s *site) settle(p *server) {
	p.url, p.addr, p.mqtt, p.mqttTLS = "amqp://"+login+s.northbound, s.http, s.mqtt, s.mqttTLS
}

// register makes a tenant with so many devices that have a secret each.
func (s *site) register(tenant string, devices int, secret string) error {
	if err := s.operator(http.MethodPost, "tenants/"+tenant, "application/json", strings.NewReader("{}"), http.StatusCreated); err != nil {
		return err
	}
	var body bytes.Buffer
	for i := range devices {
		fmt.Fprintf(&body, `{"op":"create","id":"device-%d","credentials":[{"type":"hashed-password","auth-id":"device-%d","secrets":[%s]}]}`+"\n", i, i, secret)
	}
	return s.operator(http.MethodPost, "bulk/devices/"+tenant, "application/x-ndjson", &body, http.StatusOK)
}

// quickSecret is a secret of devices whose hash is fast, as those of random tokens may be.
func quickSecret() string {
	salt := "0123456789abcdef"
	sum := sha256.Sum256([]byte(salt + devicePassword))
	return fmt.Sprintf(`{"hash-function":"sha-256","salt":%q,"pwd-hash":%q}`, base64.StdEncoding.EncodeToString([]byte(salt)), base64.StdEncoding.EncodeToString(sum[:]))
}

// operator makes a request of the management API.
func (s *site) operator(method, path, contentType string, body io.Reader, want int) error {
	req, err := http.NewRequest(method, "http://"+s.management+"/v1/"+path, body)
	if err != nil {
		return err
	}
	req.SetBasicAuth("admin", operatorSecret)
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		return fmt.Errorf("%s %s: %s %.300s, %v; want %d", method, path, resp.Status, text, err, want)
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	var last struct{ Done, Items, Succeeded any }
	if strings.HasPrefix(path, "bulk/") {
		if err := json.Unmarshal(lines[len(lines)-1], &last); err != nil || last.Done != true || last.Items != last.Succeeded {
			return fmt.Errorf("%s %s: %s, %v", method, path, lines[len(lines)-1], err)
		}
	}
	return nil
}
