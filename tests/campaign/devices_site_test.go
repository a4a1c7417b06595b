package campaign_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// deviceSite is functions, router and adapters for HTTP and MQTT, each as a process.
type deviceSite struct {
	*parts
	mqttAdapter   *part
	mqtt, mqttTLS string // host:port
	mqttHealth    string
}

func newDeviceSite(t *testing.T) *deviceSite {
	t.Helper()
	s := &deviceSite{parts: newParts(t, "")}
	for _, addr := range []*string{&s.mqtt, &s.mqttTLS, &s.mqttHealth} {
		*addr = freeAddr(t)
	}
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path, "certs", "--out", filepath.Join(s.dir, "certs"), "adapter/mqtt-0").CombinedOutput(); err != nil {
		t.Fatalf("certs: %v\n%s", err, out)
	}
	return s
}

// startMQTT starts the MQTT adapter, which asks the functions at the given host:port, and
// waits until it has a router.
func (s *deviceSite) startMQTT(t *testing.T, functions string) {
	t.Helper()
	s.mqttAdapter = s.start(t, []string{"adapter", "mqtt"}, "adapter-mqtt-0", fmt.Sprintf(`listeners:
  - {role: adapter/mqtt, address: %q}
  - {role: adapter/mqtt, address: %q, tls: {}}
  - {role: health, address: %q}
routers: ["amqps://%s"]
functions: {identity: "https://%s"}
`, s.mqtt, s.mqttTLS, s.mqttHealth, s.internal, functions))
	s.mqttAdapter.awaitListener(t, s.mqtt)
	s.mqttAdapter.awaitListener(t, s.mqttTLS)
	s.mqttAdapter.awaitReady(t, s.mqttHealth)
}

func (p *part) awaitReady(t *testing.T, health string) {
	t.Helper()
	p.eventually(t, "ready", func() error {
		resp, err := http.Get("http://" + health + "/readiness")
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

// register makes a tenant with so many devices, each with the secret of its own credentials.
func (s *deviceSite) register(t *testing.T, tenant string, devices int, secret func() string) {
	t.Helper()
	s.operator(t, http.MethodPost, "tenants/"+tenant, "application/json", strings.NewReader("{}"), http.StatusCreated)
	var body bytes.Buffer
	for i := range devices {
		fmt.Fprintf(&body, `{"op":"create","id":%q,"credentials":[{"type":"hashed-password","auth-id":%q,"secrets":[%s]}]}`+"\n",
			eventDevice(i), eventDevice(i), secret())
	}
	bulk(t, s.parts, tenant, &body, devices)
}

// quickSecret is that of devicePass with a hash that is fast.
func quickSecret() string { return quickSecretOf(devicePass) }

func quickSecretOf(password string) string {
	const salt = "0123456789abcdef"
	return fmt.Sprintf(`{"hash-function":"sha-256","salt":%q,"pwd-hash":%q}`, base64.StdEncoding.EncodeToString([]byte(salt)), sha256Base64(salt+password))
}

// slowSecret is that of devicePass with bcrypt; the hash is the same for all, which nobody
// who checks one can make use of.
func slowSecret(t *testing.T, cost int) func() string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(devicePass), cost)
	if err != nil {
		t.Fatal(err)
	}
	return func() string { return fmt.Sprintf(`{"hash-function":"bcrypt","pwd-hash":%q}`, hash) }
}

// login is that of the i-th device.
func (s *deviceSite) login(tenant string, i int) mqttLogin {
	return mqttLogin{addr: s.mqtt, source: i, clientID: fmt.Sprint("client-", i), user: eventDevice(i) + "@" + tenant, password: devicePass}
}

// all is how many calls were counted, of whatever type.
func (c *counter) all() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range c.types {
		n += of
	}
	return n
}
