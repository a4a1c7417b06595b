package interop_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// site is an installation of two routers and three adapter processes, each of which
// knows both routers.
type site struct {
	*three
	*plant     // one whose devices and applications are those of the site
	events     string
	ingresses  [2]string
	internals  [2]string
	fronts     [2]string // northbound
	routers    [2]*child
	mqtts      [2]string
	adapters   [2]*child
	identities string
}

const siteTenant = "SITE"

func startSite(t *testing.T) *site {
	t.Helper()
	s := &site{events: freeAddr(t), three: &three{dir: t.TempDir(), functions: freeAddr(t), management: freeAddr(t), device: freeAddr(t),
		operator: "admin", operatorPassword: "secret of the operator"}}
	for _, all := range []*[2]string{&s.ingresses, &s.internals, &s.fronts, &s.mqtts} {
		for i := range all {
			all[i] = freeAddr(t)
		}
	}
	s.plant = &plant{installation: &installation{tenant: siteTenant, northbound: s.fronts[0], device: s.three.device, management: s.three.management,
		appUser: "app", appPassword: "secret of the application", operatorUser: s.operator, operatorSecret: s.operatorPassword}}
	certs := exec.Command(program(t), "certs", "--out", filepath.Join(s.three.dir, "certs"), "adapter/http-0", "adapter/mqtt-0", "adapter/mqtt-1",
		"router/router-0", "router/router-1", "function/identity-0", "function/events-0")
	if out, err := certs.CombinedOutput(); err != nil {
		t.Fatalf("certs: %v\n%s", err, out)
	}
	s.identities = writeFile(t, filepath.Join(s.three.dir, "identities.yaml"), fmt.Sprintf(`identities:
  - name: app
    secret: "{plain}secret of the application"
    authorities:
      - {address: "telemetry/*", may: [read]}
      - {address: "event/*", may: [read]}
      - {address: "command/*", may: [write]}
      - {address: "command_response/*", may: [read]}
operators:
  - {name: %s, secret: "{plain}%s", scopes: [{tenant: "*", may: [read, write]}]}
`, s.operator, s.operatorPassword))
	s.startPart(t, []string{"function", "events"}, "function-events-0", s.identities, fmt.Sprintf("listeners: [{role: function, address: %q, tls: {}}]\n", s.events)).
		awaitListener(t, s.events)
	s.function = s.startPart(t, []string{"function", "identity"}, "function-identity-0", s.identities, fmt.Sprintf(`listeners:
  - {role: function, address: %q, tls: {}}
  - {role: management, address: %q}
notices: {ingresses: ["https://%s", "https://%s"]}
functions: {events: "https://%s"}
`, s.functions, s.three.management, s.ingresses[0], s.ingresses[1], s.events))
	s.function.awaitListener(t, s.functions)
	for i := range s.routers {
		s.startRouter(t, i)
	}
	for i := range s.adapters {
		s.startMQTT(t, i)
	}
	s.adapter = s.startPart(t, []string{"adapter", "http"}, "adapter-http-0", s.identities, fmt.Sprintf(`listeners:
  - {role: adapter/http, address: %q}
routers: ["amqps://%s", "amqps://%s"]
functions: {identity: "https://%s"}
`, s.three.device, s.internals[0], s.internals[1], s.functions))
	s.adapter.awaitListener(t, s.three.device)
	s.function.awaitListener(t, s.three.management)
	s.registers(t, http.MethodPost, "tenants/"+siteTenant, "{}", 201)
	s.registersDevice(t, siteTenant, "meter-1", `{}`, hashed("sensor-1"))
	s.registersDevice(t, siteTenant, "meter-2", `{"via": ["gw-1"]}`)
	s.registersDevice(t, siteTenant, "gw-1", `{}`, hashed("gw-1"))
	return s
}

// startRouter starts a router, for the first time or again.
func (s *site) startRouter(t *testing.T, i int) {
	t.Helper()
	s.routers[i] = s.startPart(t, []string{"router"}, fmt.Sprintf("router-router-%d", i), s.identities, fmt.Sprintf(`listeners:
  - {role: internal, address: %q, tls: {}}
  - {role: northbound, address: %q}
  - {role: ingress, address: %q, tls: {}}
functions: {identity: "https://%s", events: "https://%s"}
notices: {ingresses: ["https://%s", "https://%s"]}
`, s.internals[i], s.fronts[i], s.ingresses[i], s.functions, s.events, s.ingresses[i], s.ingresses[1-i]))
	for _, addr := range []string{s.internals[i], s.fronts[i]} {
		s.routers[i].awaitListener(t, addr)
	}
}

// startMQTT starts an adapter and waits until it has its routers.
func (s *site) startMQTT(t *testing.T, i int) {
	t.Helper()
	health := freeAddr(t)
	s.adapters[i] = s.startPart(t, []string{"adapter", "mqtt"}, fmt.Sprintf("adapter-mqtt-%d", i), s.identities, fmt.Sprintf(`listeners:
  - {role: adapter/mqtt, address: %q}
  - {role: health, address: %q}
routers: ["amqps://%s", "amqps://%s"]
functions: {identity: "https://%s"}
%s`, s.mqtts[i], health, s.internals[0], s.internals[1], s.functions, patient))
	s.adapters[i].awaitListener(t, s.mqtts[i])
	eventually(t, "ready", func() error { return getOK("http://" + health + "/readiness") })
}

// at is a device at one of the adapters.
func (s *site) at(i int) *plant {
	in := *s.plant
	in.mqtt = s.mqtts[i]
	return &in
}

// TestCommandsAtASite has a device at either of two adapters and applications at either of
// two routers, moves it, and kills what its commands go through.
func TestCommandsAtASite(t *testing.T) {
	needCurl(t)
	needMosquitto(t)
	s := startSite(t)
	sensor := mosquitto{version: "mqttv5", user: "sensor-1@" + siteTenant}
	events := startReceiver(t, "go-amqp", s.plant.app("event/"+siteTenant))
	hears := func(ttd, address string) {
		t.Helper()
		if got, want := notice(t, events.await(t, "message"), siteTenant), "meter-1 ttd "+ttd+" at "+address; got != want {
			t.Fatalf("told %q; want %q", got, want)
		}
	}
	apps := [2]*commander{s.commands(t, "proton", siteTenant, s.fronts[0]), s.commands(t, "rhea", siteTenant, s.fronts[1])}
	// commanded has both applications reach the device, and hear its answers.
	commanded := func(l *lamp, at int, head string) {
		t.Helper()
		for i, app := range apps {
			eventually(t, fmt.Sprintf("router %d delivers", i), func() error {
				app.sends(t, "meter-1", outgoing{ReplyTo: "answers", Body: []byte("50")})
				return wanted("accepted", app.sender.await(t, "outcome").State)
			})
			topic := l.gets(t, 1).topic
			if !strings.HasPrefix(topic, head) {
				t.Fatalf("got it at %s; want %s", topic, head)
			}
			// It may answer at another adapter than where it was asked.
			sensor.publishes(t, s.at(1-at), "-t", "c///s/"+requestOf(t, topic)+"/200/?content-type=text%2Fplain", "-m", "done")
			app.answered(t, "meter-1", "200", textPlain, "done")
		}
	}

	l := sensor.listens(t, s.at(0), 1, "-t", "c///q/#")
	hears("-1", "c///q/#")
	commanded(l, 0, "c///q/")

	// The device moves.
	moved := sensor.listens(t, s.at(1), 1, "-t", "command///req/#")
	hears("-1", "command///req/#")
	commanded(moved, 1, "command///req/")
	l.kill() // of which nothing is said: the next that is heard is what comes next
	commanded(moved, 1, "command///req/")
	moved.interrupt(t)
	hears("0", "command///req/#")
	for _, app := range apps {
		eventually(t, "it is released", func() error { return wanted("released", app.tries(t, "meter-1")) })
	}

	// It waits over HTTP.
	uploads := startReceiver(t, "go-amqp", s.plant.app("telemetry/"+siteTenant))
	other := s.plant.app("telemetry/" + siteTenant)
	other.addr = s.fronts[1]
	others := startReceiver(t, "go-amqp", other)
	for _, app := range apps {
		w := request{user: sensor.user, target: "/telemetry?hono-ttd=60"}.waits(t, s.plant)
		select { // whichever router it goes to
		case <-uploads.events:
		case <-others.events:
		}
		eventually(t, "it is delivered", func() error {
			app.sends(t, "meter-1", outgoing{ReplyTo: "answers"})
			return wanted("accepted", app.sender.await(t, "outcome").State)
		})
		id := w.gets(t, "setBrightness", "", "", "")
		request{user: sensor.user, target: "/command/res/" + id, body: "done", header: []string{"hono-cmd-status: 200"}}.curl(t, s.plant).accepted(t)
		app.answered(t, "meter-1", "200", textPlain, "done")
	}

	// A router restarts.
	stays := sensor.listens(t, s.at(0), 1, "-t", "c///q/#")
	hears("-1", "c///q/#")
	s.routers[1].kill()
	apps[0].commanded(t, "meter-1", "accepted")
	stays.gets(t, 1)
	s.startRouter(t, 1)
	apps[1] = s.commands(t, "rhea", siteTenant, s.fronts[1])
	commanded(stays, 0, "c///q/") // and it has not subscribed again
	stays.interrupt(t)
	hears("0", "c///q/#") // and no second -1 before

	// An adapter is killed.
	lost := sensor.listens(t, s.at(0), 1, "-t", "c///q/#")
	hears("-1", "c///q/#")
	s.adapters[0].kill()
	for _, app := range apps {
		eventually(t, "it is released", func() error { return wanted("released", app.tries(t, "meter-1")) })
	}
	lost.kill()
	again := sensor.listens(t, s.at(1), 1, "-t", "command///req/#")
	hears("-1", "command///req/#") // and no 0 before
	eventually(t, "it is delivered", func() error { return wanted("accepted", apps[0].tries(t, "meter-1")) })
	again.gets(t, 1)
}
