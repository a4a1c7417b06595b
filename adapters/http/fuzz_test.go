package http_test

import (
	"encoding/base64"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/adapters/http"
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
	for _, s := range []string{"/telemetry", "/telemetry//device:2", "/telemetry/tenant-1/device:2", "//", "", "/event/%2f/", "/telemetry/\x00/\xff", "*"} {
		f.Add("PUT", s)
		f.Add("POST", s)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		w := newWorld(t, http.Options{}, adapters.Options{})
		r := httptest.NewRequest("PUT", "/", strings.NewReader("x"))
		r.Method, r.URL, r.RequestURI = method, &url.URL{Path: path}, path
		r.SetBasicAuth("gateway-1@tenant-1", adaptertest.Password)
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, r)
		if rec.Code < 200 || rec.Code > 405 {
			t.Errorf("got %d %s", rec.Code, rec.Body)
		}
		for _, m := range w.down.Sent() {
			if method == "PUT" && !strings.Contains(path, "/"+string(m.Device)) || rec.Code != 202 {
				t.Errorf("%q led to device %q with status %d", path, m.Device, rec.Code)
			}
		}
	})
}
