package http_test

import (
	"bufio"
	"encoding/base64"
	nethttp "net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
	"github.com/sluice-iot/sluice/internal/iot"
)

// FuzzBasicAuth checks that any header is answered, and that what reaches
// admission is a complete login.
func FuzzBasicAuth(f *testing.F) {
	whole := "device-1@tenant-1:" + adaptertest.Password
	for _, s := range []string{"", "Basic", "Basic ", "Basic ====", "Bearer x", "Basic " + base64.StdEncoding.EncodeToString([]byte(whole))} {
		f.Add(s)
	}
	for _, s := range []string{"@:", ":", "a@b:", "a@b:c:d", "\xff@b:c", base64.StdEncoding.EncodeToString([]byte(whole)) + ":"} {
		f.Add("Basic " + base64.StdEncoding.EncodeToString([]byte(s)))
	}
	f.Fuzz(func(t *testing.T, header string) {
		w := newWorld(t, http.Options{}, adapters.Options{})
		r := httptest.NewRequest("POST", "/telemetry", strings.NewReader("x"))
		r.Header["Authorization"] = []string{header}
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, r)
		if rec.Code != 202 && rec.Code != 401 && rec.Code != 403 && rec.Code != 404 {
			t.Errorf("got %d %s", rec.Code, rec.Body)
		}
		for _, q := range w.inv.Calls() {
			c := q.Credential
			if c == nil || c.AuthID == "" || c.Password == "" || q.TenantRef.ID == "" || strings.Contains(c.AuthID, "@") || !utf8.ValidString(c.AuthID) {
				t.Errorf("asked with %+v and tenant %q", c, q.TenantRef.ID)
			}
		}
	})
}

// FuzzPath checks that any path is answered, and that a device reached by it is
// one of its segments.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/command/res/005req-1r", "/command/res/8MDA1cmVxLTFy", "/command/res//device:2/105req-1r/s", "/command/res/tenant-1/device:2/005req-1r", "/command//res", "/telemetry", "/telemetry//device:2", "/telemetry/tenant-1/device:2", "//", "", "/event/%2f/", "/telemetry/\x00/\xff", "*"} {
		f.Add("PUT", s)
		f.Add("POST", s)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		w := newWorld(t, http.Options{}, adapters.Options{})
		r := httptest.NewRequest("PUT", "/", strings.NewReader("x"))
		r.Method, r.URL, r.RequestURI = method, &url.URL{Path: path}, path
		r.SetBasicAuth("gateway-1@tenant-1", adaptertest.Password)
		r.Header.Set("hono-cmd-status", "200")
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, r)
		if rec.Code < 200 || rec.Code > 405 {
			t.Errorf("got %d %s", rec.Code, rec.Body)
		}
		for _, m := range w.down.Sent() {
			if method == "PUT" && !strings.Contains(path, "/"+string(m.Device)) || rec.Code != 202 {
				t.Errorf("%q led to device %q with status %d", path, m.Device, rec.Code)
			}
			if response := strings.HasPrefix(path, "/command/res/"); response != (m.Endpoint == iot.CommandResponse) || response != (m.ReplyID != "" && m.CorrelationID != "") {
				t.Errorf("%q led to %s, reply id %q, correlation id %q", path, m.Endpoint, m.ReplyID, m.CorrelationID)
			}
		}
	})
}

// FuzzRequestID checks that a request id comes back as it was given out, whether the
// device escapes it or not.
func FuzzRequestID(f *testing.F) {
	for _, id := range oddIDs {
		f.Add(id, "device-1/r")
		f.Add("1", id)
	}
	f.Fuzz(func(t *testing.T, correlation, reply string) {
		c := to(adaptertest.Device)
		c.CorrelationID, c.ReplyID = correlation, reply
		id, err := c.RequestID()
		if err != nil {
			return
		}
		given := http.GiveOut(id)
		for _, sent := range []string{given, url.PathEscape(given), strings.ReplaceAll(url.QueryEscape(given), "+", "%20")} {
			r, err := nethttp.ReadRequest(bufio.NewReader(strings.NewReader("POST /command/res/" + sent + " HTTP/1.1\r\nHost: x\r\n\r\n")))
			if err != nil {
				t.Fatalf("%q: %v", sent, err)
			}
			got, err := http.TakeBack(r.URL.Path, adaptertest.Device)
			if err != nil || got != (adapters.ResponseTo{CorrelationID: correlation, ReplyID: reply}) {
				t.Errorf("%q sent as %s came back as %q, %v", id, sent, got, err)
			}
		}
	})
}
