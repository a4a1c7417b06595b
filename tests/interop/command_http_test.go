package interop_test

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// waiter is curl that waits for a command.
type waiter struct{ *child }

// waits starts an upload that waits; whoever gets it knows that the device can be reached.
func (q request) waits(t *testing.T, p *plant) *waiter {
	t.Helper()
	args, body := q.line(p)
	w := &waiter{startChild(t, "curl "+q.target, exec.Command("curl", args...), nil)}
	if _, err := io.WriteString(w.stdin, body); err != nil {
		t.Fatal(err)
	}
	w.stdin.Close()
	return w
}

// answered is what came of the upload.
func (w *waiter) answered(t *testing.T) reply {
	t.Helper()
	err := w.wait(t)
	if err == nil {
		var r reply
		if r, err = parseReply([]byte(w.stdout.String())); err == nil {
			return r
		}
	}
	t.Fatalf("%s: %v", w.name, err)
	return reply{}
}

// gets expects a command, and returns its request id; target is the device that it
// is for when it is for one of a gateway.
func (w *waiter) gets(t *testing.T, name, target, contentType, body string) (id string) {
	t.Helper()
	r := w.answered(t)
	got := []string{r.header.Get("hono-command"), r.header.Get("hono-cmd-target-device"), r.header.Get("Content-Type"), r.body}
	want := []string{name, target, contentType, body}
	for i := range want {
		if r.status != http.StatusOK || got[i] != want[i] {
			t.Fatalf("answered %d %q; want 200 with %q", r.status, got, want)
		}
	}
	return r.header.Get("hono-cmd-req-id")
}

// reachableFor expects that an application hears of a device, and for how many
// seconds it waits.
func reachableFor(t *testing.T, uploads *peer, device string, ttd float64) {
	t.Helper()
	e := uploads.await(t, "message")
	if got, _ := e.Properties["ttd"].(float64); string(e.Body) != "22.5" || e.Properties["device_id"] != device || got != ttd {
		t.Fatalf("%s got %q of %v with a ttd of %v; want %q of %s with %v", uploads.name, e.Body, e.Properties["device_id"], e.Properties["ttd"], "22.5", device, ttd)
	}
}

// TestCommandsOverHTTP has curl wait in every way, and answer.
func TestCommandsOverHTTP(t *testing.T) {
	needCurl(t)
	p := startPlant(t, "")
	apps := p.everyKind(t, acme)
	uploads := map[string]*peer{}
	for _, kind := range []string{"telemetry", "event"} {
		o := p.app(kind + "/" + acme)
		uploads[kind] = startReceiver(t, "rhea", o)
	}
	sensor, gateway := "sensor-1@"+acme, "gw-1@"+acme
	for i, tt := range []struct {
		name string
		request
		from   string // the device that is told of
		ttd    float64
		device string // the command's
		told   string // the device, as it is told; "" = itself
		answer request
	}{
		{"query", request{target: "/telemetry?hono-ttd=30", user: sensor}, "meter-1", 30, "meter-1", "", request{target: "/command/res/"}},
		{"header", request{header: []string{"hono-ttd: 31"}, user: sensor}, "meter-1", 31, "meter-1", "", request{target: "/command/res/"}},
		{"header before query", request{target: "/telemetry?hono-ttd=30", header: []string{"Hono-TTD: 20"}, user: sensor}, "meter-1", 20, "meter-1", "", request{target: "/command/res/"}},
		{"QoS 1", request{header: []string{"hono-ttd: 31", "QoS-Level: 1"}, user: sensor}, "meter-1", 31, "meter-1", "", request{target: "/command/res/"}},
		{"longer than allowed", request{target: "/telemetry?hono-ttd=3600", user: sensor}, "meter-1", 60, "meter-1", "", request{target: "/command/res/"}},
		{"event", request{target: "/event?hono-ttd=30", user: sensor}, "meter-1", 30, "meter-1", "", request{target: "/command/res/"}},
		{"HTTP/2", request{target: "/telemetry?hono-ttd=30", user: sensor, secure: true, args: []string{"--http2"}}, "meter-1", 30, "meter-1", "", request{target: "/command/res/", secure: true}},
		{"device by its own URI", request{method: "PUT", target: "/telemetry//meter-1?hono-ttd=30", user: sensor}, "meter-1", 30, "meter-1", "", request{method: "PUT", target: "/command/res//meter-1/"}},
		{"gateway for itself", request{target: "/telemetry?hono-ttd=30", user: gateway}, "gw-1", 30, "gw-1", "", request{target: "/command/res/"}},
		{"gateway for one of its devices", request{target: "/telemetry?hono-ttd=30", user: gateway}, "gw-1", 30, "meter-2", "meter-2", request{method: "PUT", target: "/command/res/" + acme + "/meter-2/"}},
		{"gateway for a device", request{method: "PUT", target: "/telemetry//meter:3?hono-ttd=30", user: gateway}, "meter:3", 30, "meter:3", "meter:3", request{method: "PUT", target: "/command/res//meter:3/"}},
		{"gateway for a device, event", request{method: "PUT", target: "/event/" + acme + "/meter-2", header: []string{"hono-ttd: 30"}, user: gateway}, "meter-2", 30, "meter-2", "meter-2", request{method: "PUT", target: "/command/res//meter-2/"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			app := apps[kinds[i%len(kinds)]]
			endpoint := "telemetry"
			if strings.HasPrefix(tt.request.target, "/event") {
				endpoint = "event"
			}
			w := tt.waits(t, p)
			reachableFor(t, uploads[endpoint], tt.from, tt.ttd)
			app.sends(t, tt.device, outgoing{ReplyTo: "answers", Body: []byte(`{"brightness": 80}`), ContentType: "application/json"})
			app.hears(t, "accepted")
			id := w.gets(t, "setBrightness", tt.told, "application/json", `{"brightness": 80}`)
			if tt.answer.method == "" {
				tt.answer.method = http.MethodPost
			}
			tt.answer.user, tt.answer.body, tt.answer.header = tt.user, "done", []string{"hono-cmd-status: 207"}
			tt.answer.target += id
			tt.answer.curl(t, p).accepted(t)
			app.answered(t, tt.device, "207", textPlain, "done")

			w = tt.waits(t, p)
			reachableFor(t, uploads[endpoint], tt.from, tt.ttd)
			app.sends(t, tt.device, outgoing{Subject: "blink"})
			app.hears(t, "accepted")
			if id = w.gets(t, "blink", tt.told, "", ""); id != "" {
				t.Errorf("the one-way command has the request id %q", id)
			}
		})
	}
	httpWindows(t, p, apps["go-amqp"], uploads["telemetry"])
	httpAnswers(t, p, apps["go-amqp"], uploads["telemetry"])
}

// httpWindows looks at when a waiting device gets no command.
func httpWindows(t *testing.T, p *plant, app *commander, uploads *peer) {
	t.Helper()
	sensor := request{user: "sensor-1@" + acme}
	t.Run("no command comes", func(t *testing.T) {
		r := sensor
		r.target = "/telemetry?hono-ttd=1"
		r.curl(t, p).accepted(t)
		reachableFor(t, uploads, "meter-1", 1)
		app.commanded(t, "meter-1", "released")
	})
	for _, ttd := range []string{"0", "-1", "soon", ""} {
		t.Run("a ttd of "+ttd, func(t *testing.T) {
			r := sensor
			r.header = []string{"hono-ttd: " + ttd}
			r.curl(t, p).accepted(t)
			if e := uploads.await(t, "message"); e.Properties["ttd"] != nil {
				t.Errorf("the application is told a ttd of %v", e.Properties["ttd"])
			}
			app.commanded(t, "meter-1", "released")
		})
	}
	t.Run("two at a time", func(t *testing.T) {
		earlier, later := sensor, sensor
		earlier.target, later.target = "/telemetry?hono-ttd=2", "/telemetry?hono-ttd=60"
		first := earlier.waits(t, p)
		reachableFor(t, uploads, "meter-1", 2)
		second := later.waits(t, p)
		reachableFor(t, uploads, "meter-1", 60)
		app.commanded(t, "meter-1", "accepted")
		second.gets(t, "blink", "", "", "")
		first.answered(t).accepted(t)
	})
	t.Run("one command for each", func(t *testing.T) {
		r := sensor
		r.target = "/telemetry?hono-ttd=60"
		w := r.waits(t, p)
		reachableFor(t, uploads, "meter-1", 60)
		states := map[string]int{}
		for range 3 {
			app.sends(t, "meter-1", outgoing{Subject: "blink"})
		}
		for range 3 {
			states[app.sender.await(t, "outcome").State]++
		}
		if states["accepted"] != 1 || states["released"] != 2 {
			t.Errorf("three commands for one request: %v", states)
		}
		w.gets(t, "blink", "", "", "")
	})
	t.Run("the device hangs up", func(t *testing.T) {
		r := sensor
		r.target = "/telemetry?hono-ttd=60"
		w := r.waits(t, p)
		reachableFor(t, uploads, "meter-1", 60)
		w.kill()
		eventually(t, "it is not waited for", func() error {
			return wanted("released", app.tries(t, "meter-1"))
		})
	})
}

// wanted compares an outcome.
func wanted(want, got string) error {
	if got != want {
		return fmt.Errorf("%s; want %s", got, want)
	}
	return nil
}

// tries sends a one-way command and returns its outcome.
func (c *commander) tries(t *testing.T, device string) string {
	t.Helper()
	c.sends(t, device, outgoing{Subject: "blink"})
	return c.sender.await(t, "outcome").State
}

// httpAnswers looks at answers that nobody takes.
func httpAnswers(t *testing.T, p *plant, app *commander, uploads *peer) {
	t.Helper()
	sensor, gateway := "sensor-1@"+acme, "gw-1@"+acme
	w := request{user: sensor, target: "/telemetry?hono-ttd=60"}.waits(t, p)
	reachableFor(t, uploads, "meter-1", 60)
	app.sends(t, "meter-1", outgoing{ReplyTo: "command_response/" + acme + "/nobody", CorrelationID: "1"})
	app.hears(t, "accepted")
	id := w.gets(t, "setBrightness", "", "", "")
	const ok = "hono-cmd-status: 200"
	for _, tt := range []struct {
		name string
		request
		status int
	}{
		{"nobody waits for it", request{user: sensor, target: id, header: []string{ok}}, 503},
		{"no status", request{user: sensor, target: id}, 400},
		{"status of no kind", request{user: sensor, target: id + "?hono-cmd-status=good"}, 400},
		{"status 100", request{user: sensor, target: id, header: []string{"hono-cmd-status: 100"}}, 400},
		{"status 300", request{user: sensor, target: id, header: []string{"hono-cmd-status: 300"}}, 400},
		{"status 600", request{user: sensor, target: id, header: []string{"hono-cmd-status: 600"}}, 400},
		{"request id without an end", request{user: sensor, target: "0ff1", header: []string{ok}}, 400},
		{"request id of no kind", request{user: sensor, target: "nonsense", header: []string{ok}}, 400},
		{"no request id", request{user: sensor, target: "", header: []string{ok}}, 404},
		{"a device of no gateway", request{method: "PUT", user: gateway, target: "/meter-1/" + id, header: []string{ok}}, 403},
		{"another tenant", request{method: "PUT", user: sensor, target: other + "/meter-1/" + id, header: []string{ok}}, 403},
		{"unknown device", request{method: "PUT", user: gateway, target: "/nobody/" + id, header: []string{ok}}, 404},
		{"who is it", request{target: id, header: []string{ok}}, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.target = "/command/res/" + tt.target
			r := tt.curl(t, p)
			if r.says(t, tt.status, ""); r.header.Get("Retry-After") != "" {
				t.Errorf("%d with Retry-After", r.status)
			}
		})
	}
}
