package interop_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// plant is an installation with devices that prove themselves in every way, and
// an application that may receive what any of them sends.
type plant struct {
	*installation
	mqtt, mqttTLS string // host:port

	dir    string             // of certificates and keys
	config string             // file
	anchor map[string]*anchor // by common name
	signer map[string]*ecdsa.PrivateKey
}

// Names in every plant. A device's password is "pw of" and its auth-id.
const (
	acme  = "ACME" // with an alias, trust anchors and devices
	dark  = "DARK" // disabled
	other = "OTHER"
)

// password is the one of the credentials that plants have.
func password(authID string) string { return "pw of " + authID }

// startPlant starts everything in one process and registers who is to be in it;
// extra is more of its configuration file.
func startPlant(t *testing.T, extra string) *plant {
	t.Helper()
	p := &plant{mqtt: freeAddr(t), mqttTLS: freeAddr(t), dir: t.TempDir(), anchor: map[string]*anchor{}, signer: map[string]*ecdsa.PrivateKey{}}
	p.installation = &installation{dir: filepath.Join(t.TempDir(), "data"), northbound: freeAddr(t), device: freeAddr(t), deviceTLS: freeAddr(t),
		management: freeAddr(t), health: freeAddr(t), tenant: acme,
		appUser: "app", appPassword: "secret of the application", operatorUser: "admin", operatorSecret: "secret of the operator"}
	p.ca = filepath.Join(p.installation.dir, "tls", "ca.crt")
	identities := writeFile(t, filepath.Join(p.dir, "identities.yaml"), fmt.Sprintf(`identities:
  - name: %s
    secret: "{plain}%s"
    authorities:
      - {address: "telemetry/*", may: [read]}
      - {address: "event/*", may: [read]}
      - {address: "command/*", may: [write]}
      - {address: "command_response/*", may: [read]}
operators:
  - {name: %s, secret: "{plain}%s", scopes: [{tenant: "*", may: [read, write]}]}
`, p.appUser, p.appPassword, p.operatorUser, p.operatorSecret))
	config := writeFile(t, filepath.Join(p.dir, "sluice.yaml"), fmt.Sprintf(`insecure: true
log: {level: debug}
management: {max-payload-size: 16KiB}
identities: %q
listeners:
  - {role: northbound, address: %q}
  - {role: adapter/http, address: %q}
  - {role: adapter/http, address: %q, tls: {}}
  - {role: adapter/mqtt, address: %q}
  - {role: adapter/mqtt, address: %q, tls: {}}
  - {role: management, address: %q}
  - {role: health, address: %q}
%s`, identities, p.northbound, p.device, p.deviceTLS, p.mqtt, p.mqttTLS, p.management, p.health, extra))
	p.config = config
	p.restart(t)
	p.populate(t)
	return p
}

// restart starts the program, for the first time or after it ended.
func (p *plant) restart(t *testing.T) {
	t.Helper()
	p.child = startChild(t, "sluice up", exec.Command(program(t), "up", "--data", p.installation.dir, "--config", p.config), nil)
	for _, addr := range []string{p.northbound, p.device, p.deviceTLS, p.mqtt, p.mqttTLS, p.management} {
		p.awaitListener(t, addr)
	}
	eventually(t, "ready", func() error { return getOK("http://" + p.health + "/readiness") })
}

// registers makes one request of the operator and returns what it answers.
func (p *plant) registers(t *testing.T, method, path, body string, want int) string {
	t.Helper()
	got, err := call(t, method, "http://"+p.management+"/v1/"+path, p.operatorUser, p.operatorSecret, "application/json", []byte(body))
	if err != nil || got.status != want {
		t.Fatalf("%s %s %.200s: %+v, %v; want %d", method, path, body, got, err, want)
	}
	return got.body
}

// populate registers the tenants and the devices of every plant.
func (p *plant) populate(t *testing.T) {
	t.Helper()
	for _, name := range []string{"known-ca", "template-ca", "enrol-ca", "gateway-ca", "shared-ca"} {
		p.anchor[name] = issue(t, name, nil)
	}
	p.anchor["alone"] = selfSigned(t, "alone")
	p.shared(t)
	p.registers(t, http.MethodPost, "tenants/"+acme, fmt.Sprintf(`{"alias": "acme-alias",
		"defaults": {"site": "north", "floor": 1, "content-type": "application/vnd.acme", "ttl": 3600}, "resource-limits": {"max-ttl": 7200},
		"trusted-ca": [%s, %s, %s, %s]}`,
		trusts(p.anchor["known-ca"], ""), trusts(p.anchor["alone"], ""),
		trusts(p.anchor["enrol-ca"], `"auto-provisioning-enabled": true, "auto-provisioning-device-id-template": "made-{{subject-cn}}"`),
		trusts(p.anchor["gateway-ca"], `"auto-provisioning-enabled": true, "auto-provision-as-gateway": true, "auto-provisioning-device-id-template": "{{subject-cn}}"`)), 201)
	p.registersDevice(t, acme, "meter-1", `{"defaults": {"floor": 2}}`,
		hashed("sensor-1"), withCertificate("CN=meter-1,O=Sluice"), p.withKey(t, "sensor-1"), withCertificate("CN=alone,O=Sluice"))
	p.registersDevice(t, acme, "jwt-1", `{}`, p.withKey(t, "jwt-1"))
	p.registersDevice(t, acme, "late-1", `{}`, p.withKey(t, "late-1"))
	p.registersDevice(t, acme, "meter-2", `{"via": ["gw-1", "gw-off"]}`)
	p.registersDevice(t, acme, "meter:3", `{"via": ["gw-1"]}`)
	p.registersDevice(t, acme, "meter-off", `{"enabled": false, "via": ["gw-1"]}`, hashed("meter-off"))
	p.registersDevice(t, acme, "gw-1", `{}`, hashed("gw-1"), withCertificate("CN=gw-1,O=Sluice"))
	p.registersDevice(t, acme, "gw-2", `{}`, hashed("gw-2"))
	p.registersDevice(t, acme, "gw-off", `{"enabled": false}`, hashed("gw-off"))
	p.registersDevice(t, acme, "gw-auto", `{"authorities": ["auto-provisioning-enabled"]}`, hashed("gw-auto"))
	p.registersDevice(t, acme, "unused", `{}`, `{"type": "hashed-password", "auth-id": "unused", "enabled": false, "secrets": [{"pwd-plain": "pw of unused"}]}`)
	p.registers(t, http.MethodPost, "tenants/"+dark, `{"enabled": false}`, 201)
	p.registersDevice(t, dark, "meter-1", `{}`, hashed("sensor-1"))
	for tenant, adapter := range map[string]string{"NOHTTP": "hono-mqtt", "NOMQTT": "hono-http"} {
		p.registers(t, http.MethodPost, "tenants/"+tenant, `{"adapters": [{"type": "`+adapter+`", "enabled": true}]}`, 201)
		p.registersDevice(t, tenant, "meter-1", `{}`, hashed("sensor-1"))
	}
	p.registers(t, http.MethodPost, "tenants/"+other, `{}`, 201)
	p.registersDevice(t, other, "meter-1", `{}`, hashed("sensor-1"))
}

// shared registers two tenants that trust one authority, so that only the name
// by which the server is called says which of them a certificate belongs to.
func (p *plant) shared(t *testing.T) {
	t.Helper()
	for _, tenant := range []string{"SHARE-A", "SHARE-B"} {
		p.registers(t, http.MethodPost, "tenants/"+tenant, fmt.Sprintf(`{"alias": %q, "trust-anchor-group": "shared", "trusted-ca": [%s]}`,
			strings.ToLower(tenant), trusts(p.anchor["shared-ca"], "")), 201)
		p.registersDevice(t, tenant, "meter-1", `{}`, withCertificate("CN=meter-1,O=Sluice"))
	}
}

// registersDevice registers a device with its credentials.
func (p *plant) registersDevice(t *testing.T, tenant, id, body string, credentials ...string) {
	t.Helper()
	p.registers(t, http.MethodPost, "devices/"+tenant+"/"+id, body, 201)
	if len(credentials) > 0 {
		p.credentials(t, tenant, id, credentials...)
	}
}

// credentials replaces all that a device has.
func (p *plant) credentials(t *testing.T, tenant, id string, credentials ...string) {
	t.Helper()
	p.registers(t, http.MethodPut, "credentials/"+tenant+"/"+id, "["+strings.Join(credentials, ",")+"]", 204)
}

// hashed is a credential with the device's password as a fast hash: how slow the
// hash is, is no concern of these tests.
func hashed(authID string, further ...string) string {
	secrets := ""
	for _, pw := range append([]string{password(authID)}, further...) {
		sum := sha256.Sum256([]byte(pw))
		secrets += fmt.Sprintf(`,{"hash-function": "sha-256", "pwd-hash": %q}`, base64.StdEncoding.EncodeToString(sum[:]))
	}
	return fmt.Sprintf(`{"type": "hashed-password", "auth-id": %q, "secrets": [%s]}`, authID, secrets[1:])
}

func withCertificate(subject string) string {
	return fmt.Sprintf(`{"type": "x509-cert", "auth-id": %q, "secrets": [{}]}`, subject)
}

// withKey is a credential with the public key that [plant.token] signs for.
func (p *plant) withKey(t *testing.T, authID string) string {
	t.Helper()
	key := issue(t, authID, nil).key
	p.signer[authID] = key
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"type": "rpk", "auth-id": %q, "secrets": [{"algorithm": "EC", "key": %q}]}`, authID, base64.StdEncoding.EncodeToString(public))
}

// selfSigned is a certificate that vouches for itself and is no authority: what an
// anchor trusts is its name and its key.
func selfSigned(t *testing.T, name string) *anchor {
	t.Helper()
	a := issue(t, name, nil)
	a.cert.IsCA = false
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.text = base64.StdEncoding.EncodeToString(der)
	return a
}

// trusts is a trust anchor; more is further members of it.
func trusts(a *anchor, more string) string {
	if more != "" {
		more = ", " + more
	}
	return fmt.Sprintf(`{"cert": %q%s}`, a.text, more)
}

// claims are those of a token that names its device itself, for an hour; change
// may be nil.
func claims(tenant, authID string, change jwt.MapClaims) jwt.MapClaims {
	c := jwt.MapClaims{"aud": "hono-adapter", "tid": tenant, "sub": authID, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	for name, v := range change {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	return c
}

// token signs with the key of an auth-id.
func (p *plant) token(t *testing.T, authID string, c jwt.MapClaims, header map[string]any) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, c)
	for name, v := range header {
		token.Header[name] = v
	}
	text, err := token.SignedString(p.signer[authID])
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// certificate writes a device's certificate and its key, and returns both files.
func (p *plant) certificate(t *testing.T, name, by string) (cert, key string) {
	t.Helper()
	a := p.anchor[name]
	if name != by {
		a = issue(t, name, p.anchor[by])
	}
	return writeCertificate(t, a)
}

// writeCertificate writes a certificate and its key, and returns both files.
func writeCertificate(t *testing.T, a *anchor) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(a.text)
	if err != nil {
		t.Fatal(err)
	}
	cert = writeFile(t, filepath.Join(dir, "device.crt"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})))
	key = writeFile(t, filepath.Join(dir, "device.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	return cert, key
}

// receives attaches the application to an endpoint of a tenant.
func (p *plant) receives(t *testing.T, endpoint, tenant, answer string) *peer {
	t.Helper()
	o := p.app(endpoint + "/" + tenant)
	o.answer = answer
	return startReceiver(t, "go-amqp", o)
}

// origin is what an application is told about where a message comes from.
type origin struct {
	tenant, device, adapter, address, qos, contentType, body string
}

// arrived holds what the application got against the northbound contract.
func (o origin) arrived(t *testing.T, m event, endpoint string) {
	t.Helper()
	got := origin{tenant: fmt.Sprint(m.Annotations["tenant_id"]), device: fmt.Sprint(m.Annotations["device_id"]), adapter: fmt.Sprint(m.Properties["orig_adapter"]),
		address: fmt.Sprint(m.Properties["orig_address"]), qos: fmt.Sprint(m.Properties["qos"]), contentType: m.ContentType, body: string(m.Body)}
	if got != o {
		t.Errorf("the application got\n%+v; want\n%+v", got, o)
	}
	if id := fmt.Sprint(m.Properties["device_id"]); m.To != endpoint+"/"+o.tenant || id != o.device || m.MessageID == "" || m.Durable != (endpoint == "event") {
		t.Errorf("to %q, device_id %q, message-id %q, durable %t; want it to %s/%s of %s", m.To, id, m.MessageID, m.Durable, endpoint, o.tenant, o.device)
	}
	if parent := traceOf(m)["traceparent"]; len(parent) != 55 {
		t.Errorf("traceparent %q is none", parent)
	}
}

// traceOf is the trace context that an application sees.
func traceOf(m event) map[string]string {
	context := map[string]string{}
	switch given := m.Annotations["x-opt-trace-context"].(type) {
	case map[any]any:
		for k, v := range given {
			context[fmt.Sprint(k)] = fmt.Sprint(v)
		}
	case map[string]any:
		for k, v := range given {
			context[k] = fmt.Sprint(v)
		}
	}
	return context
}

// provisioned is what the registry tells of a device that registered itself.
func (p *plant) provisioned(t *testing.T, tenant, id string) (d struct {
	Via, Authorities []string
	Status           struct {
		AutoProvisioned bool `json:"auto-provisioned"`
	}
}) {
	t.Helper()
	if err := json.Unmarshal([]byte(p.registers(t, http.MethodGet, "devices/"+tenant+"/"+id, "", 200)), &d); err != nil {
		t.Fatal(err)
	}
	return d
}
