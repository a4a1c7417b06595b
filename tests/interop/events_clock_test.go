package interop_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/sqlitestore"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/listen"
	"github.com/sluice-iot/sluice/router"
	"github.com/sluice-iot/sluice/router/stored"
)

// clock is one that the test turns on.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time         { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) turnOn(d time.Duration) { c.ahead.Add(int64(d)) }

// startClocked starts functions and adapter as processes, and between them, in this
// process, a router whose events have the given clock.
func startClocked(t *testing.T, c *clock) (*three, *eventstore.Log) {
	t.Helper()
	s := newThree(t)
	s.app.address = "event/ACME"
	certs := exec.Command(program(t), "certs", "--out", filepath.Join(s.dir, "certs"), "adapter/http-0", "router/router-0", "function/identity-0")
	if out, err := certs.CombinedOutput(); err != nil {
		t.Fatalf("certs: %v\n%s", err, out)
	}
	identities := writeFile(t, filepath.Join(s.dir, "identities.yaml"), fmt.Sprintf(`identities:
  - name: %s
    secret: "{plain}%s"
    assertions: optional
    authorities:
      - {address: "event/*", may: [read]}
operators:
  - {name: %s, secret: "{plain}%s", scopes: [{tenant: "*", may: [read, write]}]}
`, s.app.user, s.app.password, s.operator, s.operatorPassword))
	s.function = s.startPart(t, []string{"function", "identity"}, "function-identity-0", identities, fmt.Sprintf(`listeners:
  - {role: function, address: %q, tls: {}}
  - {role: management, address: %q}
`, s.functions, s.management))
	s.function.awaitListener(t, s.functions)
	s.function.awaitListener(t, s.management)
	log := s.serveRouter(t, identities, c)
	s.adapter = s.startPart(t, []string{"adapter", "http"}, "adapter-http-0", identities, fmt.Sprintf(`listeners:
  - {role: adapter/http, address: %q}
routers: ["amqps://%s"]
functions: {identity: "https://%s"}
send-timeout: %s
`, s.device, s.internal, s.functions, patience/2)) // one that is given up is stored none the less
	s.adapter.awaitListener(t, s.device)
	return s, log
}

// serveRouter runs the router until the test ends.
func (s *three) serveRouter(t *testing.T, identities string, c *clock) *eventstore.Log {
	t.Helper()
	directory, err := auth.Open(identities, auth.Options{AllowPlain: true})
	if err != nil {
		t.Fatal(err)
	}
	store, err := sqlitestore.Open(t.Context(), filepath.Join(s.dir, "events.db"), sqlitestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	certs := filepath.Join(s.dir, "certs")
	conf, err := listen.ServerTLS(listen.Files{Certificate: filepath.Join(certs, "router-router-0.crt"), Key: filepath.Join(certs, "router-router-0.key"),
		CA: filepath.Join(certs, "ca.crt")}, listen.ServerOptions{RequireClient: true})
	if err != nil {
		t.Fatal(err)
	}
	log := eventstore.New(store, eventstore.Options{Now: c.now})
	r := router.New(router.Options{Name: "sluice.local", Directory: directory, Events: &stored.Options{Log: log, Now: c.now}})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	for _, l := range []router.Listener{{Listener: listenOn(t, s.internal), TLS: conf, Components: true}, {Listener: listenOn(t, s.northbound)}} {
		running.Go(func() { _ = r.Serve(ctx, l) })
	}
	t.Cleanup(func() {
		grace, end := context.WithTimeout(context.Background(), stopsWithin)
		defer end()
		r.Shutdown(grace)
		cancel()
		running.Wait()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return log
}

func listenOn(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// sendEvent uploads an event; ttl is in seconds, 0 = the header is not there.
func sendEvent(t *testing.T, addr, user, password string, ttl int, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/event", nil)
	if err != nil {
		t.Fatal(err)
	}
	if ttl > 0 {
		req.Header.Set("hono-ttl", strconv.Itoa(ttl))
	}
	got, err := send(req, user, password, "text/plain", []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// waiting is how many events of a tenant the store has.
func waiting(t *testing.T, log *eventstore.Log, tenant string) int64 {
	t.Helper()
	stats, err := log.Stats(t.Context(), iot.TenantID(tenant))
	if err != nil {
		t.Fatal(err)
	}
	return stats.Waiting
}

// TestEventsAnHourLater uploads events that nobody waits for. They are stored when the
// device hears so, and those that have not expired are there for a consumer that comes an hour later.
func TestEventsAnHourLater(t *testing.T) {
	needPeer(t, "proton")
	c := &clock{}
	s, log := startClocked(t, c)
	const password = "secret of the device"
	s.manage(t, http.MethodPost, "tenants/ACME", "{}", 201)
	s.manage(t, http.MethodPost, "tenants/BRIEF", `{"resource-limits": {"max-ttl": 1200}}`, 201)
	for _, d := range []struct{ id, authID, body string }{
		{"ACME/0815", "other", "{}"}, {"ACME/0816", "meter", `{"defaults": {"ttl": 600}}`}, {"BRIEF/0817", "meter", "{}"},
	} {
		s.manage(t, http.MethodPost, "devices/"+d.id, d.body, 201)
		s.manage(t, http.MethodPut, "credentials/"+d.id,
			fmt.Sprintf(`[{"type": "hashed-password", "auth-id": %q, "secrets": [{"pwd-plain": %q}]}]`, d.authID, password), 204)
	}
	for _, e := range []struct {
		user string
		ttl  int
		body string
	}{
		{"other@ACME", 0, "without an end"}, {"other@ACME", 1800, "half an hour"}, {"other@ACME", 7200, "two hours"},
		{"meter@ACME", 0, "ten minutes by default"}, {"meter@ACME", 7200, "two hours, not the default"},
		{"meter@BRIEF", 7200, "twenty minutes by the tenant"}, {"meter@BRIEF", 0, "twenty minutes, too"},
	} {
		_, tenant, _ := strings.Cut(e.user, "@")
		before := waiting(t, log, tenant)
		eventually(t, "an upload of "+e.body, func() error {
			if got := sendEvent(t, s.device, e.user, password, e.ttl, e.body); got.status != http.StatusAccepted {
				return fmt.Errorf("%+v; want 202", got)
			}
			return nil
		})
		if now := waiting(t, log, tenant); now <= before {
			t.Fatalf("when %q was accepted the store had %d events, as before", e.body, now)
		}
	}

	c.turnOn(time.Hour)
	receiver := startReceiver(t, "proton", s.app)
	ttls := map[string]int{"without an end": 0, "two hours": 3600, "two hours, not the default": 3600}
	for range len(ttls) {
		m := receiver.await(t, "message")
		want, there := ttls[string(m.Body)]
		if !there || !m.Durable || !m.FirstAcquirer || m.DeliveryCount != 0 || m.TTL > want*1000 || want > 0 && m.TTL < 1000 {
			t.Errorf("received %q, durable %t, first %t, count %d, ttl %d ms; want one of %v", m.Body, m.Durable, m.FirstAcquirer, m.DeliveryCount, m.TTL, ttls)
		}
		delete(ttls, string(m.Body))
	}
	brief := s.app
	brief.address = "event/BRIEF"
	short := startReceiver(t, "proton", brief)
	for _, tenant := range []string{"ACME", "BRIEF"} {
		eventually(t, "nothing of "+tenant+" waits", func() error {
			if n := waiting(t, log, tenant); n > 0 {
				return fmt.Errorf("%d events do", n)
			}
			return nil
		})
	}
	for _, p := range []*peer{receiver, short} {
		if n := len(p.events); n > 0 {
			t.Errorf("%s got %d messages more: %q", p.name, n, (<-p.events).Body)
		}
	}
}
