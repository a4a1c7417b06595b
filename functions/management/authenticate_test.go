package management_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/functions/management"
	"github.com/sluice-iot/sluice/internal/registry"
)

// counting counts the proofs that are computed.
type counting struct {
	operators
	passwords, tokens atomic.Int64
}

func (c *counting) Password(ctx context.Context, name, password string) (management.Operator, error) {
	c.passwords.Add(1)
	return c.operators.Password(ctx, name, password)
}

func (c *counting) Token(ctx context.Context, token string) (management.Operator, error) {
	c.tokens.Add(1)
	return c.operators.Token(ctx, token)
}

// ask sends a request for a tenant that is not there: 404 means that the
// operator was let in.
func ask(h http.Handler, remote string, set func(*http.Request)) *http.Response {
	r := httptest.NewRequest("GET", "/v1/tenants/T", nil)
	r.RemoteAddr = remote
	set(r)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func basic(name, password string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(name, password) }
}

func bearer(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "bearer  "+token) }
}

func TestGuessing(t *testing.T) {
	service := newService(t, registry.Options{})
	synctest.Test(t, func(t *testing.T) {
		var c counting
		h := management.New(service, &c, management.Options{})
		status := func(want int, remote string, set func(*http.Request)) {
			t.Helper()
			res := ask(h, remote, set)
			if res.StatusCode != want {
				t.Fatalf("got %d, want %d", res.StatusCode, want)
			}
			seconds, _ := strconv.Atoi(res.Header.Get("Retry-After"))
			if want == 429 && (seconds < 1 || seconds > 60) {
				t.Fatalf("Retry-After %q", res.Header.Get("Retry-After"))
			}
		}
		for range 50 {
			status(404, "192.0.2.1:1", basic("admin", "pw")) // what is right does not count
		}
		c.passwords.Store(0)
		for i := range 10 {
			status(401, "192.0.2.1:"+strconv.Itoa(i+1), basic("admin", "x"))
		}
		for range 5 {
			status(429, "192.0.2.1:99", basic("admin", "x"))
			status(429, "192.0.2.1:99", basic("admin", "pw"))
		}
		if n := c.passwords.Load(); n != 10 {
			t.Fatalf("%d passwords were looked at", n)
		}
		status(404, "192.0.2.2:1", basic("admin", "pw"))  // from another address
		status(404, "192.0.2.1:1", basic("writer", "pw")) // another name
		status(404, "192.0.2.1:1", bearer("admin"))       // or a token
		time.Sleep(time.Minute)
		status(404, "192.0.2.1:1", basic("admin", "pw"))

		// An address may fail a hundred times, whatever the names.
		for i := range 100 {
			status(401, "[2001:db8::"+strconv.Itoa(i)+"]:1", basic("name"+strconv.Itoa(i), "x"))
		}
		status(429, "[2001:db8::ffff]:1", basic("admin", "pw"))
		status(429, "[2001:db8::ffff]:1", bearer("admin"))
		status(404, "[2001:db8:0:1::1]:1", bearer("admin"))
		time.Sleep(time.Minute)
		for range 100 {
			status(401, "192.0.2.9:1", bearer("x"))
		}
		c.tokens.Store(0)
		status(429, "192.0.2.9:1", bearer("admin"))
		if c.tokens.Load() != 0 {
			t.Fatal("the token was looked at")
		}
	})
}

func TestWaysToLogIn(t *testing.T) {
	h := management.New(newService(t, registry.Options{}), operators{}, management.Options{})
	certified := func(name string, verified bool) func(*http.Request) {
		return func(r *http.Request) {
			cert := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
			if verified {
				r.TLS.VerifiedChains = [][]*x509.Certificate{{cert}}
			}
		}
	}
	for name, c := range map[string]struct {
		set  func(*http.Request)
		want int
	}{
		"nothing":                      {func(*http.Request) {}, 401},
		"password":                     {basic("admin", "pw"), 404},
		"token":                        {bearer("admin"), 404},
		"wrong token":                  {bearer("x"), 401},
		"no token":                     {bearer(""), 401},
		"certificate":                  {certified("admin", true), 404},
		"another's certificate":        {certified("x", true), 401},
		"certificate nobody looked at": {certified("admin", false), 401},
		"wrong password, certificate":  {func(r *http.Request) { certified("admin", true)(r); basic("admin", "x")(r) }, 401},
		"out of scope":                 {bearer("exporter"), 403},
		"another scheme":               {func(r *http.Request) { r.Header.Set("Authorization", "Digest x") }, 401},
		"malformed":                    {func(r *http.Request) { r.Header.Set("Authorization", "Basic x") }, 401},
	} {
		t.Run(name, func(t *testing.T) {
			if res := ask(h, "192.0.2.1:1", c.set); res.StatusCode != c.want {
				t.Fatalf("got %d, want %d", res.StatusCode, c.want)
			}
		})
	}
}

// TestOpen expects everybody to be let in only where the option says so.
func TestOpen(t *testing.T) {
	service := newService(t, registry.Options{MaxBcryptCost: 4})
	a := startWith(t, service, management.Options{Open: true})
	r := func(want int, method, path, body string, headers ...string) {
		t.Helper()
		a.want(want, method, path, body, append(headers, "Authorization", "")...)
	}
	r(201, "POST", "/v1/tenants/T", "")
	r(200, "GET", "/v1/tenants", "")
	r(200, "GET", "/v1/export/T", "")
	r(404, "GET", "/v1/nothing", "")
	if res := ask(management.New(service, nil, management.Options{Open: true}), "", basic("admin", "x")); res.StatusCode != 200 {
		t.Fatalf("got %d", res.StatusCode)
	}
}

// TestStreamsAtOnce expects no more than a few long requests at a time.
func TestStreamsAtOnce(t *testing.T) {
	a := start(t, management.Options{})
	release := make(chan struct{})
	defer close(release)
	for i, tenant := range []string{"T", "T", "T", "U", "U", "U", "V", "V"} {
		if i%3 == 0 {
			a.want(201, "POST", "/v1/tenants/"+tenant, "")
		}
		r, _ := http.NewRequestWithContext(t.Context(), "POST", a.URL+"/v1/bulk/devices/"+tenant, &held{release: release, text: `{"op":"create"}` + "\n"})
		r.SetBasicAuth("admin", "pw")
		r.Header.Set("Content-Type", ndjson)
		res, err := a.Client().Do(r) // returns with the first result
		if err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		defer res.Body.Close()
		if i == 2 {
			full(t, a, "T") // others still find room
		}
	}
	full(t, a, "V")
}

func full(t *testing.T, a *api, tenant string) {
	t.Helper()
	res, _ := a.request("POST", "/v1/bulk/devices/"+tenant, `{"op":"create"}`, "Content-Type", ndjson)
	if res.StatusCode != 503 || res.Header.Get("Retry-After") != "5" {
		t.Errorf("%s: got %d", tenant, res.StatusCode)
	}
}

// held is a body whose end comes when it is released.
type held struct {
	release chan struct{}
	text    string
}

func (h *held) Read(b []byte) (int, error) {
	if h.text == "" {
		<-h.release
		return 0, http.ErrBodyReadAfterClose
	}
	n := copy(b, h.text)
	h.text = h.text[n:]
	return n, nil
}

// TestRealm expects a realm of one's own to be asked for.
func TestRealm(t *testing.T) {
	a := start(t, management.Options{Realm: `a "b"`})
	res, _ := a.request("GET", "/v1/tenants", "", "Authorization", "")
	if got := res.Header.Get("WWW-Authenticate"); !strings.Contains(got, `Basic realm="a \"b\""`) {
		t.Fatalf("got %s", got)
	}
}
