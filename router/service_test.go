package router_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	goamqp "github.com/Azure/go-amqp"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router"
)

// permissions are the identities of Hono's integration tests that matter here.
const permissions = `{
  "roles": {
    "protocol-adapter": [
      {"resource": "telemetry/*", "activities": ["WRITE"]}, {"resource": "event/*", "activities": ["WRITE"]},
      {"resource": "registration/*", "activities": ["READ", "WRITE"]}, {"operation": "registration/*:*", "activities": ["EXECUTE"]},
      {"resource": "credentials/*", "activities": ["READ", "WRITE"]}, {"operation": "credentials/*:*", "activities": ["EXECUTE"]},
      {"resource": "tenant", "activities": ["READ", "WRITE"]}, {"operation": "tenant/*:*", "activities": ["EXECUTE"]},
      {"resource": "cmd_router/*", "activities": ["READ", "WRITE"]}, {"operation": "cmd_router/*:*", "activities": ["EXECUTE"]},
      {"resource": "command_internal/*", "activities": ["READ"]}],
    "application": [
      {"resource": "telemetry/*", "activities": ["READ"]}, {"resource": "event/*", "activities": ["READ"]},
      {"resource": "command_response/*", "activities": ["READ"]}, {"resource": "command/*", "activities": ["WRITE"]}],
    "single": [
      {"resource": "tenant", "activities": ["READ", "WRITE"]}, {"operation": "tenant/DEFAULT_TENANT:*", "activities": ["EXECUTE"]},
      {"resource": "registration/DEFAULT_TENANT", "activities": ["READ", "WRITE"]}, {"operation": "registration/DEFAULT_TENANT:assert", "activities": ["EXECUTE"]}],
    "links-only": [{"resource": "*", "activities": ["READ", "WRITE"]}]
  },
  "users": {
    "http-adapter@HONO": {"mechanism": "PLAIN", "password": "secret", "authorities": ["hono-component", "protocol-adapter"]},
    "hono-client": {"mechanism": "PLAIN", "password": "secret", "authorities": ["single"]},
    "application": {"mechanism": "PLAIN", "password": "secret", "authorities": ["application"]},
    "links": {"mechanism": "PLAIN", "password": "secret", "authorities": ["links-only"]},
    "nobody": {"mechanism": "PLAIN", "password": "secret", "authorities": []}
  }
}`

// functions answer calls in place of the real ones.
type functions func(context.Context, events.Request) (events.Reply, error)

func (f functions) Invoke(ctx context.Context, req events.Request) (events.Reply, error) {
	return f(ctx, req)
}

// registry knows every tenant and device.
func registry(_ context.Context, req events.Request) (events.Reply, error) {
	switch req := req.(type) {
	case events.TenantGet:
		return &events.TenantGot{TenantObject: events.TenantObject{ID: req.ID, Enabled: true}}, nil
	case events.RegistrationAssert:
		return &events.RegistrationAsserted{Registration: events.Registration{DeviceID: req.DeviceID}}, nil
	}
	return nil, iot.Errorf(iot.ErrNotFound, "no such")
}

// hono is a router for the identities of permissions, with a listener of every scope.
type hono struct {
	*router.Router
	all, services, tokens served
}

func serveHono(t testing.TB, o router.Options) *hono {
	t.Helper()
	path := filepath.Join(t.TempDir(), "permissions.json")
	if err := os.WriteFile(path, []byte(permissions), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := auth.Open(path, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o.Name, o.Directory = "r", dir
	h := &hono{Router: router.New(o)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { h.Run(ctx) })
	for scope, s := range map[router.Scope]*served{router.ScopeAll: &h.all, router.ScopeServices: &h.services, router.ScopeTokens: &h.tokens} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*s = served{Router: h.Router, addr: ln.Addr().String(), path: path, dir: dir}
		wg.Go(func() { h.Serve(ctx, router.Listener{Listener: ln, Scope: scope}) })
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return h
}

// client asks one service.
type client struct {
	t        testing.TB
	sender   *goamqp.Sender
	receiver *goamqp.Receiver
	replyTo  string
	ids      atomic.Int64
}

func newClient(t testing.TB, x *goamqp.Session, target, replyTo string) *client {
	t.Helper()
	r, err := x.NewReceiver(t.Context(), replyTo, &goamqp.ReceiverOptions{Credit: 200, DynamicAddress: replyTo == ""})
	if err != nil {
		t.Fatal(err)
	}
	s, err := x.NewSender(t.Context(), target, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &client{t: t, sender: s, receiver: r, replyTo: r.Address()}
}

func (c *client) message(subject string, properties map[string]any, body string) *goamqp.Message {
	id := fmt.Sprint(c.ids.Add(1))
	m := &goamqp.Message{Properties: &goamqp.MessageProperties{MessageID: id, Subject: &subject, ReplyTo: &c.replyTo}, ApplicationProperties: properties}
	if body != "" {
		m.Data = [][]byte{[]byte(body)}
	}
	return m
}

// send waits for the outcome of the request.
func (c *client) send(subject string, properties map[string]any, body string) error {
	return c.sender.Send(c.t.Context(), c.message(subject, properties, body), nil)
}

func (c *client) ask(subject string, properties map[string]any, body string) *goamqp.Message {
	c.t.Helper()
	if err := c.send(subject, properties, body); err != nil {
		c.t.Fatal(err)
	}
	m, err := c.receiver.Receive(c.t.Context(), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.receiver.AcceptMessage(c.t.Context(), m); err != nil {
		c.t.Fatal(err)
	}
	return m
}

func statusOf(m *goamqp.Message) int32 {
	code, _ := m.ApplicationProperties["status"].(int32)
	return code
}

func TestServices(t *testing.T) {
	h := serveHono(t, router.Options{Invoker: functions(registry)})
	for name, s := range map[string]*served{"northbound": &h.all, "registry": &h.services} {
		t.Run(name, func(t *testing.T) {
			x := s.session(t, "http-adapter@HONO")
			tenants := newClient(t, x, "tenant", "tenant/"+name)
			if m := tenants.ask("get", nil, `{"tenant-id":"T"}`); statusOf(m) != 200 || string(m.GetData()) != `{"tenant-id":"T","enabled":true}` ||
				m.Properties.CorrelationID != "1" || *m.Properties.ContentType != "application/json" {
				t.Errorf("tenant: %+v %s", m.ApplicationProperties, m.GetData())
			}
			devices := newClient(t, x, "registration/T", "registration/T/"+name)
			if m := devices.ask("assert", map[string]any{"device_id": "d"}, ""); statusOf(m) != 200 || m.ApplicationProperties["cache_control"] != "max-age = 300" {
				t.Errorf("registration: %+v %s", m.ApplicationProperties, m.GetData())
			}
			credentials := newClient(t, x, "credentials/T", "credentials/T/"+name)
			if m := credentials.ask("get", nil, `{"type":"psk","auth-id":"a"}`); statusOf(m) != 404 || string(m.GetData()) != "no such" {
				t.Errorf("credentials: %+v %s", m.ApplicationProperties, m.GetData())
			}
			one := newClient(t, s.session(t, "hono-client"), "tenant", "tenant/one-"+name)
			for id, want := range map[string]int32{"DEFAULT_TENANT": 200, "OTHER": 403} {
				if m := one.ask("get", nil, `{"tenant-id":"`+id+`"}`); statusOf(m) != want {
					t.Errorf("%s: got %d, want %d", id, statusOf(m), want)
				}
			}
			links := newClient(t, s.session(t, "links"), "registration/T", "registration/T/links-"+name)
			if m := links.ask("assert", map[string]any{"device_id": "d"}, ""); statusOf(m) != 403 {
				t.Errorf("without EXECUTE: got %d", statusOf(m))
			}
		})
	}
	dynamic := newClient(t, h.all.session(t, "http-adapter@HONO"), "tenant", "")
	if m := dynamic.ask("get", nil, `{"tenant-id":"T"}`); statusOf(m) != 200 {
		t.Errorf("dynamic reply address: %d", statusOf(m))
	}
}

func TestServiceLinksThatAreRefused(t *testing.T) {
	h := serveHono(t, router.Options{Invoker: functions(registry)})
	settled := &goamqp.SenderOptions{SettlementMode: goamqp.SenderSettleModeSettled.Ptr()}
	for _, tt := range []struct {
		name           string
		listener       *served
		user           string
		source, target string
		options        *goamqp.SenderOptions
		want           string
	}{
		{"tenant replies without an id", &h.all, "http-adapter@HONO", "tenant", "", nil, "amqp:invalid-field"},
		{"registration replies without an id", &h.all, "http-adapter@HONO", "registration/T", "", nil, "amqp:invalid-field"},
		{"registration replies with an empty id", &h.all, "http-adapter@HONO", "registration/T/", "", nil, "amqp:invalid-field"},
		{"tenant requests at most once", &h.all, "http-adapter@HONO", "", "tenant", settled, "amqp:precondition-failed"},
		{"credentials requests at most once", &h.services, "http-adapter@HONO", "", "credentials/T", settled, "amqp:precondition-failed"},
		{"requests to a tenant's tenant", &h.all, "http-adapter@HONO", "", "tenant/T", nil, "amqp:not-found"},
		{"requests without tenant", &h.all, "links", "", "registration", nil, "amqp:not-found"},
		{"requests to a reply address", &h.all, "http-adapter@HONO", "", "registration/T/r", nil, "amqp:not-found"},
		{"requests not granted", &h.all, "nobody", "", "tenant", nil, "amqp:unauthorized-access"},
		{"replies not granted", &h.all, "nobody", "tenant/r", "", nil, "amqp:unauthorized-access"},
		{"another tenant", &h.all, "hono-client", "", "registration/OTHER", nil, "amqp:unauthorized-access"},
		{"another service", &h.all, "links", "", "device_con/T", nil, "amqp:not-found"},
		{"telemetry on a listener for services", &h.services, "links", "telemetry/T", "", nil, "amqp:not-found"},
		{"management on a listener for services", &h.services, "links", "", "$management", nil, "amqp:not-found"},
		{"no address on a listener for services", &h.services, "links", "", "", nil, "amqp:not-allowed"},
		{"cbs without tokens", &h.all, "links", "cbs", "", nil, "amqp:not-found"},
		{"services on a listener for tokens", &h.tokens, "http-adapter@HONO", "", "tenant", nil, "amqp:not-found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := tt.listener.session(t, tt.user)
			var err error
			if tt.source != "" {
				_, err = x.NewReceiver(t.Context(), tt.source, nil)
			} else {
				_, err = x.NewSender(t.Context(), tt.target, tt.options)
			}
			if got := condition(err); got != tt.want {
				t.Errorf("got %q (%v), want %q", got, err, tt.want)
			}
		})
	}
}

func TestAReplyAddressHasOneReceiver(t *testing.T) {
	h := serveHono(t, router.Options{Invoker: functions(registry)})
	first := h.all.session(t, "http-adapter@HONO")
	r, err := first.NewReceiver(t.Context(), "tenant/mine", nil)
	if err != nil {
		t.Fatal(err)
	}
	second := h.services.session(t, "hono-client")
	for _, x := range []*goamqp.Session{first, second} {
		if _, err := x.NewReceiver(t.Context(), "tenant/mine", nil); condition(err) != "amqp:illegal-state" {
			t.Errorf("second receiver: got %v", err)
		}
	}
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := second.NewReceiver(t.Context(), "tenant/mine", nil); err != nil {
		t.Errorf("after the first has left: %v", err)
	}
}

func TestRequestsThatGetNoReply(t *testing.T) {
	h := serveHono(t, router.Options{Invoker: functions(func(context.Context, events.Request) (events.Reply, error) {
		t.Error("a function was called")
		return nil, iot.ErrNotFound
	})})
	x := h.all.session(t, "http-adapter@HONO")
	c := newClient(t, x, "registration/T", "registration/T/r")
	for range 250 { // more than there is credit: each is given back
		if err := c.send("", nil, ""); condition(err) != "hono:bad-request" {
			t.Fatalf("malformed: got %v", err)
		}
	}
	c.replyTo = "registration/T/elsewhere"
	if _, err := h.all.session(t, "http-adapter@HONO").NewReceiver(t.Context(), c.replyTo, nil); err != nil {
		t.Fatal(err)
	}
	for range 250 {
		if err := c.send("assert", map[string]any{"device_id": "d"}, ""); err != nil {
			t.Fatalf("reply link of another connection: got %v", err)
		}
	}
}

// TestManyRequestsAtOnce keeps more requests in flight than there is credit, from
// several connections, and wants each answered once.
func TestManyRequestsAtOnce(t *testing.T) {
	h := serveHono(t, router.Options{Invoker: functions(registry)})
	const conns, each = 4, 400
	var wg sync.WaitGroup
	for k := range conns {
		wg.Go(func() {
			c := newClient(t, h.all.session(t, "http-adapter@HONO"), "registration/T", fmt.Sprintf("registration/T/%d", k))
			wg.Go(func() {
				for i := range each {
					if err := c.send("assert", map[string]any{"device_id": fmt.Sprint(i)}, ""); err != nil {
						t.Error(err)
						return
					}
				}
			})
			seen := map[any]bool{}
			for range each {
				m, err := c.receiver.Receive(t.Context(), nil)
				if err != nil {
					t.Error(err)
					return
				}
				c.receiver.AcceptMessage(t.Context(), m)
				if id := m.Properties.CorrelationID; seen[id] || statusOf(m) != 200 {
					t.Errorf("reply %v again, or status %d", id, statusOf(m))
				} else {
					seen[id] = true
				}
			}
		})
	}
	wg.Wait()
}

func TestRequestsInFlightEndWithTheRouter(t *testing.T) {
	asked := make(chan struct{}, 1)
	var ended atomic.Bool
	h := serveHono(t, router.Options{Invoker: functions(func(ctx context.Context, _ events.Request) (events.Reply, error) {
		asked <- struct{}{}
		<-ctx.Done()
		ended.Store(true)
		return nil, ctx.Err()
	})})
	c := newClient(t, h.all.session(t, "http-adapter@HONO"), "tenant", "tenant/r")
	if err := c.send("get", nil, `{"tenant-id":"T"}`); err != nil {
		t.Fatal(err)
	}
	<-asked
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // there is no time left
	h.Shutdown(ctx)
	if !ended.Load() {
		t.Error("the call outlived Shutdown")
	}
}

// BenchmarkService is a request of a client on loopback and its answer, one at a
// time and a hundred in flight, with a function that costs nothing.
func BenchmarkService(b *testing.B) {
	for _, flying := range []int{1, 100} {
		b.Run(fmt.Sprintf("%d in flight", flying), func(b *testing.B) {
			h := serveHono(b, router.Options{Invoker: functions(registry)})
			c := newClient(b, h.all.session(b, "http-adapter@HONO"), "registration/T", "registration/T/bench")
			turns := make(chan struct{}, flying)
			var wg sync.WaitGroup
			b.ResetTimer()
			wg.Go(func() {
				for range b.N {
					turns <- struct{}{}
					if _, err := c.sender.SendWithReceipt(b.Context(), c.message("assert", map[string]any{"device_id": "d"}, ""), nil); err != nil {
						b.Error(err)
						return
					}
				}
			})
			for range b.N {
				m, err := c.receiver.Receive(b.Context(), nil)
				if err != nil {
					b.Fatal(err)
				}
				if err := c.receiver.AcceptMessage(b.Context(), m); err != nil {
					b.Fatal(err)
				}
				<-turns
			}
			wg.Wait()
		})
	}
}
