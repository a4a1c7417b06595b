package campaign_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
)

const (
	eventTenant   = "FLEET"
	eventDevices  = 8
	devicePause   = 10 * time.Millisecond // between two uploads of a device
	someMortal    = 5                     // each so many events have a time to live
	devicePass    = "secret of the device"
	settleWithin  = 40 * time.Millisecond // the longest that a consumer takes its time
	consumeCredit = 200
)

// eventRounds is how often something is killed: SLUICE_KILLS times, where it is set.
func eventRounds() int {
	if n, err := strconv.Atoi(os.Getenv("SLUICE_KILLS")); err == nil && n > 0 {
		return n
	}
	switch runs() {
	case some:
		return 20
	case full:
		return 200
	}
	return 3
}

// eventSite is an installation that keeps events, in one process or several.
type eventSite struct {
	*parts
	events     string // host:port of the functions of the event store; "" = in the process of all
	eventStore string // configuration of the event store
	eventsPart *part
	routers    []*eventRouter
}

// eventRouter is one router, which lives several times.
type eventRouter struct {
	site                          *eventSite
	number                        int
	internal, ingress, northbound string
	health                        string
	mu                            sync.Mutex
	part                          *part
	life                          *life
}

// life is that of one process of a router.
type life struct{ killed atomic.Bool }

func (r *eventRouter) now() *life {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.life
}

// kill ends the router as a loss of power would.
func (r *eventRouter) kill() {
	r.now().killed.Store(true)
	r.part.kill()
}

func (r *eventRouter) live(p *part) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.part, r.life = p, &life{}
}

// newEventSite chooses addresses, and makes certificates and the identity that consumes.
func newEventSite(t *testing.T, routers int, store string) *eventSite {
	t.Helper()
	s := &eventSite{parts: newParts(t, ""), eventStore: store}
	s.ingress = "" // nobody is told of changes of the registry: there are none meanwhile
	names := []string{"function/events-0"}
	for n := range routers {
		r := &eventRouter{site: s, number: n, internal: freeAddr(t), ingress: freeAddr(t), northbound: freeAddr(t), health: freeAddr(t)}
		s.routers = append(s.routers, r)
		if n > 0 { // the first has one
			names = append(names, fmt.Sprintf("router/router-%d", n))
		}
	}
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	certs := exec.Command(path, append([]string{"certs", "--out", filepath.Join(s.dir, "certs")}, names...)...)
	if out, err := certs.CombinedOutput(); err != nil {
		t.Fatalf("certs: %v\n%s", err, out)
	}
	writeFile(t, s.identities, fmt.Sprintf(`identities:
  - name: %s
    secret: "{plain}%s"
    assertions: optional
    authorities:
      - {address: "telemetry/*", may: [read]}
      - {address: "event/*", may: [read]}
operators:
  - {name: admin, secret: "{plain}%s", scopes: [{tenant: "*", may: [read, write]}]}
`, user, secret, secret))
	return s
}

// startUp starts everything in one process.
func (s *eventSite) startUp(t *testing.T) {
	t.Helper()
	r := s.routers[0]
	r.live(s.start(t, []string{"up"}, "function-identity-0", s.upConfig()))
	s.awaitUp(t)
}

func (s *eventSite) upConfig() string {
	r := s.routers[0]
	return fmt.Sprintf(`listeners:
  - {role: northbound, address: %q}
  - {role: adapter/http, address: %q}
  - {role: management, address: %q}
  - {role: health, address: %q}
adapters: {http: {max-payload-size: 64KiB}}
%s`, r.northbound, s.device, s.management, r.health, s.eventStore)
}

func (s *eventSite) awaitUp(t *testing.T) {
	t.Helper()
	for _, addr := range []string{s.routers[0].northbound, s.device, s.management, s.routers[0].health} {
		s.routers[0].part.awaitListener(t, addr)
	}
}

// startParts starts identity, event store, routers and adapter, each as a process.
func (s *eventSite) startParts(t *testing.T) {
	t.Helper()
	s.events = freeAddr(t)
	s.startEvents(t)
	s.startFunction(t)
	for _, r := range s.routers {
		r.start(t, s.events)
	}
	s.startAdapters(t)
}

func (s *eventSite) startEvents(t *testing.T) {
	t.Helper()
	s.eventsPart = s.start(t, []string{"function", "events"}, "function-events-0", fmt.Sprintf(`listeners:
  - {role: function, address: %q, tls: {}}
%s`, s.events, s.eventStore))
	s.eventsPart.awaitListener(t, s.events)
	s.registryKeys = fmt.Sprintf("functions: {events: \"https://%s\"}\n", s.events) // of the functions, for the management API
}

// start starts the router, which finds the event store at host:port.
func (r *eventRouter) start(t *testing.T, events string) {
	t.Helper()
	ingresses := ""
	if s := r.site; len(s.routers) > 1 {
		var all []string
		for _, other := range s.routers {
			all = append(all, strconv.Quote("https://"+other.ingress))
		}
		own := all[r.number] // the first of them is the router's own
		all = append([]string{own}, append(all[:r.number:r.number], all[r.number+1:]...)...)
		ingresses = "notices: {ingresses: [" + strings.Join(all, ", ") + "]}\n"
	}
	r.live(r.site.parts.start(t, []string{"router"}, fmt.Sprintf("router-router-%d", r.number), fmt.Sprintf(`listeners:
  - {role: internal, address: %q, tls: {}}
  - {role: northbound, address: %q}
  - {role: ingress, address: %q, tls: {}}
  - {role: health, address: %q}
functions: {identity: "https://%s", events: "https://%s"}
%s`, r.internal, r.northbound, r.ingress, r.health, r.site.functions, events, ingresses)))
	for _, addr := range []string{r.internal, r.northbound, r.ingress, r.health} {
		r.part.awaitListener(t, addr)
	}
}

func (s *eventSite) startAdapters(t *testing.T) {
	t.Helper()
	var urls []string
	for _, r := range s.routers {
		urls = append(urls, strconv.Quote("amqps://"+r.internal))
	}
	s.adapter = s.start(t, []string{"adapter", "http"}, "adapter-http-0", fmt.Sprintf(`listeners:
  - {role: adapter/http, address: %q}
routers: [%s]
functions: {identity: "https://%s"}
adapters: {http: {max-payload-size: 64KiB}}
`, s.device, strings.Join(urls, ", "), s.functions))
	s.adapter.awaitListener(t, s.device)
}

// register makes the tenant and its devices.
func (s *eventSite) register(t *testing.T, devices int) {
	t.Helper()
	s.operator(t, http.MethodPost, "tenants/"+eventTenant, "application/json", strings.NewReader("{}"), http.StatusCreated)
	var body bytes.Buffer
	const salt = "0123456789abcdef"
	hash := fmt.Sprintf(`{"hash-function":"sha-256","salt":%q,"pwd-hash":%q}`, base64.StdEncoding.EncodeToString([]byte(salt)), sha256Base64(salt+devicePass))
	for i := range devices {
		fmt.Fprintf(&body, `{"op":"create","id":%q,"credentials":[{"type":"hashed-password","auth-id":%q,"secrets":[%s]}]}`+"\n",
			eventDevice(i), eventDevice(i), hash)
	}
	bulk(t, s.parts, eventTenant, &body, devices)
}

func eventDevice(i int) string { return fmt.Sprintf("meter-%d", i) }

// stats is what operators see.
func (s *eventSite) stats(t *testing.T) (out eventstore.Stats) {
	t.Helper()
	text := s.operator(t, http.MethodGet, "events/"+eventTenant, "", nil, http.StatusOK)
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return out
}

// settled waits until the store knows that nothing is left, and wants no dead letters.
func (s *eventSite) settled(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got := s.stats(t)
		if got.Waiting == 0 && got.DeadLetters == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("after everything was taken %d events wait, %d of them in flight, and there are %d dead letters", got.Waiting, got.InFlight, got.DeadLetters)
			return
		}
	}
}

// sendEvent uploads an event and returns the status, 0 without an answer, and the
// Retry-After of a refusal.
func sendEvent(client *http.Client, addr, endpoint, device string, ttl time.Duration, body []byte) (status int, retry string, err error) {
	req, err := http.NewRequest(http.MethodPost, "http://"+addr+"/"+endpoint, bytes.NewReader(body))
	if err != nil {
		return -1, "", err
	}
	req.SetBasicAuth(device+"@"+eventTenant, devicePass)
	req.Header.Set("Content-Type", "text/plain")
	if endpoint == "telemetry" {
		req.Header.Set("QoS-Level", "1")
	}
	if ttl > 0 {
		req.Header.Set("hono-ttl", strconv.Itoa(int(ttl/time.Second)))
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header.Get("Retry-After"), err
}

// randomly is a number below n, which decides when something is killed.
func randomly(n int) int64 { return rand.Int64N(int64(n)) }
