package http_test

import (
	"encoding/json"
	"errors"
	nethttp "net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
	"github.com/sluice-iot/sluice/internal/iot"
)

const okStatus = "hono-cmd-status: 200"

func TestCommandResponses(t *testing.T) {
	for _, tt := range []struct {
		name, method, target string
		as                   iot.DeviceID
		header, body         string
		device               iot.DeviceID
		correlation, reply   string
		status               int
		contentType          string
	}{
		{"device", "POST", "/command/res/005req-1replies/1", adaptertest.Device, okStatus, "x", adaptertest.Device, "req-1", "replies/1", 200, "text/plain"},
		{"device's own reply id", "POST", "/command/res/105req-14711", adaptertest.Device, okStatus, "x", adaptertest.Device, "req-1", "device-1/4711", 200, "text/plain"},
		{"escaped", "POST", "/command/res/005req-1replies%2F1", adaptertest.Device, okStatus, "x", adaptertest.Device, "req-1", "replies/1", 200, "text/plain"},
		{"all escaped", "POST", "/command%2Fres%2F005req-1replies%2F1", adaptertest.Device, okStatus, "x", adaptertest.Device, "req-1", "replies/1", 200, "text/plain"},
		{"id that no path can have", "POST", "/command/res/8MDA3NTAlIG9mP3JlcGxpZXMvMQ", adaptertest.Device, okStatus, "x", adaptertest.Device, "50% of?", "replies/1", 200, "text/plain"},
		{"status by query", "POST", "/command/res/005req-1r?hono-cmd-status=404", adaptertest.Device, "", "x", adaptertest.Device, "req-1", "r", 404, "text/plain"},
		{"header wins", "POST", "/command/res/005req-1r?hono-cmd-status=404", adaptertest.Device, "hono-cmd-status: 599", "x", adaptertest.Device, "req-1", "r", 599, "text/plain"},
		{"no body", "POST", "/command/res/005req-1r", adaptertest.Device, "hono-cmd-status: 299", "", adaptertest.Device, "req-1", "r", 299, "text/plain"},
		{"device puts", "PUT", "/command/res/tenant-1/device-1/005req-1r", adaptertest.Device, okStatus, "x", adaptertest.Device, "req-1", "r", 200, "text/plain"},
		{"gateway", "PUT", "/command/res/tenant-1/device:2/105req-1r", adaptertest.Gateway, okStatus, "x", adaptertest.Device2, "req-1", "device:2/r", 200, "text/plain"},
		{"gateway, own tenant", "PUT", "/command/res//device:2/105req-1r/s", adaptertest.Gateway, okStatus, "x", adaptertest.Device2, "req-1", "device:2/r/s", 200, "text/plain"},
		{"gateway, escaped", "PUT", "/command/res//device%3A2/105req-1r%2Fs", adaptertest.Gateway, okStatus, "x", adaptertest.Device2, "req-1", "device:2/r/s", 200, "text/plain"},
		{"gateway for itself", "POST", "/command/res/005req-1r", adaptertest.Gateway, okStatus, "x", adaptertest.Gateway, "req-1", "r", 200, "text/plain"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, http.Options{}, adapters.Options{})
			rec := w.do(tt.method, tt.target, tt.body, as(tt.as), text, tt.header, "Origin: http://shop.example")
			if rec.Code != 202 || rec.Body.Len() > 0 {
				t.Fatalf("got %d %s, want 202", rec.Code, rec.Body)
			}
			if h := rec.Header(); h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Expose-Headers") != "" {
				t.Errorf("got headers %v", h)
			}
			m := w.down.Sent()[0]
			if m.Endpoint != iot.CommandResponse || m.Device != tt.device || m.ContentType != tt.contentType || string(m.Payload) != tt.body {
				t.Errorf("got %+v", m)
			}
			if m.CorrelationID != tt.correlation || m.ReplyID != tt.reply || m.Status != tt.status {
				t.Errorf("got correlation id %q, reply id %q, status %d; want %q, %q, %d", m.CorrelationID, m.ReplyID, m.Status, tt.correlation, tt.reply, tt.status)
			}
		})
	}
}

var responseTable = []row{
	{code: 400, cause: "no status", header: as(adaptertest.Device), text: "hono-cmd-status is missing or no number: want 200 to 299 or 400 to 599"},
	{code: 400, cause: "status is no number", header: as(adaptertest.Device) + "\nhono-cmd-status: ok", text: "hono-cmd-status is missing or no number: want 200 to 299 or 400 to 599"},
	{code: 400, cause: "unparsable header is a missing one", target: "/command/res/005req-1r?hono-cmd-status=200", header: as(adaptertest.Device) + "\nhono-cmd-status: ok", text: "hono-cmd-status is missing or no number: want 200 to 299 or 400 to 599"},
	{code: 400, cause: "status below", header: as(adaptertest.Device) + "\nhono-cmd-status: 199"},
	{code: 400, cause: "status between", header: as(adaptertest.Device) + "\nhono-cmd-status: 302"},
	{code: 400, cause: "status above", header: as(adaptertest.Device) + "\nhono-cmd-status: 600"},
	{code: 400, cause: "request id too short", target: "/command/res/00"},
	{code: 400, cause: "request id without flag", target: "/command/res/x05req-1r"},
	{code: 400, cause: "request id that ends early", target: "/command/res/0ffreq-1r"},
	{code: 400, cause: "malformed escaped id", target: "/command/res/8!", text: "malformed request id: want it as hono-cmd-req-id had it"},
	{code: 400, cause: "request id too long", target: "/command/res/005" + strings.Repeat("x", 5600), text: "request id: at most 5600 bytes"},
	{code: 400, cause: "device id too long", method: "PUT", target: "/command/res//" + strings.Repeat("d", 600) + "/005req-1r", text: "tenant and device: at most 512 bytes each"},
	{code: 400, cause: "path", target: "/command/res/005req%00r", text: "malformed path"},
	{code: 401, cause: "no credentials", header: okStatus, text: "credentials are missing: want a client certificate, HTTP Basic or a Bearer token"},
	{code: 401, cause: "wrong password", header: basic("device-1@tenant-1", "wrong") + "\n" + okStatus, text: "bad credentials"},
	{code: 403, cause: "foreign tenant", method: "PUT", target: "/command/res/tenant-2/device-1/005req-1r", text: "not authorized for this tenant"},
	{code: 403, cause: "gateway not in via", method: "PUT", target: "/command/res//device-3/005req-1r", header: as(adaptertest.Gateway) + "\n" + okStatus, text: "gateway is disabled or not registered"},
	{code: 404, cause: "device unknown", method: "PUT", target: "/command/res//nobody/005req-1r", header: as(adaptertest.Gateway) + "\n" + okStatus, text: "device is disabled or not registered"},
	{code: 404, cause: "no request id", target: "/command/res", text: "want /command/res/{request-id} or /command/res/{tenant}/{device}/{request-id}"},
	{code: 404, cause: "no request id either", method: "PUT", target: "/command/res/", text: "want /command/res/{request-id} or /command/res/{tenant}/{device}/{request-id}"},
	{code: 404, cause: "PUT of the request alone", method: "PUT", target: "/command/res/005req-1r", text: "tenant, device or request id is missing: want /command/res/{tenant}/{device}/{request-id}"},
	{code: 404, cause: "PUT without request", method: "PUT", target: "/command/res/tenant-1/device-1", text: "tenant, device or request id is missing: want /command/res/{tenant}/{device}/{request-id}"},
	{code: 404, cause: "PUT without device", method: "PUT", target: "/command/res/tenant-1//005req-1r", text: "tenant, device or request id is missing: want /command/res/{tenant}/{device}/{request-id}"},
	{code: 404, cause: "no responses", target: "/command/req/005req-1r", text: "no such endpoint"},
	{code: 404, cause: "short name", target: "/command/s/005req-1r", text: "no such endpoint"},
	{code: 404, cause: "command alone", target: "/command", text: "no such endpoint"},
	{code: 405, cause: "method", method: "GET", text: "method is not allowed: want POST or PUT", allow: "POST, PUT, OPTIONS"},
	{code: 405, cause: "POST with an empty tenant", target: "/command/res//device-1/005req-1r", text: "method is not allowed: want PUT", allow: "PUT, OPTIONS"},
	{code: 413, cause: "body", body: strings.Repeat("x", 2049), text: "request body is larger than 2048 bytes"},
	{code: 400, cause: "rejected by the application", outcome: iot.Errorf(iot.ErrInvalid, "not now"), text: "not now"},
	{code: 503, cause: "nobody waits for it", outcome: iot.ErrNoCredit, text: adapters.TextNoConsumer},
	{code: 503, cause: "no router", outcome: iot.ErrUnavailable},
	{code: 503, cause: "registry unreachable", admission: iot.ErrUnavailable, text: adapters.TextUnavailable},
	{code: 500, cause: "unknown error of the function", admission: errors.New("pq: password of db is hunter2"), text: "Internal server error"},
	{code: 500, cause: "unknown error from downstream", outcome: errors.New("panic: hunter2")},
}

func TestStatusTableOfCommandResponses(t *testing.T) {
	for _, tt := range responseTable {
		t.Run(tt.cause, func(t *testing.T) {
			if tt.target == "" {
				tt.target = "/command/res/005req-1r"
			}
			if tt.header == "" {
				tt.header = as(adaptertest.Device) + "\n" + okStatus
			}
			w := newWorld(t, http.Options{}, adapters.Options{})
			w.inv.Fail(tt.admission)
			w.down.Outcome(func(*iot.Message) error { return tt.outcome })
			rec := tt.request(w)
			var answer map[string]string
			if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
				t.Fatalf("got body %q: %v", rec.Body, err)
			}
			if rec.Code != tt.code || answer["error"] == "" || tt.text != "" && answer["error"] != tt.text {
				t.Errorf("got %d %s, want %d %q", rec.Code, rec.Body, tt.code, tt.text)
			}
			if strings.Contains(rec.Body.String(), "hunter2") {
				t.Errorf("the device was told %s", rec.Body)
			}
			tt.headers(t, rec.Header(), rec.Body.Len())
			if sent := len(w.down.Sent()); (sent > 0) != (tt.outcome != nil) {
				t.Errorf("got %d messages", sent)
			}
		})
	}
}

func TestCommandResponsesWithoutAuthentication(t *testing.T) {
	for _, tt := range []struct {
		method, target string
		want           int
	}{
		{"PUT", "/command/res/tenant-1/device-1/005req-1r", 202},
		{"PUT", "/command/res//device-1/005req-1r", 404},
		{"PUT", "/command/res/nowhere/device-1/005req-1r", 404},
		{"POST", "/command/res/005req-1r", 405},
	} {
		w := newWorld(t, http.Options{NoAuthentication: true}, adapters.Options{})
		if rec := w.do(tt.method, tt.target, "x", okStatus); rec.Code != tt.want {
			t.Errorf("%s %s: got %d %s, want %d", tt.method, tt.target, rec.Code, rec.Body, tt.want)
		}
	}
}

// oddIDs are correlation ids that a path is not clear about.
var oddIDs = []string{"1", "a/b", "a//b", "/a", "a/", "a/./b", "a/../b", "..", "a%2Fb", "a%252Fb", "100%", "a b", "a+b", "a?b#c", "a\\b", "\u00e4", "\u20ac\U0001f600", "\x00\r\n", "8abc", `"<>"`, ";=&"}

// The request id of a command leads its response back, sent as it came or escaped.
func TestRequestIDsComeBack(t *testing.T) {
	answers := newWorld(t, http.Options{}, adapters.Options{})
	base, client := serve(t, answers.Adapter)
	for _, id := range oddIDs {
		for _, reply := range []string{"r", "device-1/r", "device-1/a%2Fb", "x/y/"} {
			c := to(adaptertest.Device)
			c.CorrelationID, c.ReplyID = id, reply
			var o outcomes
			w := atOnce(t, &o, c)
			rec := w.do("POST", "/telemetry?hono-ttd=9", "x", as(adaptertest.Device), text)
			given := rec.Header().Get("hono-cmd-req-id")
			if rec.Code != 200 || given == "" {
				t.Fatalf("%q, %q: got %d and request id %q", id, reply, rec.Code, given)
			}
			for _, target := range []string{
				"/command/res/" + given, "/command/res/" + url.PathEscape(given), "/command/res/" + strings.ReplaceAll(url.QueryEscape(given), "+", "%20"),
			} {
				r, err := nethttp.NewRequestWithContext(t.Context(), "POST", base, nethttp.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				r.URL.Opaque = target // as it is
				r.SetBasicAuth("device-1@tenant-1", adaptertest.Password)
				r.Header.Set("hono-cmd-status", "200")
				resp, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != 202 {
					t.Fatalf("%q, %q as %s: got %d", id, reply, target, resp.StatusCode)
				}
				sent := answers.down.Sent()
				if m := sent[len(sent)-1]; m.CorrelationID != id || m.ReplyID != reply {
					t.Errorf("%q, %q came back as %q, %q by %s", id, reply, m.CorrelationID, m.ReplyID, target)
				}
			}
		}
	}
}
