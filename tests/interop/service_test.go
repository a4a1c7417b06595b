package interop_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"
)

// honoPermissions are the identities that Hono's integration tests use, as its
// authentication server reads them.
const honoPermissions = `{
  "roles": {
    "protocol-adapter": [
      {"resource": "telemetry/*", "activities": ["WRITE"]}, {"resource": "event/*", "activities": ["WRITE"]},
      {"resource": "registration/*", "activities": ["READ", "WRITE"]}, {"operation": "registration/*:*", "activities": ["EXECUTE"]},
      {"resource": "credentials/*", "activities": ["READ", "WRITE"]}, {"operation": "credentials/*:*", "activities": ["EXECUTE"]},
      {"resource": "tenant", "activities": ["READ", "WRITE"]}, {"operation": "tenant/*:*", "activities": ["EXECUTE"]}],
    "device-registration-manager": [
      {"resource": "tenant", "activities": ["READ", "WRITE"]}, {"operation": "tenant/DEFAULT_TENANT:*", "activities": ["EXECUTE"]},
      {"resource": "registration/DEFAULT_TENANT", "activities": ["READ", "WRITE", "EXECUTE"]},
      {"resource": "credentials/DEFAULT_TENANT", "activities": ["READ", "WRITE", "EXECUTE"]},
      {"operation": "registration/DEFAULT_TENANT:*", "activities": ["EXECUTE"]}],
    "command-router-client": [
      {"resource": "cmd_router/*", "activities": ["READ", "WRITE"]}, {"operation": "cmd_router/*:*", "activities": ["EXECUTE"]},
      {"resource": "command_internal/*", "activities": ["READ"]}, {"resource": "command_response/*", "activities": ["WRITE"]}],
    "application": [
      {"resource": "command/*", "activities": ["WRITE"]}, {"resource": "command_response/*", "activities": ["READ"]}]
  },
  "users": {
    "http-adapter@HONO": {"mechanism": "PLAIN", "password": "http-secret", "authorities": ["hono-component", "protocol-adapter"]},
    "mqtt-adapter@HONO": {"mechanism": "PLAIN", "password": "mqtt-secret", "authorities": ["hono-component", "protocol-adapter", "command-router-client"]},
    "consumer@HONO": {"mechanism": "PLAIN", "password": "verysecret", "authorities": ["application"]},
    "hono-client": {"mechanism": "PLAIN", "password": "secret", "authorities": ["device-registration-manager"]}
  }
}`

// services is a registry in one process and, in another, a router that asks it
// and knows Hono's identities.
type services struct {
	*three
	registry, auth, health string // host:port of the router's listeners
}

func startServices(t *testing.T) *services {
	t.Helper()
	s := &services{registry: freeAddr(t), auth: freeAddr(t), health: freeAddr(t), three: &three{
		dir: t.TempDir(), functions: freeAddr(t), management: freeAddr(t), northbound: freeAddr(t),
		operator: "admin", operatorPassword: "secret of the operator",
	}}
	certs := exec.Command(program(t), "certs", "--out", filepath.Join(s.dir, "certs"), "router/router-0", "function/identity-0")
	if out, err := certs.CombinedOutput(); err != nil {
		t.Fatalf("certs: %v\n%s", err, out)
	}
	operators := writeFile(t, filepath.Join(s.dir, "identities.yaml"), fmt.Sprintf(
		"operators:\n  - {name: %s, secret: \"{plain}%s\", scopes: [{tenant: \"*\", may: [read, write]}]}\n", s.operator, s.operatorPassword))
	permissions := writeFile(t, filepath.Join(s.dir, "permissions.json"), honoPermissions)
	s.function = s.startPart(t, []string{"function", "identity"}, "function-identity-0", operators, fmt.Sprintf(`listeners:
  - {role: function, address: %q, tls: {}}
  - {role: management, address: %q}
`, s.functions, s.management))
	s.function.awaitListener(t, s.functions)
	s.function.awaitListener(t, s.management)
	s.router = s.startPart(t, []string{"router"}, "router-router-0", permissions, fmt.Sprintf(`listeners:
  - {role: northbound, address: %q}
  - {role: registry, address: %q}
  - {role: auth, address: %q}
  - {role: health, address: %q}
functions: {identity: "https://%s"}
auth: {audience: hono-components}
`, s.northbound, s.registry, s.auth, s.health, s.functions))
	for _, addr := range []string{s.northbound, s.registry, s.auth, s.health} {
		s.router.awaitListener(t, addr)
	}
	return s
}

// ask is one request to a service.
type ask struct {
	Target     string            `json:"target"`
	ReplyTo    string            `json:"replyTo"`
	Subject    string            `json:"subject"`
	Properties map[string]string `json:"properties,omitempty"`
	Body       string            `json:"body,omitempty"`
	Form       string            `json:"form,omitempty"` // of the body: "" = a data section, text, binary
}

// told is what came of it.
type told struct {
	Status       any    `json:"status"` // a number, or what is wrong with its type
	CacheControl string `json:"cacheControl"`
	Tenant       string `json:"tenant"`
	Device       string `json:"device"`
	Correlated   bool   `json:"correlated"`
	To           string `json:"to"`
	ContentType  string `json:"contentType"`
	Body         string `json:"body"`
	DataSection  bool   `json:"dataSection"`
	Settled      bool   `json:"settled"` // by the router; the clients ask for unsettled replies
}

// caller is who asks, with what.
type caller struct{ kind, addr, user, password string }

// asks sends requests one after the other on one connection.
func (c caller) asks(t *testing.T, requests []ask) []told {
	t.Helper()
	needPeer(t, c.kind)
	if c.kind == "go-amqp" {
		return c.goAMQP(t, requests)
	}
	var out []told
	c.run(t, map[string]any{"requests": requests}, &out)
	return out
}

// run runs the program of a foreign client.
func (c caller) run(t *testing.T, input map[string]any, output any) {
	t.Helper()
	host, port, _ := net.SplitHostPort(c.addr)
	input["url"], input["host"], input["user"], input["password"] = "amqp://"+c.addr, host, c.user, c.password
	input["port"], _ = strconv.Atoi(port)
	text, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "proton_service.py")
	if c.kind == "rhea" {
		cmd = exec.CommandContext(t.Context(), "node", "rhea_service.js")
		cmd.Env = append(os.Environ(), "NODE_PATH="+nodePath())
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(text), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", c.kind, err, &stderr)
	}
	if err := json.Unmarshal(stdout.Bytes(), output); err != nil {
		t.Fatalf("%s: %v: %s", c.kind, err, &stdout)
	}
}

// session opens a connection of go-amqp.
func (c caller) session(t *testing.T) *goamqp.Session {
	t.Helper()
	conn, err := goamqp.Dial(t.Context(), "amqp://"+c.addr, &goamqp.ConnOptions{SASLType: goamqp.SASLTypePlain(c.user, c.password)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	x, err := conn.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func (c caller) goAMQP(t *testing.T, requests []ask) (out []told) {
	t.Helper()
	x := c.session(t)
	senders, receivers := map[string]*goamqp.Sender{}, map[string]*goamqp.Receiver{}
	for n, q := range requests {
		var err error
		if senders[q.Target] == nil {
			receivers[q.Target], err = x.NewReceiver(t.Context(), q.ReplyTo, nil)
			if err == nil {
				senders[q.Target], err = x.NewSender(t.Context(), q.Target, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		id := fmt.Sprintf("go-%d", n)
		if err := senders[q.Target].Send(t.Context(), q.message(id), nil); err != nil {
			t.Fatal(err)
		}
		reply, err := receivers[q.Target].Receive(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := receivers[q.Target].AcceptMessage(t.Context(), reply); err != nil {
			t.Fatal(err)
		}
		out = append(out, toldBy(reply, id))
	}
	return out
}

func (q *ask) message(id string) *goamqp.Message {
	m := &goamqp.Message{Properties: &goamqp.MessageProperties{MessageID: id, Subject: &q.Subject, ReplyTo: &q.ReplyTo}}
	if q.Properties != nil {
		m.ApplicationProperties = map[string]any{}
	}
	for k, v := range q.Properties {
		m.ApplicationProperties[k] = v
	}
	switch {
	case q.Body == "":
	case q.Form == "text":
		m.Value = q.Body
	case q.Form == "binary":
		m.Value = []byte(q.Body)
	default:
		m.Data = [][]byte{[]byte(q.Body)}
	}
	return m
}

func toldBy(m *goamqp.Message, id string) told {
	text := func(v any) string { s, _ := v.(string); return s }
	p := m.ApplicationProperties
	r := told{CacheControl: text(p["cache_control"]), Tenant: text(p["tenant_id"]), Device: text(p["device_id"]),
		Correlated: m.Properties.CorrelationID == id, Body: string(m.GetData()), DataSection: len(m.Data) == 1}
	r.Status = fmt.Sprintf("of type %T", p["status"])
	if code, ok := p["status"].(int32); ok {
		r.Status = float64(code)
	}
	if m.Properties.To != nil {
		r.To = *m.Properties.To
	}
	if m.Properties.ContentType != nil {
		r.ContentType = *m.Properties.ContentType
	}
	return r
}

// anchor is a certificate authority.
type anchor struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	text string // Base64, DER
}

// issue makes a certificate, of an authority where by is nil.
func issue(t *testing.T, name string, by *anchor) *anchor {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{"Sluice"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: by == nil, BasicConstraintsValid: true}
	if by == nil {
		by = &anchor{key: key, cert: c}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	return &anchor{key, c, base64.StdEncoding.EncodeToString(der)}
}

// member reads one member of a JSON object, "" for none.
func member(t *testing.T, body, name string) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Errorf("%v: %s", err, body)
		return ""
	}
	if m[name] == nil {
		return ""
	}
	return fmt.Sprint(m[name])
}

// TestServices asks the real registry over AMQP as a component of Hono does, with
// three foreign clients on both kinds of listener.
func TestServices(t *testing.T) {
	s := startServices(t)
	s.manage(t, http.MethodPost, "tenants/DEFAULT_TENANT", "{}", 201)
	ca := issue(t, "ca", nil)
	s.manage(t, http.MethodPost, "tenants/ACME", `{"alias":"acme","trusted-ca":[{"auto-provisioning-enabled":true,"cert":"`+ca.text+`"}]}`, 201)
	s.manage(t, http.MethodPost, "tenants/OFF", `{"enabled":false}`, 201)
	s.manage(t, http.MethodPost, "devices/ACME/gw-1", "{}", 201)
	s.manage(t, http.MethodPost, "devices/ACME/gw-2", "{}", 201)
	s.manage(t, http.MethodPost, "devices/ACME/dev-1", `{"via":["gw-1"],"defaults":{"ttl":30}}`, 201)
	s.manage(t, http.MethodPost, "devices/ACME/dev-2", `{"enabled":false}`, 201)
	s.manage(t, http.MethodPut, "credentials/ACME/dev-1", `[
		{"type":"hashed-password","auth-id":"sensor","ext":{"client-id":"c1"},"secrets":[{"pwd-plain":"pw"}]},
		{"type":"psk","auth-id":"sensor","secrets":[{"key":"AQID"}]}]`, 204)

	type want struct {
		ask
		status       float64
		cacheControl string
		to           string
		member, is   string // of the body
	}
	cases := []want{
		{ask{Target: "tenant", Subject: "get", Body: `{"tenant-id":"ACME"}`}, 200, "max-age = 180", "tenant/ACME", "tenant-id", "ACME"},
		{ask{Target: "tenant", Subject: "get", Body: `{"tenant-id":"acme"}`, Form: "text"}, 200, "max-age = 180", "tenant/ACME", "tenant-id", "ACME"},
		{ask{Target: "tenant", Subject: "get", Body: `{"subject-dn":"CN=ca,O=Sluice"}`, Form: "binary"}, 200, "max-age = 180", "tenant/ACME", "tenant-id", "ACME"},
		{ask{Target: "tenant", Subject: "get", Body: `{"tenant-id":"OFF"}`}, 200, "max-age = 180", "tenant/OFF", "enabled", "false"},
		{ask{Target: "tenant", Subject: "get", Body: `{"tenant-id":"none"}`}, 404, "", "", "", ""},
		{ask{Target: "tenant", Subject: "get", Body: `{`}, 400, "", "", "", ""},
		{ask{Target: "tenant", Subject: "put"}, 400, "", "", "", ""},
		{ask{Target: "registration/ACME", Subject: "assert", Properties: map[string]string{"device_id": "dev-1"}}, 200, "max-age = 300", "registration/ACME/dev-1", "via", "[gw-1]"},
		{ask{Target: "registration/ACME", Subject: "assert", Properties: map[string]string{"device_id": "dev-1", "gateway_id": "gw-1"}}, 200, "max-age = 300", "registration/ACME/dev-1", "defaults", "map[ttl:30]"},
		{ask{Target: "registration/ACME", Subject: "assert", Properties: map[string]string{"device_id": "dev-1", "gateway_id": "gw-2"}}, 403, "", "", "", ""},
		{ask{Target: "registration/ACME", Subject: "assert", Properties: map[string]string{"device_id": "dev-2"}}, 404, "", "", "", ""},
		{ask{Target: "registration/ACME", Subject: "assert"}, 400, "", "", "", ""},
		{ask{Target: "registration/none", Subject: "assert", Properties: map[string]string{"device_id": "dev-1"}}, 404, "", "", "", ""},
		{ask{Target: "credentials/ACME", Subject: "get", Body: `{"type":"hashed-password","auth-id":"sensor","client-id":"c1"}`}, 200, "max-age = 180", "credentials/ACME", "device-id", "dev-1"},
		{ask{Target: "credentials/ACME", Subject: "get", Body: `{"type":"hashed-password","auth-id":"sensor","client-id":"c2"}`}, 404, "", "", "", ""},
		{ask{Target: "credentials/ACME", Subject: "get", Body: `{"type":"psk","auth-id":"sensor"}`, Form: "text"}, 200, "no-cache", "credentials/ACME", "auth-id", "sensor"},
		{ask{Target: "credentials/ACME", Subject: "get", Body: `{"type":"psk","auth-id":"other"}`}, 404, "", "", "", ""},
		{ask{Target: "credentials/ACME", Subject: "get", Body: `{"type":"psk"}`}, 400, "", "", "", ""},
	}
	for listener, addr := range map[string]string{"northbound": s.northbound, "registry": s.registry} {
		for _, kind := range kinds {
			t.Run(listener+" "+kind, func(t *testing.T) {
				requests := make([]ask, len(cases))
				for i, c := range cases {
					requests[i] = c.ask
					requests[i].ReplyTo = c.Target + "/" + listener + "-" + kind
				}
				got := caller{kind, addr, "http-adapter@HONO", "http-secret"}.asks(t, requests)
				if len(got) != len(cases) {
					t.Fatalf("%d answers, want %d", len(got), len(cases))
				}
				for i, c := range cases {
					r := got[i]
					media := "application/json"
					if c.status >= 400 {
						media = "text/plain"
					}
					if r.Status != c.status || r.CacheControl != c.cacheControl || r.To != c.to || r.ContentType != media || !r.Correlated || !r.DataSection || r.Settled {
						t.Errorf("%s %+v: got %+v, want %v %q to %q", c.Target, c.ask, r, c.status, c.cacheControl, c.to)
					}
					if c.member != "" && member(t, r.Body, c.member) != c.is {
						t.Errorf("%s %s %s: %s, want %s %q", c.Target, c.Subject, c.Body, r.Body, c.member, c.is)
					}
					if bytes.Contains([]byte(r.Body), []byte("assertion")) {
						t.Errorf("a foreign client is shown an assertion: %s", r.Body)
					}
				}
			})
		}
	}
	for _, kind := range kinds {
		t.Run("single tenant "+kind, func(t *testing.T) {
			reply := "tenant/single-" + kind
			got := caller{kind, s.northbound, "hono-client", "secret"}.asks(t, []ask{
				{Target: "tenant", ReplyTo: reply, Subject: "get", Body: `{"tenant-id":"DEFAULT_TENANT"}`},
				{Target: "tenant", ReplyTo: reply, Subject: "get", Body: `{"tenant-id":"ACME"}`},
				{Target: "tenant", ReplyTo: reply, Subject: "get", Properties: map[string]string{"tenant_id": "ACME"}},
			})
			for i, want := range []float64{200, 403, 403} {
				if got[i].Status != want {
					t.Errorf("request %d: got %+v, want %v", i, got[i], want)
				}
			}
		})
	}
	for _, kind := range kinds {
		t.Run("device made by its certificate "+kind, func(t *testing.T) {
			dn := "CN=meter-" + kind + ",O=Sluice"
			q := ask{Target: "credentials/ACME", ReplyTo: "credentials/ACME/made-" + kind, Subject: "get"}
			without, with := q, q
			without.Body = fmt.Sprintf(`{"type":"x509-cert","auth-id":%q}`, dn)
			with.Body = fmt.Sprintf(`{"type":"x509-cert","auth-id":%q,"client-certificate":%q}`, dn, issue(t, "meter-"+kind, ca).text)
			got := caller{kind, s.northbound, "http-adapter@HONO", "http-secret"}.asks(t, []ask{without, with, with, without})
			for i, want := range []float64{404, 201, 200, 200} {
				if got[i].Status != want || want < 300 && member(t, got[i].Body, "device-id") != member(t, got[1].Body, "device-id") {
					t.Errorf("request %d: got %+v, want %v", i, got[i], want)
				}
			}
		})
	}
	t.Run("another tenant's link", func(t *testing.T) {
		_, err := caller{"go-amqp", s.registry, "hono-client", "secret"}.session(t).NewSender(t.Context(), "registration/ACME", nil)
		var e *goamqp.Error
		if !errors.As(err, &e) || e.Condition != "amqp:unauthorized-access" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("functions are gone", func(t *testing.T) {
		s.function.kill()
		got := caller{"go-amqp", s.northbound, "http-adapter@HONO", "http-secret"}.asks(t, []ask{
			{Target: "registration/ACME", ReplyTo: "registration/ACME/x", Subject: "assert", Properties: map[string]string{"device_id": "dev-1"}}})
		if got[0].Status != 503. || got[0].CacheControl != "" {
			t.Errorf("got %+v, want 503", got[0])
		}
	})
}
