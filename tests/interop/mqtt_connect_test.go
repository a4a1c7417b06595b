package interop_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// TestMQTTConnectsRefused asserts every row of the table of CONNACK codes, with
// mosquitto's clients in both versions, and with paho.golang the reason that
// devices are told.
func TestMQTTConnectsRefused(t *testing.T) {
	needMosquitto(t)
	p := startPlant(t, "")
	const badCredentials = "bad credentials"
	certificate := func(name, by string) mosquitto {
		cert, key := p.certificate(t, name, by)
		return mosquitto{secure: true, args: []string{"--cert", cert, "--key", key}}
	}
	p.anchor["foreign-ca"] = issue(t, "foreign-ca", nil)
	for _, tt := range []struct {
		name string
		mosquitto
		v3, v5 int
		says   string // "" = anything
	}{
		{"nothing that proves it", mosquitto{}, 4, 0x86, ""},
		{"wrong password", mosquitto{args: []string{"-u", "sensor-1@" + acme, "-P", "wrong"}}, 4, 0x86, badCredentials},
		{"unknown auth-id", mosquitto{user: "nobody@" + acme}, 4, 0x86, badCredentials},
		{"unknown tenant", mosquitto{user: "sensor-1@NOWHERE"}, 4, 0x86, badCredentials},
		{"disabled credentials", mosquitto{user: "unused@" + acme}, 4, 0x86, badCredentials},
		{"user name without a tenant", mosquitto{user: "sensor-1"}, 4, 0x86, ""},
		{"no password", mosquitto{args: []string{"-u", "sensor-1@" + acme}}, 4, 0x86, ""},
		{"bad token", mosquitto{args: []string{"-u", "x", "-P", p.token(t, "jwt-1", claims(acme, "sensor-1", nil), nil)}}, 4, 0x86, badCredentials},
		{"token without a device", mosquitto{args: []string{"-i", "sensor", "-u", "x", "-P", p.token(t, "jwt-1", claims("", "", jwt.MapClaims{"aud": nil}), nil)}}, 4, 0x86, ""},
		{"unknown subject", certificate("nobody", "known-ca"), 4, 0x86, badCredentials},
		{"authority that no tenant trusts", certificate("meter-1", "foreign-ca"), 4, 0x86, ""},
		{"shared authority, no tenant by SNI", certificate("meter-1", "shared-ca"), 4, 0x86, ""},

		{"adapter disabled", mosquitto{user: "sensor-1@NOMQTT"}, 5, 0x87, "adapter is disabled"},
		{"tenant disabled", mosquitto{user: "sensor-1@" + dark}, 5, 0x87, "tenant is disabled or not registered"},
		{"device disabled", mosquitto{user: "meter-off@" + acme}, 5, 0x87, "device is disabled or not registered"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, version := range versions {
				m, want := tt.mosquitto, tt.v3
				if m.version = version; version == "mqttv5" {
					want = tt.v5
				}
				if got := m.run(t, p, "pub", "-q", "1", "-t", "telemetry", "-m", "x"); got.code != want {
					t.Errorf("%s: ended with %d: %s; want %d", version, got.code, got.stderr, want)
				}
			}
			d := p.dials(t, "paho5", tt.asPaho(p))
			if e := d.await(t, "connack"); e.Code != tt.v5 || e.Reason == "" || tt.says != "" && e.Reason != tt.says {
				t.Errorf("answered %#x %q; want %#x %q", e.Code, e.Reason, tt.v5, tt.says)
			}
		})
	}
}

// asPaho is the same for the peers.
func (m mosquitto) asPaho(p *plant) (o mqttOptions) {
	if m.secure {
		o.CA = p.ca
	}
	for i := 0; i+1 < len(m.args); i += 2 {
		switch value := m.args[i+1]; m.args[i] {
		case "-u":
			o.User = value
		case "-P":
			o.Password = value
		case "-i":
			o.ClientID = value
		case "--cert":
			o.Cert = value
		case "--key":
			o.Key = value
		}
	}
	if m.user != "" {
		authID, _, _ := strings.Cut(m.user, "@")
		o.User, o.Password = m.user, password(authID)
	}
	return o
}

// refused expects that a device with each client is refused.
func (p *plant) refused(t *testing.T, o mqttOptions, v3, v5 int, says string) {
	t.Helper()
	if e := p.dials(t, "paho", o).await(t, "connack"); e.Code != v3 {
		t.Errorf("MQTT 3.1.1 is answered %d; want %d", e.Code, v3)
	}
	if e := p.dials(t, "paho5", o).await(t, "connack"); e.Code != v5 || !strings.Contains(e.Reason, says) {
		t.Errorf("MQTT 5 is answered %#x %q; want %#x %q", e.Code, e.Reason, v5, says)
	}
}

// TestMQTTLimits connects more devices than there may be.
func TestMQTTLimits(t *testing.T) {
	p := startPlant(t, "adapters: {mqtt: {max-connections: 3}}\n")
	p.registers(t, http.MethodPut, "tenants/"+other, `{"resource-limits": {"max-connections": 1}}`, 204)
	first := p.connects(t, "paho5", asSensor("sensor-1@"+other))
	p.refused(t, asSensor("sensor-1@"+other), 5, 0x97, "connections")
	var more []*mqttDevice
	for i := range 2 {
		o := asSensor("sensor-1@" + acme)
		o.ClientID = fmt.Sprint("device-", i)
		more = append(more, p.connects(t, "paho5", o))
	}
	p.refused(t, asSensor("gw-1@"+acme), 3, 0x9C, "")

	// A place that is given back is taken again.
	first.does(t, mqttCommand{Cmd: "disconnect"})
	eventually(t, "a connection of the tenant", func() error {
		if e := p.dials(t, "paho5", asSensor("sensor-1@"+other)).await(t, "connack"); e.Code != 0 {
			return fmt.Errorf("%#x %s", e.Code, e.Reason)
		}
		return nil
	})
	more[0].publishesNothing(t)
}

// publishesNothing expects an upload to fail for want of an application, which shows that
// its device is connected.
func (d *mqttDevice) publishesNothing(t *testing.T) {
	t.Helper()
	d.does(t, mqttCommand{Cmd: "publish", Topic: "telemetry/?on-error=ignore", QoS: 1, Payload: "x"})
	d.await(t, "puback")
}

// TestMQTTTriesPasswords fails to log in until it is told to wait.
func TestMQTTTriesPasswords(t *testing.T) {
	needMosquitto(t)
	p := startPlant(t, "")
	wrong := mosquitto{version: "mqttv311", args: []string{"-u", "sensor-1@" + other, "-P", "wrong"}}
	for range 10 {
		if got := wrong.run(t, p, "pub", "-t", "telemetry", "-m", "x"); got.code != 4 {
			t.Fatalf("ended with %d: %s; want 4", got.code, got.stderr)
		}
	}
	p.refused(t, asSensor("sensor-1@"+other), 3, 0x97, "too many failed")
	p.connects(t, "paho5", asSensor("gw-1@"+acme)) // another one may
}

// TestMQTTAccepted looks at what a device of MQTT 5 is told when it connects.
func TestMQTTAccepted(t *testing.T) {
	p := startPlant(t, "")
	hour := 3600
	o := asSensor("sensor-1@" + acme)
	o.SessionExpiry = &hour
	d := p.dials(t, "paho5", o)
	e := d.await(t, "connack")
	l := e.Limits
	if e.Code != 0 || e.ClientID == "" || e.SessionPresent || l.Retain != true || l.SharedSubscriptions || l.SubscriptionIds {
		t.Errorf("connected with %+v", e)
	}
	for _, number := range []struct {
		name      string
		got, want *int
	}{
		{"Receive Maximum", l.ReceiveMaximum, at(100)}, {"Maximum QoS", l.MaximumQoS, at(1)}, {"Session Expiry Interval", l.SessionExpiry, at(0)},
	} {
		if number.got == nil || *number.got != *number.want {
			t.Errorf("%s is %v; want %d", number.name, number.got, *number.want)
		}
	}
	if l.MaximumPacketSize == nil || *l.MaximumPacketSize < 2048+128 {
		t.Errorf("Maximum Packet Size is %v; want room for a payload of 2048", l.MaximumPacketSize)
	}
	if l.TopicAliasMaximum != nil && *l.TopicAliasMaximum != 0 {
		t.Errorf("Topic Alias Maximum is %d; want none", *l.TopicAliasMaximum)
	}
	// None of what it is told that there is not may be used.
	d.does(t, mqttCommand{Cmd: "publish", Topic: "t", Alias: at(1), Payload: "x", QoS: 0})
	if e := d.together(t, "sent", "disconnect")["disconnect"]; e.Code != 0x94 || e.Reason == "" {
		t.Errorf("a topic alias is answered %#x %q; want 0x94", e.Code, e.Reason)
	}
	o.AuthMethod = "SCRAM-SHA-256"
	if e := p.dials(t, "paho5", o).await(t, "connack"); e.Code != 0x8C || e.Reason == "" {
		t.Errorf("enhanced authentication is answered %#x %q; want 0x8C", e.Code, e.Reason)
	}
}

// TestMosquittoWithoutAuthentication has devices that name themselves by their topic.
func TestMosquittoWithoutAuthentication(t *testing.T) {
	needMosquitto(t)
	p := startPlant(t, "adapters: {mqtt: {authentication-required: false}}\n")
	p.registers(t, http.MethodPut, "tenants/"+other, `{"adapters": [{"type": "hono-mqtt", "enabled": true, "device-authentication-required": false}]}`, 204)
	app := p.receives(t, "telemetry", other, "")
	for _, version := range versions {
		m := mosquitto{version: version}
		m.publishes(t, p, "-t", "telemetry/"+other+"/meter-1", "-m", "22.5")
		origin{other, "meter-1", "hono-mqtt", "telemetry/" + other + "/meter-1", "1", "application/octet-stream", "22.5"}.arrived(t, app.await(t, "message"), "telemetry")
	}
	for _, tt := range []struct {
		tenant, device string
		status         int
	}{
		{"", "", 400},
		{other, "", 400},
		{"", "meter-1", 400},
		{"NOWHERE", "meter-1", 404},
		{other, "nobody", 404},
		{dark, "meter-1", 403},
		{"NOMQTT", "meter-1", 403},
		{acme, "meter-1", 401}, // a tenant whose devices have to say who they are
	} {
		d := p.connects(t, "paho5", mqttOptions{})
		topic, kinds := fmt.Sprintf("telemetry/%s/%s", tt.tenant, tt.device), []string{"puback"}
		if tt.tenant != "" && tt.device != "" {
			d.subscribes(t, fmt.Sprintf("error/%s/%s/#", tt.tenant, tt.device))
			kinds = append(kinds, "message")
		}
		d.does(t, mqttCommand{Cmd: "publish", Topic: topic + "/?on-error=ignore&correlation-id=1", Payload: "x", QoS: 1})
		got := d.together(t, kinds...)
		if e := got["puback"]; e.Code != 0x80 || e.Reason == "" {
			t.Errorf("%s is answered %#x %q", topic, e.Code, e.Reason)
		}
		if e, ok := got["message"]; ok {
			if problem := readProblem(t, e.Payload); e.Topic != fmt.Sprintf("error/%s/%s/telemetry/1/%d", tt.tenant, tt.device, tt.status) || problem.Code != tt.status {
				t.Errorf("error message %+v to %s; want %d", problem, e.Topic, tt.status)
			}
		}
	}
	d := p.connects(t, "paho5", mqttOptions{}) // one that does not say whose errors it wants
	d.does(t, mqttCommand{Cmd: "subscribe", Filters: []string{"error///#"}})
	if e := d.await(t, "suback"); e.Codes[0] != 0x8f {
		t.Errorf("a filter without tenant and device is answered %#x", e.Codes)
	}
}

// TestMQTTWithoutTheRegistry connects while the functions are gone.
func TestMQTTWithoutTheRegistry(t *testing.T) {
	s := startThree(t)
	s.register(t)
	p := &plant{installation: &installation{}, mqtt: s.startMQTT(t)}
	o := mqttOptions{User: "meter-1@ACME", Password: "secret of the device"}
	p.connects(t, "paho5", o)
	s.function.kill()
	o.User = "meter-2@ACME" // one of which nothing is known yet
	p.refused(t, o, 3, 0x88, "unavailable")
}

// startMQTT starts an MQTT adapter in a process of its own, and returns where it listens.
func (s *three) startMQTT(t *testing.T) string {
	t.Helper()
	certs := exec.Command(program(t), "certs", "--out", filepath.Join(s.dir, "certs"), "adapter/mqtt-0")
	if out, err := certs.CombinedOutput(); err != nil {
		t.Fatalf("certs: %v\n%s", err, out)
	}
	addr := freeAddr(t)
	adapter := s.startPart(t, []string{"adapter", "mqtt"}, "adapter-mqtt-0", filepath.Join(s.dir, "identities.yaml"), fmt.Sprintf(`listeners:
  - {role: adapter/mqtt, address: %q}
routers: ["amqps://%s"]
functions: {identity: "https://%s"}
`, addr, s.internal, s.functions))
	adapter.awaitListener(t, addr)
	return addr
}
