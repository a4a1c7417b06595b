package campaign_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/tests/interop/wire"
)

const (
	// perSource is how many devices connect from one address: fewer than the
	// adapter allows connections.
	perSource = 500
	// someWrong: each so many devices get their password wrong first.
	someWrong = 20
	admission = "io.sluice.admission.admit"
)

// TestReconnectStorm has a fleet log in at once that the adapter does not know, each
// device on a connection of its own: cold, and again after adapter and functions were
// restarted, with bcrypt and with SHA-256. Nobody with the right password is refused,
// those with a wrong one are, and every log-in is one invocation of the function.
func TestReconnectStorm(t *testing.T) {
	devices, cost := 100, bcrypt.MinCost
	if runs() == full {
		devices, cost = 10_000, 10
		if text := os.Getenv("SLUICE_STORM_DEVICES"); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				t.Fatalf("SLUICE_STORM_DEVICES=%q is no number of devices", text)
			}
			devices = n
		}
	}
	p := newParts(t, "")
	p.startFunction(t)
	p.startRouter(t)
	proxy := startCounter(t, p)
	slow := newFleet(t, p, "SLOW", devices, func(password string) string {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), cost)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"hash-function":"bcrypt","pwd-hash":%q}`, hash)
	})
	fast := newFleet(t, p, "FAST", devices, func(password string) string {
		salt := "0123456789abcdef"
		return fmt.Sprintf(`{"hash-function":"sha-256","salt":%q,"pwd-hash":%q}`, base64.StdEncoding.EncodeToString([]byte(salt)), sha256Base64(salt+password))
	})
	storm := func(name string, f *fleet, functions string, wrong bool) {
		t.Helper()
		if p.adapter != nil {
			p.adapter.stop(t)
		}
		p.startAdapter(t, functions)
		proxy.reset()
		before, function := p.adapter.used(t), p.function.used(t)
		s := f.storm(t, p.device, wrong)
		counted := "not counted"
		if functions == proxy.addr {
			counted = fmt.Sprint(proxy.count(admission))
		}
		adapter, after := p.adapter.used(t), p.function.used(t)
		t.Logf("%s: %d devices admitted in %s; answers %v %v; invocations: %s; processor: functions %s, adapter %s; resident: functions %d MB, adapter %d MB",
			name, f.devices, s.took.Round(10*time.Millisecond), s.answers, s.later, counted, after.processor-function.processor,
			adapter.processor-before.processor, after.resident>>20, adapter.resident>>20)
		s.check(t, f, wrong)
		if got, want := proxy.count(admission), f.devices+s.answers[http.StatusUnauthorized]; functions == proxy.addr && s.answers[http.StatusServiceUnavailable] == 0 && got != want {
			t.Errorf("%s: %d invocations; want %d, one for each log-in", name, got, want)
		}
	}
	storm("bcrypt, cold", slow, proxy.addr, false)
	storm("bcrypt, adapter restarted", slow, p.functions, false)
	p.function.stop(t)
	p.startFunction(t)
	storm("bcrypt, adapter and functions restarted", slow, p.functions, false)
	storm("bcrypt, adapter restarted, a twentieth wrong at first", slow, proxy.addr, true)
	slow.guess(t, p.device)
	storm("sha-256, cold", fast, proxy.addr, false)
	storm("sha-256, adapter restarted", fast, p.functions, false)
}

// fleet is the devices of one tenant.
type fleet struct {
	tenant    string
	devices   int
	passwords []string // of the devices in turn
}

// newFleet registers one device more than are in the fleet: the victim of a guesser.
func newFleet(t *testing.T, p *parts, tenant string, devices int, hash func(password string) string) *fleet {
	t.Helper()
	f := &fleet{tenant: tenant, devices: devices, passwords: []string{"correct horse", "battery staple", "troubador", "three"}}
	var secrets []string
	for _, password := range f.passwords {
		secrets = append(secrets, hash(password))
	}
	p.operator(t, http.MethodPost, "tenants/"+tenant, "application/json", bytes.NewReader([]byte("{}")), http.StatusCreated)
	var body bytes.Buffer
	for i := range devices + 1 {
		fmt.Fprintf(&body, `{"op":"create","id":%q,"credentials":[{"type":"hashed-password","auth-id":%q,"secrets":[%s]}]}`+"\n",
			f.device(i), f.device(i), secrets[i%len(secrets)])
	}
	bulk(t, p, tenant, &body, devices+1)
	consume(t, p, tenant)
	return f
}

func (f *fleet) device(i int) string   { return fmt.Sprintf("device-%05d", i) }
func (f *fleet) password(i int) string { return f.passwords[i%len(f.passwords)] }

// bulk makes one bulk request and wants every item to succeed.
func bulk(t *testing.T, p *parts, tenant string, body io.Reader, items int) {
	t.Helper()
	text := p.operator(t, http.MethodPost, "bulk/devices/"+tenant, "application/x-ndjson", body, http.StatusOK)
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	var last struct {
		Done             bool
		Succeeded, Items int
	}
	if err := json.Unmarshal(lines[len(lines)-1], &last); err != nil || !last.Done || last.Items != items || last.Succeeded != items {
		t.Fatalf("bulk request of %d items: %s, %v; the first result is %s", items, lines[len(lines)-1], err, lines[0])
	}
}

// consume takes the telemetry of a tenant until the test ends.
func consume(t *testing.T, p *parts, tenant string) {
	t.Helper()
	const credit = 10_000
	c, err := wire.Dial(wire.Options{Addr: p.northbound, User: user, Password: secret})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Write(wire.Receiver(0, "r", "telemetry/"+tenant), nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := wire.Await[*amqp.Attach](c); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(wire.Credit(0, 0, credit), nil); err != nil {
		t.Fatal(err)
	}
	stayAlive(t, c)
	var reading sync.WaitGroup
	reading.Go(func() {
		for count, topped := uint32(0), uint32(0); ; {
			performative, _, err := c.Read()
			if err != nil {
				return // the test ends
			}
			tr, ok := performative.(*amqp.Transfer)
			if !ok {
				continue
			}
			if count++; count-topped > credit/2 {
				topped = count
				_ = c.Write(wire.Credit(0, count, credit), nil)
			}
			if !tr.Settled {
				_ = c.Write(&amqp.Disposition{Role: amqp.RoleReceiver, First: tr.DeliveryID, Last: tr.DeliveryID, Settled: true, State: amqp.StateAccepted}, nil)
			}
		}
	})
	t.Cleanup(func() {
		c.Conn.Close()
		reading.Wait()
	})
}

// stayAlive sends a frame without content now and then, or the router takes a client
// that has nothing to say for dead.
func stayAlive(t *testing.T, c *wire.Client) {
	t.Helper()
	var beating sync.WaitGroup
	stop := make(chan struct{})
	beating.Go(func() {
		beat := time.NewTicker(5 * time.Second)
		defer beat.Stop()
		for {
			select {
			case <-stop:
				return
			case <-beat.C:
				_, _ = c.Conn.Write([]byte{0, 0, 0, 8, 2, 0, 0, 0})
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		c.Conn.Close()
		beating.Wait()
	})
}

// stormed is what came of a storm.
type stormed struct {
	took     time.Duration
	mu       sync.Mutex
	answers  map[int]int    // by status
	later    map[string]int // the texts of 503
	refused  []string
	admitted int
}

func newStormed() *stormed { return &stormed{answers: map[int]int{}, later: map[string]int{}} }

func (s *stormed) answer(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[status]++
}

func (s *stormed) refuse(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = append(s.refused, fmt.Sprintf(format, args...))
}

func sha256Base64(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// storm has every device upload once, all at the same time. Those that are told to
// come later do.
func (f *fleet) storm(t *testing.T, addr string, wrong bool) *stormed {
	t.Helper()
	s := newStormed()
	var all sync.WaitGroup
	began := time.Now()
	for first := 0; first < f.devices; first += perSource {
		client := from(first/perSource + 2)
		for i := first; i < min(first+perSource, f.devices); i++ {
			all.Go(func() {
				if wrong && i%someWrong == 0 {
					if got := upload(t.Context(), client, s, addr, f.device(i)+"@"+f.tenant, "wrong"); got != http.StatusUnauthorized {
						s.refuse("%s with a wrong password: %d", f.device(i), got)
					}
				}
				if got := upload(t.Context(), client, s, addr, f.device(i)+"@"+f.tenant, f.password(i)); got != http.StatusAccepted {
					s.refuse("%s: %d", f.device(i), got)
					return
				}
				s.mu.Lock()
				s.admitted++
				s.mu.Unlock()
			})
		}
	}
	all.Wait()
	s.took = time.Since(began)
	return s
}

// check wants every device admitted and every wrong password refused.
func (s *stormed) check(t *testing.T, f *fleet, wrong bool) {
	t.Helper()
	if s.admitted != f.devices || len(s.refused) > 0 {
		t.Errorf("%d of %d devices were admitted; refused were %.5q", s.admitted, f.devices, s.refused)
	}
	want := 0
	if wrong {
		want = (f.devices + someWrong - 1) / someWrong
	}
	if s.answers[http.StatusUnauthorized] != want {
		t.Errorf("answers %v; want %d wrong passwords refused", s.answers, want)
	}
}

// from is a client at one of the addresses of this machine.
func from(last int) *http.Client {
	dialer := &net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(last))}}
	return &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
}

// upload sends telemetry until there is an answer other than "later", and returns it.
func upload(ctx context.Context, client *http.Client, s *stormed, addr, user, password string) int {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/telemetry", bytes.NewReader([]byte("{}")))
		if err != nil {
			return -1
		}
		req.SetBasicAuth(user, password)
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			s.answer(0)
			s.refuse("%s: %v", user, err)
			return 0
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		s.answer(resp.StatusCode)
		if resp.StatusCode != http.StatusServiceUnavailable || strings.Contains(string(text), "no consumer") {
			return resp.StatusCode
		}
		s.mu.Lock()
		s.later[string(text)]++
		s.mu.Unlock()
		wait, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil || wait < 1 {
			wait = 1
		}
		later := time.NewTimer(time.Duration(wait)*time.Second + rand.N(time.Second))
		select {
		case <-ctx.Done():
			later.Stop()
			return -1
		case <-later.C:
		}
	}
}

// guess tries passwords of one device: after ten it is 429, whatever is tried.
func (f *fleet) guess(t *testing.T, addr string) {
	t.Helper()
	s, client, victim := newStormed(), from(250), f.device(f.devices)
	for i := range 20 {
		upload(t.Context(), client, s, addr, victim+"@"+f.tenant, fmt.Sprint("guess ", i))
	}
	last := upload(t.Context(), client, s, addr, victim+"@"+f.tenant, f.password(f.devices))
	want := map[int]int{http.StatusUnauthorized: 10, http.StatusTooManyRequests: 11}
	if last != http.StatusTooManyRequests || !maps.Equal(s.answers, want) {
		t.Errorf("20 guesses and the right password were answered with %v, the last with %d; want %v", s.answers, last, want)
	}
}

// counter passes what it is asked on to the functions, and counts by type of event.
type counter struct {
	addr  string
	mu    sync.Mutex
	types map[string]int
}

func startCounter(t *testing.T, p *parts) *counter {
	t.Helper()
	c := &counter{types: map[string]int{}}
	target, err := url.Parse("https://" + p.functions)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.addr = ln.Addr().String()
	transport := &http.Transport{TLSClientConfig: p.mutual(t, "adapter-http-0"), MaxIdleConnsPerHost: 100}
	pass := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: transport,
		// Adapters give up calls that take long.
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	server := &http.Server{TLSConfig: p.mutual(t, "function-proxy-0"), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.types[r.Header.Get("Ce-Type")]++
		c.mu.Unlock()
		pass.ServeHTTP(w, r)
	})}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.ServeTLS(ln, "", "") })
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
		serving.Wait()
	})
	return c
}

func (c *counter) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.types)
}

func (c *counter) count(typ string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.types[typ]
}
