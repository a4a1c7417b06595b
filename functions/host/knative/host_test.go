package knative_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/events"
	cehttp "github.com/sluice-iot/sluice/events/http"
	"github.com/sluice-iot/sluice/functions/host"
	"github.com/sluice-iot/sluice/functions/host/knative"
	"github.com/sluice-iot/sluice/internal/iot"
)

func as(kind knative.Kind) knative.CallerFunc {
	return func(*http.Request) (knative.Caller, error) {
		if kind == "" {
			return knative.Caller{}, iot.Errorf(iot.ErrUnauthenticated, "who are you")
		}
		return knative.Caller{Kind: kind, Instance: "x-0"}, nil
	}
}

func list() []events.Function {
	return []events.Function{
		events.NewFunction(func(_ context.Context, req events.TenantGet) (*events.TenantGot, error) {
			switch req.ID {
			case "panic":
				panic("secret")
			case "none":
				return nil, iot.Errorf(iot.ErrNotFound, "no such tenant")
			case "busy":
				return nil, &iot.Error{Sentinel: iot.ErrUnavailable, Text: "busy", RetryAfter: 2 * time.Second}
			}
			return &events.TenantGot{TenantObject: events.TenantObject{ID: req.ID}}, nil
		}),
		events.NewFunction(func(context.Context, events.Admit) (*events.Admitted, error) {
			return &events.Admitted{}, nil
		}),
		events.NewFunction(func(context.Context, events.CredentialsGet) (*events.CredentialsGot, error) {
			return &events.CredentialsGot{Credential: iot.Credential{Type: "psk"}}, nil
		}),
		events.NewFunction(func(context.Context, events.RegistrationAssert) (*events.RegistrationAsserted, error) {
			return &events.RegistrationAsserted{}, nil
		}),
		events.NewFunction(func(context.Context, events.AssertionSign) (*events.AssertionSigned, error) {
			return &events.AssertionSigned{}, nil
		}),
		events.NewFunction(func(context.Context, events.AssertionRotate) (*events.AssertionRotated, error) {
			return &events.AssertionRotated{}, nil
		}),
		events.NewFunction(func(context.Context, events.AssertionKeys) (*events.KeySet, error) {
			return &events.KeySet{Keys: []json.RawMessage{[]byte(`{"kid":"k"}`)}, CacheFor: 24 * time.Hour}, nil
		}),
	}
}

func newHost(t *testing.T, kind knative.Kind, change func(*knative.Config)) *knative.Host {
	t.Helper()
	cfg := knative.Config{Name: "sluice.test", Functions: list(), Caller: as(kind)}
	if change != nil {
		change(&cfg)
	}
	h, err := knative.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func encode(t *testing.T, req events.Request) event.Event {
	t.Helper()
	e, err := events.EncodeRequest(req, events.Envelope{Source: "//sluice.test/adapters/a", ID: events.NewID(), Time: time.Now(), Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func post(h http.Handler, header http.Header, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
	r.Header = header
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func binary(t *testing.T, h http.Handler, req events.Request) *httptest.ResponseRecorder {
	t.Helper()
	e, header := encode(t, req), http.Header{}
	body, err := cehttp.WriteRequest(header, &e)
	if err != nil {
		t.Fatal(err)
	}
	return post(h, header, body)
}

func TestWhoMayAskWhat(t *testing.T) {
	calls := []events.Request{
		events.Admit{Adapter: "a"}, events.TenantGet{ID: "T"}, events.RegistrationAssert{TenantID: "T", DeviceID: "D"},
		events.CredentialsGet{TenantID: "T", Type: "psk", AuthID: "a"}, events.AssertionKeys{},
		events.AssertionSign{TenantID: "T", DeviceID: "D"}, events.AssertionRotate{},
	}
	if err := host.Permit(events.TypeRegistryChanges, host.Router); err != nil {
		t.Errorf("a router asks for the feed: %v", err)
	}
	if err := host.Permit(events.TypeRegistryChanges, host.Adapter, host.Function, host.Operator); !errors.Is(err, iot.ErrForbidden) {
		t.Errorf("others ask for the feed: %v", err)
	}
	for kind, may := range map[host.Kind]bool{host.Adapter: true, host.Router: true, host.Function: false, host.Operator: false} {
		if err := host.Permit(events.TypeNotificationDerive, kind); (err == nil) != may {
			t.Errorf("%s asks what follows from changes of presence: %v", kind, err)
		}
	}
	for kind, want := range map[knative.Kind][]int{
		knative.Adapter:  {200, 200, 200, 403, 200, 403, 403},
		knative.Router:   {403, 200, 200, 200, 200, 403, 403},
		knative.Function: {403, 403, 403, 403, 200, 403, 403},
		knative.Operator: {403, 403, 403, 403, 200, 403, 403},
		"stranger":       {403, 403, 403, 403, 403, 403, 403},
		"":               {401, 401, 401, 401, 401, 401, 401},
	} {
		h := newHost(t, kind, nil)
		for i, req := range calls {
			if got := binary(t, h, req); got.Code != want[i] {
				t.Errorf("%q asks %s: %d %s, want %d", kind, req.EventType(), got.Code, got.Body, want[i])
			}
			e := encode(t, req)
			batch, _ := json.Marshal([]event.Event{e})
			w := post(h, http.Header{"Content-Type": {cehttp.BatchType}}, batch)
			if want[i] != 200 { // about the component: no CloudEvent, lest it is taken for one about a device
				if w.Code != want[i] || cehttp.ModeOf(w.Header()) != cehttp.None {
					t.Errorf("%q asks %s in a batch: %d %v %s, want %d without CloudEvents", kind, req.EventType(), w.Code, w.Header(), w.Body, want[i])
				}
				if got := binary(t, h, req); cehttp.ModeOf(got.Header()) != cehttp.None {
					t.Errorf("%q asks %s: refused by a CloudEvent %v", kind, req.EventType(), got.Header())
				}
				continue
			}
			out, _, err := cehttp.ReadBatch(w.Body.Bytes(), 1)
			if err != nil || len(out) != 1 || events.StatusCode(&out[0]) != want[i] {
				t.Errorf("%q asks %s in a batch: %d %s, want %d", kind, req.EventType(), w.Code, w.Body, want[i])
			}
		}
	}
}

func TestAnswers(t *testing.T) {
	h := newHost(t, knative.Router, func(c *knative.Config) { c.MaxBody = 2000; c.MaxBatch = 2 })
	call := encode(t, events.TenantGet{ID: "T"})
	structured := http.Header{"Content-Type": {cehttp.StructuredType}}
	js, err := call.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	unknown := call.Clone()
	unknown.SetType("io.sluice.nothing.known")
	unknownJS, _ := unknown.MarshalJSON()
	for _, tt := range []struct {
		name   string
		do     func() *httptest.ResponseRecorder
		status int
		code   string
	}{
		{"binary", func() *httptest.ResponseRecorder { return binary(t, h, events.TenantGet{ID: "T"}) }, 200, ""},
		{"structured", func() *httptest.ResponseRecorder { return post(h, structured, js) }, 200, ""},
		{"error", func() *httptest.ResponseRecorder { return binary(t, h, events.TenantGet{ID: "none"}) }, 404, "not-found"},
		{"panic", func() *httptest.ResponseRecorder { return binary(t, h, events.TenantGet{ID: "panic"}) }, 500, "internal"},
		{"no CloudEvent", func() *httptest.ResponseRecorder {
			return post(h, http.Header{"Content-Type": {"application/json"}}, js)
		}, 415, "unsupported"},
		{"unknown type", func() *httptest.ResponseRecorder { return post(h, structured, unknownJS) }, 422, "unsupported"},
		{"malformed", func() *httptest.ResponseRecorder { return post(h, structured, []byte("{")) }, 400, "invalid"},
		{"other version", func() *httptest.ResponseRecorder {
			return post(h, http.Header{"Ce-Specversion": {"0.3"}}, nil)
		}, 400, "invalid"},
		{"too long", func() *httptest.ResponseRecorder {
			return post(h, structured, append(js, bytes.Repeat([]byte(" "), 2000)...))
		}, 413, "too-large"},
		{"batch of too many", func() *httptest.ResponseRecorder {
			return post(h, http.Header{"Content-Type": {cehttp.BatchType}}, []byte("[{},{},{}]"))
		}, 413, "too-large"},
		{"batch that is none", func() *httptest.ResponseRecorder {
			return post(h, http.Header{"Content-Type": {cehttp.BatchType}}, []byte("{}"))
		}, 400, "invalid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := tt.do()
			if w.Code != tt.status {
				t.Fatalf("status %d, want %d: %s", w.Code, tt.status, w.Body)
			}
			e, err := cehttp.Read(w.Header(), w.Body.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Validate(); err != nil {
				t.Error(err)
			}
			var d events.ErrorData
			if tt.code != "" && (json.Unmarshal(e.Data(), &d) != nil || d.Code != tt.code || e.Type() != events.TypeError) {
				t.Errorf("%s with %s, want code %s", e.Type(), e.Data(), tt.code)
			}
			if strings.Contains(w.Body.String(), "secret") {
				t.Errorf("internals leave: %s", w.Body)
			}
		})
	}
	if w := binary(t, h, events.TenantGet{ID: "busy"}); w.Code != 503 || w.Header().Get("Retry-After") != "2" {
		t.Errorf("busy: %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
}

func TestNothingOfABatchIsDoneWithoutPermission(t *testing.T) {
	done := 0
	h := newHost(t, knative.Adapter, func(c *knative.Config) {
		c.Functions = append(c.Functions[1:], events.NewFunction(func(context.Context, events.TenantGet) (*events.TenantGot, error) {
			done++
			return &events.TenantGot{}, nil
		}))
	})
	ask := func(list ...event.Event) int {
		body, _ := json.Marshal(list)
		return post(h, http.Header{"Content-Type": {cehttp.BatchType}}, body).Code
	}
	may, mayNot := encode(t, events.TenantGet{ID: "T"}), encode(t, events.CredentialsGet{TenantID: "T", Type: "psk", AuthID: "a"})
	if code := ask(may, mayNot); code != 403 || done != 0 {
		t.Errorf("%d, %d calls were done", code, done)
	}
	if code := ask(may, may); code != 200 || done != 2 {
		t.Errorf("%d, %d calls were done", code, done)
	}
}

// TestABodyThatBreaksOff expects that it is told as the caller's fault.
func TestABodyThatBreaksOff(t *testing.T) {
	srv := httptest.NewServer(newHost(t, knative.Router, nil))
	defer srv.Close()
	for name, message := range map[string]string{
		"breaks off":    "Content-Length: 100\r\n\r\n{",
		"badly chunked": "Transfer-Encoding: chunked\r\n\r\nzz\r\n{\r\n",
	} {
		c, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: "+cehttp.StructuredType+"\r\n"+message); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || !strings.Contains(string(answer), `"code":"invalid"`) {
			t.Errorf("%s: %s, %v", name, answer, err)
		}
	}
}

func TestABatchIsAnsweredInOrder(t *testing.T) {
	h := newHost(t, knative.Router, nil)
	calls := []event.Event{encode(t, events.TenantGet{ID: "A"}), encode(t, events.TenantGet{ID: "none"}), encode(t, events.TenantGet{ID: "panic"}), encode(t, events.TenantGet{ID: "B"})}
	body, _ := json.Marshal(calls)
	body = append(body[:len(body)-1], []byte(`,{"specversion":"7"}]`)...)
	w := post(h, http.Header{"Content-Type": {cehttp.BatchType + "; charset=utf-8"}}, body)
	if w.Code != 200 || w.Header().Get("Content-Type") != cehttp.BatchType {
		t.Fatalf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	out, errs, err := cehttp.ReadBatch(w.Body.Bytes(), 10)
	if err != nil || errors.Join(errs...) != nil || len(out) != 5 {
		t.Fatalf("%d answers, %v, %v", len(out), err, errs)
	}
	for i, want := range []int{200, 404, 500, 200, 400} {
		if got := events.StatusCode(&out[i]); got != want {
			t.Errorf("answer %d: %d, want %d", i, got, want)
		}
		if i < len(calls) && out[i].Extensions()["causationid"] != calls[i].ID() {
			t.Errorf("answer %d is to another call", i)
		}
	}
}

func TestGets(t *testing.T) {
	var ready error
	h := newHost(t, "", func(c *knative.Config) { c.Ready = func(context.Context) error { return ready } })
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/.well-known/jwks.json": 200, "/validating-keys": 200, "/": 405, "/x": 404} {
		if w := get(path); w.Code != want {
			t.Errorf("GET %s: %d, want %d", path, w.Code, want)
		}
	}
	if w := get("/.well-known/jwks.json"); w.Body.String() != `{"keys":[{"kid":"k"}]}` || w.Header().Get("Content-Type") != "application/jwk-set+json" {
		t.Errorf("keys: %v %s", w.Header(), w.Body)
	}
	ready = iot.Errorf(iot.ErrUnavailable, "store down")
	if w := get("/readyz"); w.Code != 503 {
		t.Errorf("unready: %d", w.Code)
	}
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, knative.Router, func(c *knative.Config) { c.QuietPeriod = 2 * time.Second })
		ready := func() int {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
			return w.Code
		}
		if got := ready(); got != 200 {
			t.Errorf("ready: %d", got)
		}
		start := time.Now()
		drained := make(chan time.Duration)
		go func() { h.Drain(); drained <- time.Since(start) }()
		time.Sleep(time.Second)
		if got := ready(); got != 503 {
			t.Errorf("ready while draining: %d", got)
		}
		if w := binary(t, h, events.TenantGet{ID: "T"}); w.Code != 200 { // makes the quiet period start again
			t.Errorf("a call while draining: %d", w.Code)
		}
		if got := <-drained; got != 3*time.Second {
			t.Errorf("drained after %s, want 3s", got)
		}
	})
}

func TestDrainingEndsEvenIfRequestsDoNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, knative.Router, func(c *knative.Config) { c.QuietPeriod = 2 * time.Second })
		start := time.Now()
		drained := make(chan time.Duration, 1)
		go func() { h.Drain(); drained <- time.Since(start) }()
		for {
			select {
			case got := <-drained:
				if got != 30*time.Second {
					t.Errorf("drained after %s, want 30s", got)
				}
				return
			case <-time.After(time.Second):
				binary(t, h, events.TenantGet{ID: "T"})
			}
		}
	})
}

func TestAProbeOfTheKubelet(t *testing.T) {
	h := newHost(t, knative.Router, func(c *knative.Config) {
		c.Ready = func(context.Context) error { return iot.Errorf(iot.ErrUnavailable, "store down") }
	})
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("User-Agent", "kube-probe/1.34")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}

func TestServe(t *testing.T) {
	h := newHost(t, knative.Router, func(c *knative.Config) { c.QuietPeriod = -1 })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- knative.Serve(ctx, ln, h) }()
	resp, err := http.Get("http://" + ln.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("it still listens")
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestAtMostSoManyAtOnce(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	h := newHost(t, knative.Router, func(c *knative.Config) {
		c.MaxInFlight = 1
		c.Log = slog.New(slog.DiscardHandler)
		c.Functions = []events.Function{events.NewFunction(func(context.Context, events.TenantGet) (*events.TenantGot, error) {
			close(entered)
			<-leave
			return &events.TenantGot{}, nil
		})}
	})
	first := make(chan int)
	go func() { first <- binary(t, h, events.TenantGet{ID: "T"}).Code }()
	<-entered
	if w := binary(t, h, events.TenantGet{ID: "T"}); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("the second: %d", w.Code)
	}
	close(leave)
	if got := <-first; got != 200 {
		t.Errorf("the first: %d", got)
	}
}

func TestNewRefuses(t *testing.T) {
	f := list()
	for name, cfg := range map[string]knative.Config{
		"no name":   {Caller: as(knative.Router)},
		"no caller": {Name: "x"},
		"twice":     {Name: "x", Caller: as(knative.Router), Functions: append(f, f[0])},
	} {
		if _, err := knative.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
