package interop_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestCommandsToAForeignAdapter has adapters of others, known by Hono's
// permissions.json, say by the Command Router API whose commands they take.
func TestCommandsToAForeignAdapter(t *testing.T) {
	s := startServices(t)
	s.manage(t, http.MethodPost, "tenants/ACME", "{}", 201)
	for device, body := range map[string]string{"meter-1": "{}", "meter-2": `{"via": ["gw-1", "gw-2"]}`, "gw-1": "{}", "gw-2": "{}"} {
		s.manage(t, http.MethodPost, "devices/ACME/"+device, body, 201)
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			needPeer(t, kind)
			f := &foreign{caller: caller{kind, s.northbound, "mqtt-adapter@HONO", "mqtt-secret"}, instance: kind + "-adapter-1"}
			f.commands = startReceiver(t, kind, f.link("command_internal/"+f.instance))
			app := newCommander(t, kind, "ACME", linkOptions{addr: s.northbound, user: "consumer@HONO", password: "verysecret"})
			f.tells(t)
			app.commanded(t, "meter-1", "released")
			f.asks(t, "register-command-consumer", "meter-1", 204)
			f.outcomes(t, app)
			f.answers(t, kind, app)

			// A gateway stands in for its device, the one that acted last.
			f.asks(t, "register-cmd-consumer", "gw-1", 204)
			f.asks(t, "register-command-consumer", "gw-2", 204)
			for _, gateway := range []string{"gw-2", "gw-1"} {
				f.asks(t, "set-last-known-gw", "meter-2", 204, "gateway_id", gateway)
				app.commanded(t, "meter-2", "accepted")
				if got := f.commands.await(t, "message"); got.Properties["via"] != gateway || got.To != "command/ACME/meter-2" {
					t.Errorf("got %+v; want it by %s", got, gateway)
				}
			}
			for _, device := range []string{"gw-1", "gw-2", "meter-1"} {
				f.asks(t, "unregister-command-consumer", device, 204)
				f.asks(t, "unregister-command-consumer", device, 412)
			}
			for _, device := range []string{"meter-1", "meter-2"} {
				app.commanded(t, device, "released")
			}
		})
	}
}

// foreign is an adapter that nobody here wrote.
type foreign struct {
	caller
	instance string
	commands *peer
	asked    int
}

// reply is where the answer to the next request goes: each has a connection of its own.
func (f *foreign) reply(tenant string) string {
	f.asked++
	return fmt.Sprintf("cmd_router/%s/%s-%d", tenant, f.instance, f.asked)
}

func (f *foreign) link(address string) linkOptions {
	return linkOptions{addr: f.addr, user: f.user, password: f.password, address: address}
}

// asks makes a request of the Command Router API; more is further properties.
func (f *foreign) asks(t *testing.T, subject, device string, want float64, more ...string) {
	t.Helper()
	properties := map[string]string{"device_id": device, "adapter_instance_id": f.instance}
	for i := 0; i < len(more); i += 2 {
		properties[more[i]] = more[i+1]
	}
	got := f.caller.asks(t, []ask{{Target: "cmd_router/ACME", ReplyTo: f.reply("ACME"), Subject: subject, Properties: properties}})
	if len(got) != 1 || got[0].Status != want || !got[0].Correlated {
		t.Errorf("%s of %s: %+v; want %v", subject, device, got, want)
	}
}

// tells looks at requests that are none.
func (f *foreign) tells(t *testing.T) {
	t.Helper()
	none := map[string]string{"device_id": "meter-1"}
	requests := []ask{
		{Target: "cmd_router/ACME", ReplyTo: f.reply("ACME"), Subject: "register-command-consumer", Properties: none},
		{Target: "cmd_router/ACME", ReplyTo: f.reply("ACME"), Subject: "unregister-command-consumer"},
		{Target: "cmd_router/ACME", ReplyTo: f.reply("ACME"), Subject: "what-is-this", Properties: none},
		{Target: "cmd_router/ACME", ReplyTo: f.reply("ACME"), Subject: "enable-command-routing", Body: `["ACME"]`},
		{Target: "cmd_router/NOWHERE", ReplyTo: f.reply("NOWHERE"), Subject: "register-command-consumer",
			Properties: map[string]string{"device_id": "meter-1", "adapter_instance_id": f.instance}},
	}
	for i, want := range []float64{400, 400, 400, 204, 404} {
		if got := f.caller.asks(t, requests[i:i+1]); len(got) != 1 || got[0].Status != want {
			t.Errorf("%s of %s: %+v; want %v", requests[i].Subject, requests[i].Target, got, want)
		}
	}
}

// outcomes has the adapter give every outcome, which is the application's.
func (f *foreign) outcomes(t *testing.T, app *commander) {
	t.Helper()
	for _, outcome := range []string{"accepted", "rejected", "released", "modified:failed", "modified:undeliverable", "modified:failed:undeliverable"} {
		app.sends(t, "meter-1", outgoing{Subject: outcome, Body: []byte("50")})
		got := f.commands.await(t, "message")
		if got.Subject != outcome || string(got.Body) != "50" || got.To != "command/ACME/meter-1" || got.Properties["via"] != nil ||
			got.MessageID == "" || fmt.Sprint(got.Properties["number"]) != fmt.Sprint(app.sent) || got.Annotations["x-opt-note"] != "kept" || len(got.DeliveryAnnotations) != 0 {
			t.Errorf("the adapter got %+v", got)
		}
		state, flags, _ := strings.Cut(outcome, ":")
		e := app.hears(t, state)
		if e.DeliveryFailed != strings.Contains(flags, "failed") || e.UndeliverableHere != strings.Contains(flags, "undeliverable") ||
			state == "rejected" && (e.Condition != "test:refused" || e.Description != "as the subject asked") {
			t.Errorf("of %s the application hears %+v", outcome, e)
		}
	}
}

// answers has the adapter answer a command.
func (f *foreign) answers(t *testing.T, kind string, app *commander) {
	t.Helper()
	app.sends(t, "meter-1", outgoing{Subject: "accepted", ReplyTo: "answers"})
	app.hears(t, "accepted")
	got := f.commands.await(t, "message")
	if got.CorrelationID != app.correlation() || got.ReplyTo != "command_response/ACME/"+app.reply {
		t.Errorf("the adapter got %+v", got)
	}
	response := startSender(t, kind, f.link(got.ReplyTo))
	response.mustSend(t, outgoing{ID: 1, To: got.ReplyTo, CorrelationID: got.CorrelationID, Body: []byte("done")})
	if e := app.answers.await(t, "message"); string(e.Body) != "done" || e.CorrelationID != app.correlation() {
		t.Errorf("the application got %+v", e)
	}
	if e := response.await(t, "outcome"); e.State != "accepted" {
		t.Errorf("the response is %+v", e)
	}
}
