package router_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router"
	"github.com/sluice-iot/sluice/router/command"
)

// devices knows tenants but UNKNOWN and their devices but "none", for all of which gw
// may act, and tells of subscriptions.
func devices(_ context.Context, req events.Request) (events.Reply, error) {
	switch req := req.(type) {
	case events.TenantGet:
		if req.ID != "UNKNOWN" {
			return &events.TenantGot{TenantObject: events.TenantObject{ID: req.ID, Enabled: true}, CacheFor: time.Minute}, nil
		}
	case events.RegistrationAssert:
		if req.DeviceID != "none" {
			return &events.RegistrationAsserted{Registration: events.Registration{DeviceID: req.DeviceID, Via: []iot.DeviceID{"gw"}}, CacheFor: time.Minute}, nil
		}
	case events.NotificationDerive:
		c := req.Changes[0]
		ttd := map[events.PresenceKind]int{events.Subscribed: -1}[c.Kind]
		return &events.NotificationDerived{Events: []events.PresenceFact{events.DeviceTTD{TenantID: c.TenantID, DeviceID: c.DeviceID, TTDSeconds: ttd, At: c.At}}}, nil
	}
	return nil, iot.Errorf(iot.ErrNotFound, "no such")
}

// foreigner is an adapter of Hono's: a client of the Command Router API that receives
// its commands by another connection.
type foreigner struct {
	*client
	commands *goamqp.Receiver
}

func newForeigner(t testing.TB, h *hono, instance string) *foreigner {
	t.Helper()
	f := &foreigner{client: newClient(t, h.services.session(t, "http-adapter@HONO"), "cmd_router/T", "cmd_router/T/"+instance)}
	f.attach(h, instance)
	return f
}

// attach opens the receiver for commands.
func (f *foreigner) attach(h *hono, instance string) {
	f.t.Helper()
	f.commands = receive(f.t, h, "http-adapter@HONO", "command_internal/"+instance)
}

// receive returns a receiver whose credit the router has got: what comes earlier
// may be released.
func receive(t testing.TB, h *hono, user, address string) *goamqp.Receiver {
	t.Helper()
	r, err := h.all.session(t, user).NewReceiver(t.Context(), address, &goamqp.ReceiverOptions{Credit: 200})
	if err != nil {
		t.Fatal(err)
	}
	probe, err := (&amqp.Message{Properties: &amqp.Properties{Subject: "probe"}, Data: [][]byte{{}}}).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	var send func(amqp.Raw)
	send = func(state amqp.Raw) {
		if state == nil || state.StateKind() == amqp.DescReleased && t.Context().Err() == nil {
			time.AfterFunc(time.Millisecond, func() { h.Publish(address, probe, send) })
		}
	}
	send(nil)
	m, err := r.Receive(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.AcceptMessage(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return r
}

// consumer has a device's commands routed to an instance, or no longer.
func (f *foreigner) consumer(subject, device, instance string, want int32, more map[string]any) {
	f.t.Helper()
	properties := map[string]any{"device_id": device, "adapter_instance_id": instance}
	for name, value := range more {
		properties[name] = value
	}
	if m := f.ask(subject, properties, ""); statusOf(m) != want {
		f.t.Fatalf("%s %s by %s: got %d %s, want %d", subject, device, instance, statusOf(m), m.GetData(), want)
	}
}

// order sends a command and returns what became of it, on a channel because that
// is known only when the adapter has settled it.
func order(t testing.TB, s *goamqp.Sender, device string) <-chan goamqp.DeliveryState {
	t.Helper()
	m := &goamqp.Message{Data: [][]byte{[]byte(`{"on":true}`)}, Properties: &goamqp.MessageProperties{MessageID: "m-7", To: ptr("command/T/" + device), Subject: ptr("switch"),
		ReplyTo: ptr("command_response/T/me/1"), ContentType: ptr("application/json")}, ApplicationProperties: map[string]any{"colour": "red"}}
	receipt, err := s.SendWithReceipt(t.Context(), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan goamqp.DeliveryState, 1)
	ctx := t.Context()
	go func() {
		state, _ := receipt.Wait(ctx) // nil when the test is over
		done <- state
	}()
	return done
}

func released(state goamqp.DeliveryState) bool {
	_, ok := state.(*goamqp.StateReleased)
	return ok
}

func ptr(s string) *string { return &s }

func TestForeignAdapters(t *testing.T) {
	h := serveHono(t, router.Options{Invoker: functions(devices)})
	one, two := newForeigner(t, h, "hono-http-1"), newForeigner(t, h, "hono-http-2")
	application, err := h.all.session(t, "application").NewSender(t.Context(), "command/T", nil)
	if err != nil {
		t.Fatal(err)
	}
	const register, unregister = "register-command-consumer", "unregister-command-consumer"
	if state := <-order(t, application, "d"); !released(state) {
		t.Errorf("before anybody has the device: %v", state)
	}
	// taken expects a command for d to arrive at an adapter, as Hono's command router would send it.
	taken := func(f *foreigner, device, via string) {
		t.Helper()
		done := order(t, application, device)
		m, err := f.commands.Receive(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"colour": "red"}
		if via != "" {
			want["via"] = via
		}
		if diff := cmp.Diff(want, m.ApplicationProperties); diff != "" {
			t.Errorf("application properties (-want +got):\n%s", diff)
		}
		p := m.Properties
		if p.To == nil || *p.To != "command/T/"+device || *p.Subject != "switch" || p.CorrelationID != "m-7" || *p.ReplyTo != "command_response/T/me/1" ||
			*p.ContentType != "application/json" || p.MessageID == nil || p.MessageID == "m-7" || string(m.GetData()) != `{"on":true}` {
			t.Errorf("got %+v %s", p, m.GetData())
		}
		if err := f.commands.RejectMessage(t.Context(), m, &goamqp.Error{Condition: "hono:bad-request", Description: "no such lamp"}); err != nil {
			t.Fatal(err)
		}
		if state, ok := (<-done).(*goamqp.StateRejected); !ok || state.Error == nil || state.Error.Condition != "hono:bad-request" || state.Error.Description != "no such lamp" {
			t.Errorf("the application is told %v", state)
		}
		done = order(t, application, device)
		if m, err = f.commands.Receive(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if err := f.commands.AcceptMessage(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if state, ok := (<-done).(*goamqp.StateAccepted); !ok {
			t.Errorf("accepted: %v", state)
		}
	}
	one.consumer(register, "d", "hono-http-1", 204, nil)
	taken(one, "d", "")
	two.consumer("register-cmd-consumer", "d", "hono-http-2", 204, nil)
	taken(two, "d", "")
	one.consumer(unregister, "d", "hono-http-1", 412, nil)
	two.consumer(unregister, "d", "hono-http-2", 204, nil)
	two.consumer(unregister, "d", "hono-http-2", 412, nil)
	if state := <-order(t, application, "d"); !released(state) {
		t.Errorf("when nobody has the device any more: %v", state)
	}
	one.consumer(register, "gw", "hono-http-1", 204, nil)
	taken(one, "d", "gw")
	if m := one.ask("set-last-known-gw", nil, `{"d":"gw"}`); statusOf(m) != 204 {
		t.Errorf("last gateway: %d %s", statusOf(m), m.GetData())
	}
	taken(one, "d", "gw")
	if m := one.ask("enable-command-routing", nil, `["T"]`); statusOf(m) != 204 {
		t.Errorf("enable: %d %s", statusOf(m), m.GetData())
	}
	// An adapter that has left takes nothing, and does again when it is back.
	if err := one.commands.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if state := <-order(t, application, "d"); !released(state) {
		t.Errorf("while the adapter is away: %v", state)
	}
	one.attach(h, "hono-http-1")
	taken(one, "d", "gw")
}

// TestForeignAdaptersTell has the event come before the answer.
func TestForeignAdaptersTell(t *testing.T) {
	h := serveHono(t, router.Options{Invoker: functions(devices), Addresses: []config.Address{{Pattern: "event/*", Distribution: config.Balanced}}})
	f := newForeigner(t, h, "hono-mqtt-1")
	r := receive(t, h, "application", "event/T")
	event := map[string]any{"send_event": true}
	for _, tt := range []struct {
		subject string
		ttd     int32
	}{{"register-command-consumer", -1}, {"unregister-command-consumer", 0}} {
		properties := map[string]any{"device_id": "d", "adapter_instance_id": "hono-mqtt-1", "send_event": true}
		if err := f.send(tt.subject, properties, ""); err != nil {
			t.Fatal(err)
		}
		m, err := r.Receive(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if reply := f.receiver.Prefetched(); reply != nil {
			t.Error("the answer came before the event was taken")
		}
		want := map[string]any{"device_id": "d", "qos": int32(1), "orig_adapter": "hono-mqtt-1", "ttd": tt.ttd}
		if diff := cmp.Diff(want, m.ApplicationProperties); diff != "" {
			t.Errorf("application properties (-want +got):\n%s", diff)
		}
		if p := m.Properties; *p.To != "event/T" || *p.ContentType != "application/vnd.eclipse-hono-empty-notification" || !m.Header.Durable || len(m.Data) > 0 || m.Value != nil {
			t.Errorf("got %+v %q", p, m.Data)
		}
		if err := r.AcceptMessage(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		reply, err := f.receiver.Receive(t.Context(), nil)
		if err != nil || statusOf(reply) != 204 {
			t.Fatalf("%v %v", reply, err)
		}
	}
	f.consumer("unregister-command-consumer", "d", "hono-mqtt-1", 412, event)
	if m := r.Prefetched(); m != nil {
		t.Errorf("an event for what was refused: %+v", m.ApplicationProperties)
	}
}

func TestForeignRequestsThatAreRefused(t *testing.T) {
	h := serveHono(t, router.Options{Invoker: functions(devices)})
	adapter := h.all.session(t, "http-adapter@HONO")
	unknown := newClient(t, adapter, "cmd_router/UNKNOWN", "cmd_router/UNKNOWN/1")
	properties := map[string]any{"device_id": "d", "adapter_instance_id": "a"}
	if m := unknown.ask("register-command-consumer", properties, ""); statusOf(m) != 404 || string(m.GetData()) != "no such" {
		t.Errorf("unknown tenant: %d %s", statusOf(m), m.GetData())
	}
	links := newClient(t, h.all.session(t, "links"), "cmd_router/T", "cmd_router/T/links")
	if m := links.ask("register-command-consumer", properties, ""); statusOf(m) != 403 {
		t.Errorf("without EXECUTE: %d %s", statusOf(m), m.GetData())
	}
	properties["lifespan"] = int64(5)
	known := newClient(t, adapter, "cmd_router/T", "cmd_router/T/known")
	if m := known.ask("register-command-consumer", properties, ""); statusOf(m) != 400 ||
		string(m.GetData()) != "application property lifespan is of AMQP type long: expected an int (signed, 32 bits)" {
		t.Errorf("wrong type: %d %s", statusOf(m), m.GetData())
	}
	settled := &goamqp.SenderOptions{SettlementMode: goamqp.SenderSettleModeSettled.Ptr()}
	for name, attach := range map[string]struct {
		user, source, target string
		options              *goamqp.SenderOptions
		want                 string
	}{
		"application asks":             {"application", "", "cmd_router/T", nil, "amqp:unauthorized-access"},
		"application takes commands":   {"application", "command_internal/a", "", nil, "amqp:unauthorized-access"},
		"adapter asks at most once":    {"http-adapter@HONO", "", "cmd_router/T", settled, "amqp:precondition-failed"},
		"adapter's replies without id": {"http-adapter@HONO", "cmd_router/T", "", nil, "amqp:invalid-field"},
		"requests without tenant":      {"links", "", "cmd_router", nil, "amqp:not-found"},
	} {
		x := h.all.session(t, attach.user)
		var err error
		if attach.source != "" {
			_, err = x.NewReceiver(t.Context(), attach.source, nil)
		} else {
			_, err = x.NewSender(t.Context(), attach.target, attach.options)
		}
		if got := condition(err); got != attach.want {
			t.Errorf("%s: got %q (%v), want %q", name, got, err, attach.want)
		}
	}
}

// TestReachable asks over HTTP for what foreign adapters said.
func TestReachable(t *testing.T) {
	h := serveHono(t, router.Options{Invoker: functions(devices)})
	f := newForeigner(t, h, "hono-http-1")
	f.consumer("register-command-consumer", "gw", "hono-http-1", 204, nil)
	f.consumer("register-command-consumer", "d1", "hono-http-1", 204, map[string]any{"lifespan": int32(3600)})
	f.consumer("register-command-consumer", "d2", "nobody", 204, nil)
	api := command.NewReachable(command.ReachableOptions{Directory: h.CommandDirectory(), Permit: func(*http.Request, iot.TenantID) error { return nil }})
	get := func(path string, into any) {
		t.Helper()
		w := httptest.NewRecorder()
		if api.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil)); w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			t.Fatal(err)
		}
	}
	type device struct {
		Device    string `json:"device-id"`
		Reachable *bool
		Via       string
		Adapter   string
		Since     time.Time
		Until     *time.Time
	}
	var list struct{ Result []device }
	get("/v1/reachable/T", &list)
	if r := list.Result; len(r) != 2 || r[0].Device != "d1" || r[0].Adapter != "hono-http-1" || r[0].Until == nil || r[0].Until.Sub(r[0].Since).Round(time.Minute) != time.Hour ||
		r[1].Device != "gw" || r[1].Until != nil {
		t.Errorf("got %+v", r)
	}
	var d device
	if get("/v1/reachable/T/other", &d); d.Reachable == nil || !*d.Reachable || d.Via != "gw" {
		t.Errorf("through the gateway: %+v", d)
	}
	d = device{}
	if get("/v1/reachable/T/d2", &d); d.Reachable == nil || !*d.Reachable || d.Via != "gw" {
		t.Errorf("at an adapter that is not there, and through the gateway: %+v", d)
	}
	f.consumer("unregister-command-consumer", "gw", "hono-http-1", 204, nil)
	d = device{}
	if get("/v1/reachable/T/d2", &d); d.Reachable == nil || *d.Reachable {
		t.Errorf("at an adapter that is not there: %+v", d)
	}
}
