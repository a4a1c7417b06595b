package interop_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// subscription is a way to subscribe for commands.
type subscription struct {
	name, user, filter string
	heads              map[string]string // of the topics of commands, by the devices that are reached
	without            []string          // devices that are not
}

// subscriptions are all there are for a client that proves itself.
var subscriptions = []subscription{
	{"device", "sensor-1@" + acme, "command///req/#", map[string]string{"meter-1": "command///req/"}, []string{"gw-2"}},
	{"device, short", "sensor-1@" + acme, "c///q/#", map[string]string{"meter-1": "c///q/"}, nil},
	{"device, short and long", "sensor-1@" + acme, "c///req/#", map[string]string{"meter-1": "c///req/"}, nil},
	{"device, long and short", "sensor-1@" + acme, "command///q/#", map[string]string{"meter-1": "command///q/"}, nil},
	{"device with its tenant", "sensor-1@" + acme, "command/" + acme + "//req/#", map[string]string{"meter-1": "command/" + acme + "//req/"}, nil},
	{"device with its id", "sensor-1@" + acme, "c//meter-1/q/#", map[string]string{"meter-1": "c//meter-1/q/"}, nil},
	{"device with both", "sensor-1@" + acme, "c/" + acme + "/meter-1/q/#", map[string]string{"meter-1": "c/" + acme + "/meter-1/q/"}, nil},
	{"gateway for itself", "gw-1@" + acme, "c///q/#", map[string]string{"gw-1": "c///q/"}, []string{"meter-2", "meter:3"}},
	{"gateway for one device", "gw-1@" + acme, "command//meter-2/req/#", map[string]string{"meter-2": "command//meter-2/req/"}, []string{"gw-1", "meter:3"}},
	{"gateway for all devices", "gw-1@" + acme, "c//+/q/#", map[string]string{"meter-2": "c//meter-2/q/", "meter:3": "c//meter:3/q/", "gw-1": "c//gw-1/q/"}, []string{"meter-1"}},
	{"gateway for all devices, with the tenant", "gw-1@" + acme, "command/" + acme + "/+/req/#", map[string]string{"meter-2": "command/" + acme + "/meter-2/req/"}, nil},
}

// TestCommandsOverMQTT has applications of every kind send commands to mosquitto_sub,
// which subscribes in every form, and mosquitto_pub answer them.
func TestCommandsOverMQTT(t *testing.T) {
	needMosquitto(t)
	p := startPlant(t, patient)
	subscribed(t, p, p.everyKind(t, acme), subscriptions)
}

// TestCommandsWithoutAuthentication does the same for clients that say themselves who they are.
func TestCommandsWithoutAuthentication(t *testing.T) {
	needCurl(t)
	needMosquitto(t)
	p := startPlant(t, "adapters: {mqtt: {authentication-required: false, send-message-to-device-timeout: 5s}, http: {authentication-required: false}}\n")
	p.registers(t, http.MethodPut, "tenants/"+other, `{"adapters": [{"type": "hono-mqtt", "enabled": true, "device-authentication-required": false},
		{"type": "hono-http", "enabled": true, "device-authentication-required": false}]}`, 204)
	p.registersDevice(t, other, "meter-2", `{}`)
	apps := p.everyKind(t, other)
	subscribed(t, p, apps, []subscription{
		{"stranger", "", "command/" + other + "/meter-1/req/#", map[string]string{"meter-1": "command/" + other + "/meter-1/req/"}, []string{"meter-2"}},
		{"stranger, short", "", "c/" + other + "/meter-2/q/#", map[string]string{"meter-2": "c/" + other + "/meter-2/q/"}, []string{"meter-1"}},
	})
	for _, filter := range []string{"c///q/#", "c/" + other + "//q/#", "c//meter-1/q/#", "c/" + other + "/+/q/#", "c/NOWHERE/meter-1/q/#", "c/" + other + "/nobody/q/#", "c/" + acme + "/meter-1/q/#"} {
		refused(t, p, mosquitto{}, 0, filter)
	}
	t.Run("curl", func(t *testing.T) {
		app := apps["go-amqp"]
		uploads := p.receives(t, "telemetry", other, "")
		waits := request{method: http.MethodPut, target: "/telemetry/" + other + "/meter-1?hono-ttd=60"}.waits(t, p)
		uploads.await(t, "message")
		app.sends(t, "meter-1", outgoing{ReplyTo: "answers", Body: []byte("50")})
		app.hears(t, "accepted")
		id := waits.gets(t, "setBrightness", "", "application/octet-stream", "50")
		request{method: http.MethodPut, target: "/command/res/" + other + "/meter-1/" + id + "?hono-cmd-status=200", body: "done"}.curl(t, p).accepted(t)
		app.answered(t, "meter-1", "200", textPlain, "done")
	})
}

// everyKind connects an application of each kind.
func (p *plant) everyKind(t *testing.T, tenant string) map[string]*commander {
	t.Helper()
	all := map[string]*commander{}
	for _, kind := range kinds {
		needPeer(t, kind)
		all[kind] = p.commands(t, kind, tenant, "")
	}
	return all
}

// subscribed goes through the forms, both versions of MQTT and both qualities of service.
func subscribed(t *testing.T, p *plant, apps map[string]*commander, forms []subscription) {
	for _, form := range forms {
		for i, version := range versions {
			for qos := range 2 {
				t.Run(fmt.Sprintf("%s, %s, QoS %d", form.name, version, qos), func(t *testing.T) {
					kind := kinds[(i+qos)%len(kinds)]
					form.commanded(t, p, apps, kind, mosquitto{version: version, user: form.user}, qos)
				})
			}
		}
	}
}

// commanded subscribes, has applications of every kind send one command, and of
// one kind another that is answered.
func (s subscription) commanded(t *testing.T, p *plant, apps map[string]*commander, kind string, m mosquitto, qos int) {
	l := m.listens(t, p, qos, "-t", s.filter)
	for device, head := range s.heads {
		for _, app := range apps {
			app.sends(t, device, outgoing{Subject: "blink", Body: []byte("by " + app.sender.name)})
			app.hears(t, "accepted")
			if got, want := l.gets(t, qos), (order{head + "/blink", "", "by " + app.sender.name}); got != want {
				t.Errorf("got %+v; want %+v", got, want)
			}
		}
		app := apps[kind]
		app.sends(t, device, outgoing{ReplyTo: "answers", Body: []byte(`{"brightness": 80}`), ContentType: "application/json"})
		app.hears(t, "accepted")
		got := l.gets(t, qos)
		id, name, _ := strings.Cut(strings.TrimPrefix(got.topic, head), "/")
		if !strings.HasPrefix(got.topic, head) || id == "" || name != "setBrightness" || got.payload != `{"brightness": 80}` {
			t.Fatalf("got %+v; want %sREQUEST/setBrightness", got, head)
		}
		status, to := "204", s.answer(device)+id+"/204"
		if m.version == "mqttv5" {
			status, to = "200", got.reply
		}
		mosquitto{version: m.version, user: m.user}.publishes(t, p, "-t", to+"/?content-type=text%2Fplain", "-m", "done by "+device)
		app.answered(t, device, status, textPlain, "done by "+device)
	}
	for _, device := range s.without {
		apps["go-amqp"].commanded(t, device, "released")
	}
	l.interrupt(t)
	p.forgotten(t, apps["go-amqp"].tenant, s)
}

// answer is the topic of answers up to the request id.
func (s subscription) answer(device string) string {
	head := s.heads[device]
	if strings.Contains(head, acme+"//") { // nobody may publish with a tenant and no device
		head = strings.Replace(head, "//", "/"+device+"/", 1)
	}
	return strings.NewReplacer("/req/", "/res/", "/q/", "/s/").Replace(head)
}

// forgotten waits until the router has heard that a subscription is over, which
// the end of a connection does not wait for.
func (p *plant) forgotten(t *testing.T, tenant string, s subscription) {
	t.Helper()
	for device := range s.heads {
		eventually(t, device+" is not reachable", func() error {
			if got := p.registers(t, http.MethodGet, "reachable/"+tenant+"/"+device, "", 200); !strings.Contains(got, `"reachable":false`) {
				return fmt.Errorf("%s", got)
			}
			return nil
		})
	}
}

// refused expects that a filter is not granted.
func refused(t *testing.T, p *plant, m mosquitto, qos int, filter string) {
	t.Helper()
	for _, m.version = range versions {
		r := m.run(t, p, "sub", "-d", "-W", "60", "-E", "-q", fmt.Sprint(qos), "-t", filter)
		if !strings.Contains(r.stdout+r.stderr, "128") && !strings.Contains(r.stdout+r.stderr, "ubscription request") {
			t.Errorf("%s, filter %q with QoS %d: %+v; want it refused", m.version, filter, qos, r)
		}
	}
}
