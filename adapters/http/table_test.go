package http_test

import (
	"encoding/json"
	"errors"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
	"github.com/sluice-iot/sluice/internal/iot"
)

// row is one cause of a status (contract: adapters 7.6 and 15).
type row struct {
	code   int
	cause  string
	method string // "" = POST
	target string // "" = /telemetry
	header string // instead of those of Device
	body   string // "" = x, "-" = none

	admission error // of the function
	outcome   error // from downstream

	text       string
	retryAfter string
	allow      string
}

var asGateway = as(adaptertest.Gateway) + "\n" + text

var table = []row{
	{code: 400, cause: "payload without content type is the default, none at all is not", header: as(adaptertest.Device), body: "-", text: "content type is missing: an upload without payload needs one"},
	{code: 400, cause: "empty notification with payload", header: as(adaptertest.Device) + "\nContent-Type: " + adapters.EmptyNotification, text: "content type application/vnd.eclipse-hono-empty-notification does not go with a payload"},
	{code: 400, cause: "content type", header: as(adaptertest.Device) + "\nContent-Type: te\u00e4t", text: "content type and encoding: want at most 255 printable ASCII characters"},
	{code: 400, cause: "QoS of telemetry", header: as(adaptertest.Device) + "\n" + text + "\nqos-level: 2", text: "header QoS-Level: want 0 or 1"},
	{code: 400, cause: "QoS of an event", target: "/event", header: as(adaptertest.Device) + "\n" + text + "\nqos-level: 0", text: "header QoS-Level: events are sent with 1 only"},
	{code: 400, cause: "path", method: "PUT", target: "/telemetry//a%00b", header: asGateway, text: "malformed path"},
	{code: 400, cause: "rejected by the application", outcome: iot.Errorf(iot.ErrInvalid, `no "number" <b>`), text: `no "number" <b>`},
	{code: 400, cause: "rejected without a word", outcome: iot.ErrInvalid, text: "message was rejected"},
	{code: 400, cause: "refused by the function", admission: iot.Errorf(iot.ErrInvalid, "device-id: too long"), text: "device-id: too long"},

	{code: 401, cause: "no credentials", header: text, text: "credentials are missing: want a client certificate, HTTP Basic or a Bearer token"},
	{code: 401, cause: "wrong password", header: basic("device-1@tenant-1", "wrong"), text: "bad credentials"},
	{code: 401, cause: "unknown tenant", header: basic("device-1@nowhere", adaptertest.Password), text: "bad credentials"},
	{code: 401, cause: "unknown auth-id", header: basic("nobody@tenant-1", adaptertest.Password), text: "bad credentials"},

	{code: 403, cause: "adapter disabled", header: basic("device-1@tenant-off", adaptertest.Password), text: "adapter is disabled"},
	{code: 403, cause: "tenant disabled", admission: iot.Errorf(iot.ErrForbidden, "tenant is disabled or not registered"), text: "tenant is disabled or not registered"},
	{code: 403, cause: "gateway not in via", method: "PUT", target: "/telemetry//device-3", header: asGateway, text: "gateway is disabled or not registered"},
	{code: 403, cause: "gateway not in via, whole URI", method: "PUT", target: "/telemetry/tenant-1/device-3", header: asGateway, text: "gateway is disabled or not registered"},
	{code: 403, cause: "foreign tenant", method: "PUT", target: "/event/tenant-2/device:2", header: asGateway, text: "not authorized for this tenant"},

	{code: 404, cause: "device disabled", header: as(adaptertest.DisabledDevice), text: "device is disabled or not registered"},
	{code: 404, cause: "device unknown", method: "PUT", target: "/telemetry//nobody", header: asGateway, text: "device is disabled or not registered"},
	{code: 404, cause: "URI without device", method: "PUT", header: asGateway, text: "device id is missing: want /telemetry/{tenant}/{device}"},
	{code: 404, cause: "URI that ends early", method: "PUT", target: "/event/tenant-1", header: asGateway, text: "want /event or /event/{tenant}/{device}"},
	{code: 404, cause: "URI that goes on", method: "PUT", target: "/event/tenant-1/a/b", header: asGateway, text: "want /event or /event/{tenant}/{device}"},
	{code: 404, cause: "no such route", target: "/nowhere", text: "no such endpoint"},
	{code: 404, cause: "short name", target: "/t", text: "no such endpoint"},

	{code: 405, cause: "other method", method: "GET", body: "-", text: "method is not allowed: want POST", allow: "POST, OPTIONS"},
	{code: 405, cause: "POST for another", target: "/telemetry//device:2", header: asGateway, text: "method is not allowed: want PUT", allow: "PUT, OPTIONS"},

	{code: 409, cause: "other 4xx", admission: iot.Errorf(iot.ErrExists, "device has the id of another one"), text: "device has the id of another one"},

	{code: 413, cause: "body", body: strings.Repeat("x", 4096), text: "request body is larger than 2048 bytes"},
	{code: 413, cause: "too large for the router", outcome: iot.ErrTooLarge, text: "message is too large"},

	{code: 429, cause: "data volume", outcome: iot.Errorf(iot.ErrQuota, "data volume exceeded"), text: "data volume exceeded", retryAfter: "1"},
	{code: 429, cause: "attempts", admission: &iot.Error{Sentinel: iot.ErrQuota, Text: "too many", RetryAfter: 59500 * time.Millisecond}, text: "too many", retryAfter: "60"},

	{code: 503, cause: "no consumer", outcome: iot.ErrNoCredit, text: adapters.TextNoConsumer, retryAfter: "2"},
	{code: 503, cause: "not processed", outcome: iot.Errorf(iot.ErrUnavailable, adapters.TextNotProcessed), text: adapters.TextNotProcessed, retryAfter: "2"},
	{code: 503, cause: "not settled", outcome: iot.ErrTimeout, text: adapters.TextNoOutcome, retryAfter: "2"},
	{code: 503, cause: "no router", outcome: iot.ErrUnavailable, text: adapters.TextUnavailable, retryAfter: "2"},
	{code: 503, cause: "event not stored", target: "/event", outcome: iot.ErrNoCredit, text: adapters.TextNoEvents, retryAfter: "2"},
	{code: 503, cause: "registry unreachable", admission: iot.ErrUnavailable, text: adapters.TextUnavailable, retryAfter: "2"},
	{code: 503, cause: "registry slow", admission: iot.ErrTimeout, text: adapters.TextUnavailable, retryAfter: "2"},
	{code: 503, cause: "registry busy", admission: &iot.Error{Sentinel: iot.ErrUnavailable, Text: "busy", RetryAfter: 5 * time.Second}, text: adapters.TextUnavailable, retryAfter: "5"},
	{code: 503, cause: "unknown error of the function", admission: errors.New("pq: password of db is hunter2"), text: adapters.TextUnavailable, retryAfter: "2"},
	{code: 503, cause: "unknown error from downstream", outcome: errors.New("panic: hunter2"), text: adapters.TextUnavailable, retryAfter: "2"},
}

func TestStatusTable(t *testing.T) {
	for _, tt := range table {
		t.Run(strconv.Itoa(tt.code)+" "+tt.cause, func(t *testing.T) {
			w := newWorld(t, http.Options{}, adapters.Options{})
			w.inv.Fail(tt.admission)
			w.down.Outcome(func(*iot.Message) error { return tt.outcome })
			rec := tt.request(w)
			var answer map[string]string
			if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
				t.Fatalf("got body %q: %v", rec.Body, err)
			}
			if rec.Code != tt.code || answer["error"] != tt.text || len(answer) != 1 {
				t.Errorf("got %d %s, want %d %q", rec.Code, rec.Body, tt.code, tt.text)
			}
			tt.headers(t, rec.Header(), rec.Body.Len())
			if sent := len(w.down.Sent()); (sent > 0) != (tt.outcome != nil) {
				t.Errorf("got %d messages", sent)
			}
		})
	}
}

func (tt *row) request(w world) *httptest.ResponseRecorder {
	method, target, header, body := tt.method, tt.target, tt.header, tt.body
	for _, d := range []struct {
		to  *string
		def string
	}{{&method, "POST"}, {&target, "/telemetry"}, {&header, as(adaptertest.Device) + "\n" + text}, {&body, "x"}} {
		if *d.to == "" {
			*d.to = d.def
		}
	}
	return w.do(method, target, strings.TrimPrefix(body, "-"), strings.Split(header, "\n")...)
}

func (tt *row) headers(t *testing.T, h nethttp.Header, length int) {
	challenges := 0
	if tt.code == 401 {
		challenges = 2
	}
	if got := h.Values("WWW-Authenticate"); len(got) != challenges || challenges > 0 && got[0] != `Basic realm="Hono"` {
		t.Errorf("got challenges %q, want %d", got, challenges)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json; charset=utf-8", "Content-Length": strconv.Itoa(length),
		"Retry-After": tt.retryAfter, "Allow": tt.allow,
	} {
		if got := h.Get(name); got != want {
			t.Errorf("got %s %q, want %q", name, got, want)
		}
	}
}

func TestAccepted(t *testing.T) {
	for _, target := range []string{"/telemetry", "/event", "/telemetry?hono-ttd=5", "/event?hono-ttl=5&hono-ttd=1"} {
		w := newWorld(t, http.Options{}, adapters.Options{})
		base, client := serve(t, w.Adapter)
		r, _ := nethttp.NewRequestWithContext(t.Context(), "POST", base+target, strings.NewReader("x"))
		r.SetBasicAuth("device-1@tenant-1", adaptertest.Password)
		r.Header.Set("hono-ttd", "0")
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		delete(resp.Header, "Date")
		if resp.StatusCode != 202 || resp.Header.Get("Content-Length") != "0" || len(resp.Header) != 1 || len(body) != 0 {
			t.Errorf("%s: got %d %v %q, want 202 with content-length 0 alone", target, resp.StatusCode, resp.Header, body)
		}
		if m := w.down.Sent()[0]; m.Address != target || m.TTD != nil {
			t.Errorf("%s: got address %q, ttd %v", target, m.Address, m.TTD)
		}
	}
}

func TestTooManyAttempts(t *testing.T) {
	w := newWorld(t, http.Options{}, adapters.Options{})
	for i := range 11 {
		rec := w.do("POST", "/telemetry", "x", basic("device-1@tenant-1", "wrong"), text)
		want := 401
		if i == 10 {
			want = 429
		}
		if rec.Code != want || (rec.Header().Get("Retry-After") != "") != (want == 429) {
			t.Errorf("attempt %d: got %d, Retry-After %q; want %d", i, rec.Code, rec.Header().Get("Retry-After"), want)
		}
	}
}
