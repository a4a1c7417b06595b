package http_test

import (
	"encoding/base64"
	"fmt"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
	"github.com/sluice-iot/sluice/internal/iot"
)

type world struct {
	*http.Adapter
	inv      *adaptertest.Invoker
	down     *adaptertest.Downstream
	commands *adapters.Commands
}

func newWorld(t testing.TB, o http.Options, p adapters.Options) world {
	w := world{inv: &adaptertest.Invoker{}, down: &adaptertest.Downstream{}, commands: adapters.NewCommands(adapters.CommandsOptions{})}
	adm := adapters.NewAdmissions(adapters.AdmissionOptions{Invoker: w.inv})
	t.Cleanup(adm.Close)
	p.Type, p.Admissions, p.Downstream, p.Commands = http.Type, adm, w.down, w.commands
	o.Pipeline = adapters.NewPipeline(p)
	w.Adapter = http.New(o)
	return w
}

// do serves one request; header holds "Name: value" lines.
func (w world) do(method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body == "" {
		r.Body, r.ContentLength = nethttp.NoBody, 0
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	return rec
}

func basic(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func as(d iot.DeviceID) string {
	return basic(string(d)+"@"+string(adaptertest.Tenant), adaptertest.Password)
}

const text = "Content-Type: text/plain"

func TestRoutes(t *testing.T) {
	for _, tt := range []struct {
		method, target string
		as             iot.DeviceID
		want           int
		device         iot.DeviceID // of the message; "" = none
	}{
		{"POST", "/telemetry", adaptertest.Device, 202, adaptertest.Device},
		{"POST", "/telemetry/", adaptertest.Device, 202, adaptertest.Device},
		{"POST", "/event", adaptertest.Device, 202, adaptertest.Device},
		{"PUT", "/telemetry/tenant-1/device:2", adaptertest.Gateway, 202, adaptertest.Device2},
		{"PUT", "/telemetry/tenant-1/device%3A2", adaptertest.Gateway, 202, adaptertest.Device2},
		{"PUT", "/telemetry%2Ftenant-1%2Fdevice:2", adaptertest.Gateway, 202, adaptertest.Device2},
		{"PUT", "/telemetry//device:2", adaptertest.Gateway, 202, adaptertest.Device2},
		{"PUT", "/event//device:2", adaptertest.Gateway, 202, adaptertest.Device2},
		{"PUT", "/event/tenant-1/device:2/", adaptertest.Gateway, 202, adaptertest.Device2},
		{"PUT", "/telemetry//device-1", adaptertest.Device, 202, adaptertest.Device},

		{"PUT", "/telemetry", adaptertest.Device, 404, ""},
		{"PUT", "/telemetry/tenant-1", adaptertest.Gateway, 404, ""},
		{"PUT", "/telemetry/tenant-1/", adaptertest.Gateway, 404, ""},
		{"PUT", "/telemetry/tenant-1/a/b", adaptertest.Gateway, 404, ""},
		{"PUT", "/telemetry/tenant-1/device%2F2", adaptertest.Gateway, 404, ""},
		{"PUT", "/telemetry//unknown", adaptertest.Gateway, 404, ""},
		{"PUT", "/telemetry//device-off", adaptertest.Gateway, 404, ""},
		{"PUT", "/telemetry//device-3", adaptertest.Gateway, 403, ""},
		{"PUT", "/telemetry/tenant-1/device-3", adaptertest.Gateway, 403, ""},
		{"PUT", "/telemetry/tenant-2/device:2", adaptertest.Gateway, 403, ""},
		{"POST", "/telemetry", adaptertest.DisabledDevice, 404, ""},
		{"POST", "/", adaptertest.Device, 404, ""},
		{"POST", "//telemetry", adaptertest.Device, 404, ""},
		{"POST", "/t", adaptertest.Device, 404, ""},
		{"POST", "/telemetryx", adaptertest.Device, 404, ""},
		{"PUT", "/telemetry//a%00b", adaptertest.Gateway, 400, ""},
		{"PUT", "/telemetry//a%FFb", adaptertest.Gateway, 400, ""},
		{"PUT", "/telemetry//" + strings.Repeat("d", 600), adaptertest.Gateway, 400, ""},
		{"GET", "/telemetry", adaptertest.Device, 405, ""},
		{"POST", "/telemetry//device:2", adaptertest.Gateway, 405, ""},
	} {
		t.Run(tt.method+" "+tt.target[:min(len(tt.target), 40)], func(t *testing.T) {
			w := newWorld(t, http.Options{}, adapters.Options{})
			rec := w.do(tt.method, tt.target, "22.5", as(tt.as), text)
			if rec.Code != tt.want {
				t.Errorf("got %d %s, want %d", rec.Code, rec.Body, tt.want)
			}
			sent := w.down.Sent()
			if tt.device == "" {
				if len(sent) != 0 {
					t.Errorf("got %d messages, want none", len(sent))
				}
				return
			}
			if len(sent) != 1 || sent[0].Device != tt.device || sent[0].Address != tt.target {
				t.Errorf("got %d messages, want one of %s sent to %s", len(sent), tt.device, tt.target)
			}
			if rec.Body.Len() != 0 {
				t.Errorf("got body %q, want none", rec.Body)
			}
		})
	}
}

func TestAliasLogsInAndNamesItsTenant(t *testing.T) {
	w := newWorld(t, http.Options{}, adapters.Options{})
	alias := basic(string(adaptertest.Gateway)+"@"+string(adaptertest.Alias), adaptertest.Password)
	for _, target := range []string{"/telemetry//device:2", "/telemetry/tenant-1/device:2", "/telemetry/alias-1/device:2"} {
		if rec := w.do("PUT", target, "x", alias, text); rec.Code != 202 {
			t.Errorf("%s: got %d %s, want 202", target, rec.Code, rec.Body)
		}
	}
}

// unread fails the test when somebody reads it.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}
func (unread) Close() error { return nil }

func TestBodyIsNotReadInVain(t *testing.T) {
	for _, tt := range []struct {
		name, auth string
		length     int64
		want       int
	}{
		{"not authenticated", basic("device-1@tenant-1", "wrong"), 10, 401},
		{"disabled", as(adaptertest.DisabledDevice), -1, 404},
		{"announced as too large", as(adaptertest.Device), 2049, 413},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, http.Options{}, adapters.Options{})
			r := httptest.NewRequest("POST", "/telemetry", nil)
			r.Body, r.ContentLength = unread{t}, tt.length
			r.Header.Set("Authorization", strings.TrimPrefix(tt.auth, "Authorization: "))
			rec := httptest.NewRecorder()
			w.ServeHTTP(rec, r)
			if rec.Code != tt.want {
				t.Errorf("got %d, want %d", rec.Code, tt.want)
			}
		})
	}
}

func TestQoSAndTTL(t *testing.T) {
	for _, tt := range []struct {
		target string
		header string
		want   int
		qos    iot.QoS
		ttl    time.Duration
	}{
		{"/telemetry", "", 202, 0, 0},
		{"/telemetry", "qos-level: 0", 202, 0, 0},
		{"/telemetry", "QoS-Level: 1", 202, 1, 0},
		{"/telemetry", "QoS-Level: 2", 400, 0, 0},
		{"/telemetry", "QoS-Level: one", 400, 0, 0},
		{"/telemetry", "hono-ttl: 30", 202, 0, 0},
		{"/telemetry?hono-ttl=30", "", 202, 0, 0},
		{"/event", "", 202, 1, 0},
		{"/event", "QoS-Level: 1", 202, 1, 0},
		{"/event", "QoS-Level: 0", 400, 0, 0},
		{"/event", "QoS-Level: 2", 400, 0, 0},
		{"/event", "hono-ttl: 30", 202, 1, 30 * time.Second},
		{"/event?hono-ttl=40", "", 202, 1, 40 * time.Second},
		{"/event?hono-ttl=40", "hono-ttl: 30", 202, 1, 30 * time.Second},
		{"/event", "hono-ttl: -1", 202, 1, 0},
		{"/event", "hono-ttl: soon", 202, 1, 0},
		{"/event", "hono-ttd: soon", 202, 1, 0},
	} {
		t.Run(tt.target+" "+tt.header, func(t *testing.T) {
			w := newWorld(t, http.Options{}, adapters.Options{})
			rec := w.do("POST", tt.target, "x", as(adaptertest.Device), text, tt.header)
			if rec.Code != tt.want {
				t.Fatalf("got %d %s, want %d", rec.Code, rec.Body, tt.want)
			}
			if sent := w.down.Sent(); tt.want == 202 && (sent[0].QoS != tt.qos || sent[0].TTL != tt.ttl) {
				t.Errorf("got QoS %d, ttl %v; want %d, %v", sent[0].QoS, sent[0].TTL, tt.qos, tt.ttl)
			}
		})
	}
}

func TestBodies(t *testing.T) {
	for _, tt := range []struct {
		name, body, contentType string
		want                    int
		sent                    string // content type of the message
	}{
		{"plain", "x", "text/plain", 202, "text/plain"},
		{"parameters", "x", "text/plain; charset=utf-8", 202, "text/plain"},
		{"no type", "x", "", 202, "application/octet-stream"},
		{"parameters only", "x", "; charset=utf-8", 202, "application/octet-stream"},
		{"empty", "", "text/plain", 202, "text/plain"},
		{"empty notification", "", adapters.EmptyNotification, 202, adapters.EmptyNotification},
		{"nothing", "", "", 400, ""},
		{"notification with payload", "x", adapters.EmptyNotification, 400, ""},
		{"largest", strings.Repeat("x", 2048), "text/plain", 202, "text/plain"},
		{"too large", strings.Repeat("x", 4096), "text/plain", 413, ""},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, chunked %v", tt.name, chunked), func(t *testing.T) {
				w := newWorld(t, http.Options{}, adapters.Options{})
				r := httptest.NewRequest("POST", "/telemetry", io.NopCloser(strings.NewReader(tt.body)))
				if r.ContentLength = int64(len(tt.body)); chunked {
					r.ContentLength = -1
				}
				r.SetBasicAuth("device-1@tenant-1", adaptertest.Password)
				r.Header.Set("Content-Type", tt.contentType)
				rec := httptest.NewRecorder()
				w.ServeHTTP(rec, r)
				if rec.Code != tt.want {
					t.Fatalf("got %d %s, want %d", rec.Code, rec.Body, tt.want)
				}
				if tt.want != 202 {
					return
				}
				m := w.down.Sent()[0]
				if m.ContentType != tt.sent || string(m.Payload) != tt.body || (m.Payload == nil) != (tt.body == "") {
					t.Errorf("got %q %q, want %q %q", m.ContentType, m.Payload, tt.sent, tt.body)
				}
			})
		}
	}
}

func TestWithoutAuthentication(t *testing.T) {
	for _, tt := range []struct {
		method, target string
		want           int
	}{
		{"PUT", "/telemetry/tenant-1/device-1", 202},
		{"PUT", "/telemetry//device-1", 404},
		{"PUT", "/telemetry/nowhere/device-1", 404},
		{"PUT", "/telemetry/tenant-1", 404},
		{"PUT", "/telemetry", 404},
		{"POST", "/telemetry", 404},
		{"POST", "/telemetry/tenant-1/device-1", 405},
	} {
		w := newWorld(t, http.Options{NoAuthentication: true}, adapters.Options{})
		if rec := w.do(tt.method, tt.target, "x", text); rec.Code != tt.want {
			t.Errorf("%s %s: got %d %s, want %d", tt.method, tt.target, rec.Code, rec.Body, tt.want)
		}
	}
}

func TestPreflight(t *testing.T) {
	const telemetry, event = "QoS-Level, hono-ttd, authorization, content-type", "hono-ttd, authorization, content-type"
	const response = "hono-cmd-status, authorization, content-type"
	for _, tt := range []struct{ target, method, headers string }{
		{"/telemetry", "POST", telemetry},
		{"/telemetry/tenant-1/device-1", "PUT", telemetry},
		{"/telemetry//device-1", "PUT", telemetry},
		{"/event", "POST", event},
		{"/event/tenant-1/device-1", "PUT", event},
		{"/event//device-1", "PUT", event},
		{"/command/res/0041234reply", "POST, PUT", response},
		{"/command/res/tenant-1/device-1/0041234reply", "POST, PUT", response},
		{"/command/res//device-1/0041234reply", "PUT", response},
	} {
		w := newWorld(t, http.Options{}, adapters.Options{})
		rec := w.do("OPTIONS", tt.target, "", "Origin: http://shop.example", "Access-Control-Request-Method: "+strings.TrimPrefix(tt.method, "POST, "))
		h := rec.Header()
		got := []any{rec.Code, h.Get("Access-Control-Allow-Origin"), h.Get("Access-Control-Allow-Methods"), h.Get("Access-Control-Allow-Headers")}
		want := []any{204, "*", tt.method, tt.headers}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %v, want %v", tt.target, got, want)
		}
	}
	w := newWorld(t, http.Options{NoAuthentication: true}, adapters.Options{})
	if rec := w.do("OPTIONS", "/telemetry", "", "Origin: http://shop.example", "Access-Control-Request-Method: POST"); rec.Code != 404 {
		t.Errorf("POST without authentication: got %d, want 404", rec.Code)
	}
	rec := w.do("OPTIONS", "/command/res/0041234reply", "", "Origin: http://shop.example", "Access-Control-Request-Method: PUT")
	if got := rec.Header().Get("Access-Control-Allow-Methods"); rec.Code != 204 || got != "PUT" {
		t.Errorf("command response without authentication: got %d %q, want 204 PUT", rec.Code, got)
	}
}

func TestCrossOriginUploads(t *testing.T) {
	const mine = "http://shop.example"
	for _, tt := range []struct {
		allowed, origin, auth string
		want                  int
		allow, expose         string
	}{
		{"", mine, as(adaptertest.Device), 202, "*", "hono-command, hono-cmd-req-id"},
		{"", mine, "", 401, "*", "hono-command, hono-cmd-req-id"},
		{"", "", as(adaptertest.Device), 202, "", ""},
		{mine, mine, as(adaptertest.Device), 202, mine, "hono-command, hono-cmd-req-id"},
		{mine, "http://other.example", as(adaptertest.Device), 403, "", ""},
		{mine, "", as(adaptertest.Device), 202, "", ""},
	} {
		w := newWorld(t, http.Options{AllowedOrigin: tt.allowed}, adapters.Options{})
		rec := w.do("POST", "/telemetry", "x", tt.auth, text, "Origin: "+tt.origin)
		h := rec.Header()
		got := []any{rec.Code, h.Get("Access-Control-Allow-Origin"), h.Get("Access-Control-Expose-Headers"), h.Get("Vary")}
		vary := ""
		if tt.allowed != "" {
			vary = "Origin"
		}
		if want := []any{tt.want, tt.allow, tt.expose, vary}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%+v: got %v, want %v", tt, got, want)
		}
	}
}
