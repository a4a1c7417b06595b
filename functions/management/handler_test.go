package management_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/functions/management"
)

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestTenantLifeCycle(t *testing.T) {
	a := start(t, management.Options{})
	res, body := a.request("POST", "/v1/tenants/T", "")
	if res.StatusCode != 201 || body != `{"id":"T"}` || res.Header.Get("Location") != "/v1/tenants/T" || !uuid.MatchString(res.Header.Get("ETag")) {
		t.Fatalf("got %d %s %v", res.StatusCode, body, res.Header)
	}
	etag, body := a.want(200, "GET", "/v1/tenants/T", "")
	if body != `{}` || etag != res.Header.Get("ETag") {
		t.Fatalf("got %s with ETag %s", body, etag)
	}
	a.want(409, "POST", "/v1/tenants/T", "")
	a.want(404, "GET", "/v1/tenants/U", "")
	a.want(404, "PUT", "/v1/tenants/U", "{}", "If-Match", "x")
	a.want(412, "PUT", "/v1/tenants/T", "{}", "If-Match", "x")
	a.want(412, "PUT", "/v1/tenants/T", "{}", "If-Match", "*")
	second, _ := a.want(204, "PUT", "/v1/tenants/T", `{"enabled":false}`, "If-Match", etag)
	if second == etag {
		t.Fatal("the ETag did not change")
	}
	a.wantBody("/v1/tenants/T", `{"enabled":false}`)
	a.want(412, "DELETE", "/v1/tenants/T", "", "If-Match", etag)
	res, _ = a.request("DELETE", "/v1/tenants/T", "", "If-Match", `"`+second+`"`)
	if res.StatusCode != 204 || res.Header.Get("ETag") != "" {
		t.Fatalf("got %d %v", res.StatusCode, res.Header)
	}
	a.want(404, "DELETE", "/v1/tenants/T", "")

	res, body = a.request("POST", "/v1/tenants", "", "Content-Type", "text/plain")
	var id struct{ ID string }
	if err := json.Unmarshal([]byte(body), &id); err != nil || res.StatusCode != 201 || !uuid.MatchString(id.ID) ||
		res.Header.Get("Location") != "/v1/tenants/"+id.ID {
		t.Fatalf("got %d %s %v", res.StatusCode, body, res.Header)
	}
}

func TestDeviceLifeCycle(t *testing.T) {
	a := start(t, management.Options{})
	a.want(404, "POST", "/v1/devices/T/D", "")
	a.want(404, "POST", "/v1/devices/T", "")
	a.want(201, "POST", "/v1/tenants/T", `{"alias":"t"}`)
	a.want(404, "GET", "/v1/devices/t/D", "")
	res, body := a.request("POST", "/v1/devices/T/D:1=2", `{"via":"G","status":{"created":1}}`)
	if res.StatusCode != 201 || body != `{"id":"D:1=2"}` || res.Header.Get("Location") != "/v1/devices/T/D:1=2" {
		t.Fatalf("got %d %s %v", res.StatusCode, body, res.Header)
	}
	etag, body := a.want(200, "GET", "/v1/devices/T/D:1=2", "")
	if !regexp.MustCompile(`^\{"via":\["G"\],"status":\{"created":"[-0-9]{10}T[:0-9]{8}Z"\}\}$`).MatchString(body) || etag != res.Header.Get("ETag") {
		t.Fatalf("got %s with ETag %s", body, etag)
	}
	credentials, body := a.want(200, "GET", "/v1/credentials/T/D:1=2", "")
	if body != `[]` || !uuid.MatchString(credentials) {
		t.Fatalf("got %s with ETag %q", body, credentials)
	}
	a.want(409, "POST", "/v1/devices/T/D:1=2", "")
	a.want(412, "PUT", "/v1/devices/T/D:1=2", "{}", "If-Match", "x")
	a.want(204, "PUT", "/v1/devices/T/D:1=2", `{"memberOf":["g"]}`, "If-Match", etag)
	_, body = a.want(200, "GET", "/v1/devices/T/D%3A1%3D2", "")
	if !strings.Contains(body, `"updated":"`) || strings.Contains(body, "via") {
		t.Fatalf("got %s", body)
	}
	a.want(404, "PUT", "/v1/devices/T/X", "{}")
	a.want(404, "DELETE", "/v1/devices/T/X", "")
	a.want(204, "DELETE", "/v1/devices/T/D:1=2", "")
	a.want(404, "GET", "/v1/devices/T/D:1=2", "")
	a.want(404, "GET", "/v1/credentials/T/D:1=2", "")
	a.want(404, "PUT", "/v1/credentials/T/D:1=2", "[]")
}

func TestDeletions(t *testing.T) {
	a := start(t, management.Options{})
	a.want(204, "DELETE", "/v1/devices/T", "")
	a.want(201, "POST", "/v1/tenants/T", "")
	for _, d := range []string{"D1", "D2", "D3"} {
		a.want(201, "POST", "/v1/devices/T/"+d, "")
	}
	a.want(204, "DELETE", "/v1/tenants/T", "")
	a.want(404, "GET", "/v1/devices/T/D1", "")
	a.want(404, "GET", "/v1/credentials/T/D1", "")
	a.want(204, "DELETE", "/v1/devices/T/D1", "") // although its tenant is gone
	a.want(404, "DELETE", "/v1/devices/T/D1", "")
	a.want(201, "POST", "/v1/tenants/T", "")
	a.want(200, "GET", "/v1/devices/T/D2", "")
	a.want(204, "DELETE", "/v1/devices/T", "", "If-Match", "x") // which is ignored
	a.want(404, "GET", "/v1/devices/T/D2", "")
}

func TestCredentials(t *testing.T) {
	a := start(t, management.Options{})
	a.want(201, "POST", "/v1/tenants/T", "")
	a.want(201, "POST", "/v1/devices/T/D", "")
	a.want(201, "POST", "/v1/devices/T/E", "")
	const path = "/v1/credentials/T/D"
	etag, _ := a.want(204, "PUT", path, `[{"type":"hashed-password","auth-id":"a","comment":"c","secrets":[{"pwd-plain":"secret"}]}]`)
	got, body := a.want(200, "GET", path, "")
	m := regexp.MustCompile(`^\[\{"type":"hashed-password","auth-id":"a","comment":"c","secrets":\[\{"id":"([-0-9a-f]{36})"\}\]\}\]$`).FindStringSubmatch(body)
	if m == nil || got != etag {
		t.Fatalf("got %s, ETag %s, want %s", body, got, etag)
	}
	a.want(412, "PUT", path, body, "If-Match", "x")
	a.want(204, "PUT", path, body, "If-Match", etag) // what was read can be put back
	a.want(400, "PUT", path, strings.Replace(body, m[1], "other", 1))
	a.want(409, "PUT", "/v1/credentials/T/E", `[{"type":"hashed-password","auth-id":"a","secrets":[{"pwd-plain":"x"}]}]`)
	a.want(400, "PUT", "/v1/credentials/T/E", `[{"type":"hashed-password","auth-id":"b","secrets":[{"id":"x"}]}]`)
	a.want(404, "PUT", "/v1/credentials/T/X", `[]`)
	a.want(404, "PUT", "/v1/credentials/U/D", `[]`)
	a.want(400, "PUT", path, "")
	a.want(400, "PUT", path, "", "Content-Type", "application/json")
	a.want(400, "PUT", path, "null")
	a.want(400, "PUT", path, "{}")
	a.want(400, "PUT", path, "[7]")
	a.want(204, "PUT", path, "[]")
	a.wantBody(path, "[]")
}

func TestBodies(t *testing.T) {
	a := start(t, management.Options{MaxBody: 100})
	a.want(201, "POST", "/v1/tenants/T", "")
	long := `{"ext":{"a":"` + strings.Repeat("x", 100) + `"}}`
	for _, c := range []struct {
		name, body string
		headers    []string
		want       int
	}{
		{"valid", `{"ext":{"a":1}}`, nil, 204},
		{"with charset", `{}`, []string{"Content-Type", "Application/JSON; charset=utf-8"}, 204},
		{"too long", long, nil, 413},
		{"too long, wrong type", long, []string{"Content-Type", "text/plain"}, 413},
		{"exactly the limit", `{}` + strings.Repeat(" ", 98), nil, 204},
		{"one more", `{}` + strings.Repeat(" ", 99), nil, 413},
		{"no type", `{}`, []string{"Content-Type", ""}, 400},
		{"other type", `{}`, []string{"Content-Type", "application/x-json"}, 400},
		{"garbled type", `{}`, []string{"Content-Type", ";"}, 400},
		{"empty", "", []string{"Content-Type", "application/json"}, 400},
		{"no JSON", `{"enabled":`, nil, 400},
		{"trailing text", `{} {}`, nil, 400},
		{"null", `null`, nil, 400},
		{"array", `[]`, nil, 400},
		{"unknown member", `{"id":"T"}`, nil, 400},
		{"unknown spelling", `{"Enabled":true}`, nil, 400},
		{"wrong type of member", `{"enabled":"yes"}`, nil, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &api{a.Server, t}
			a.want(c.want, "PUT", "/v1/tenants/T", c.body, c.headers...)
		})
	}
	t.Run("chunked and too long", func(t *testing.T) {
		r, _ := http.NewRequestWithContext(t.Context(), "POST", a.URL+"/v1/tenants", io.MultiReader(strings.NewReader(long)))
		r.SetBasicAuth("admin", "pw")
		r.Header.Set("Content-Type", "application/json")
		res, err := a.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 413 {
			t.Fatalf("got %d, want 413", res.StatusCode)
		}
	})
}

func TestPathsAndMethods(t *testing.T) {
	a := start(t, management.Options{})
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/", 404}, {"GET", "/v1", 404}, {"GET", "/v1/other", 404}, {"GET", "/v1/credentials/T", 404},
		{"GET", "/v1/devices", 404}, {"GET", "/v1/devices/T/D/E", 404}, {"GET", "/v2/tenants/T", 404}, {"GET", "/v1/tenants//", 404},
		{"PATCH", "/v1/tenants", 405}, {"PATCH", "/v1/credentials/T/D", 405}, {"POST", "/v1/credentials/T/D", 405}, {"DELETE", "/v1/credentials/T/D", 405},
		{"PUT", "/v1/devices/T", 405}, {"GET", "/v1/tenants/a%20b", 400}, {"POST", "/v1/tenants/a%2Fb", 400},
		{"POST", "/v1/tenants/a:b", 400}, {"POST", "/v1/devices/T/a%0Ab", 400}, {"GET", "/v1/devices/T/%C3%A4", 400},
		{"POST", "/v1/tenants/" + strings.Repeat("x", 257), 400}, {"POST", "/v1/tenants/", 201}, {"GET", "/v1/tenants/%2E%2E", 404},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			a := &api{a.Server, t}
			res, _ := a.request(c.method, c.path, "")
			a.want(c.want, c.method, c.path, "")
			if (res.StatusCode == 405) != (res.Header.Get("Allow") != "") {
				t.Fatalf("%d with Allow %q", res.StatusCode, res.Header.Get("Allow"))
			}
		})
	}
}

func TestAuthentication(t *testing.T) {
	var log bytes.Buffer
	a := start(t, management.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	a.want(201, "POST", "/v1/tenants/T", "")
	as := func(name, password string) string {
		r, _ := http.NewRequest("GET", "/", nil)
		r.SetBasicAuth(name, password)
		return r.Header.Get("Authorization")
	}
	for _, c := range []struct {
		name, method, path, authorization string
		want                              int
	}{
		{"nobody", "GET", "/v1/tenants/T", "", 401},
		{"bearer", "GET", "/v1/tenants/T", "Bearer x", 401},
		{"wrong password", "GET", "/v1/tenants/T", as("admin", "x"), 401},
		{"unknown path", "GET", "/nothing", "", 401},
		{"reader reads", "GET", "/v1/tenants/T", as("reader", "pw"), 200},
		{"reader writes", "PUT", "/v1/tenants/T", as("reader", "pw"), 403},
		{"reader deletes devices", "DELETE", "/v1/devices/T", as("reader", "pw"), 403},
		{"reader of another", "GET", "/v1/tenants/U", as("reader", "pw"), 403},
		{"owner", "POST", "/v1/devices/T", as("owner", "pw"), 201},
		{"owner elsewhere", "POST", "/v1/devices/U", as("owner", "pw"), 403},
		{"owner, any tenant", "POST", "/v1/tenants", as("owner", "pw"), 403},
		{"broken directory", "GET", "/v1/tenants/T", as("broken", "pw"), 500},
		{"panic", "GET", "/v1/tenants/T", as("panics", "pw"), 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &api{a.Server, t}
			_, body := a.want(c.want, c.method, c.path, "", "Authorization", c.authorization)
			if strings.Contains(body, "internals") {
				t.Fatalf("internals in %s", body)
			}
			res, _ := a.request(c.method, c.path, "", "Authorization", c.authorization)
			if got := res.Header.Get("WWW-Authenticate"); (c.want == 401) != (got == `Basic realm="Hono"`) {
				t.Fatalf("WWW-Authenticate %q with %d", got, c.want)
			}
		})
	}
	if !strings.Contains(log.String(), "internals") || strings.Contains(log.String(), "pw") {
		t.Fatalf("log:\n%s", log.String())
	}
}

func TestCORS(t *testing.T) {
	a := start(t, management.Options{})
	for _, c := range []struct {
		path, methods string
		want          int
	}{
		{"/v1/tenants", "GET, POST", 204},
		{"/v1/tenants/T", "DELETE, GET, PATCH, POST, PUT", 204},
		{"/v1/devices/T", "DELETE, GET, POST", 204},
		{"/v1/devices/T/D", "DELETE, GET, PATCH, POST, PUT", 204},
		{"/v1/credentials/T/D", "GET, PUT", 204},
		{"/v1/other", "", 404},
	} {
		t.Run(c.path, func(t *testing.T) {
			a := &api{a.Server, t}
			res, _ := a.request("OPTIONS", c.path, "", "Authorization", "", "Origin", "http://x", "Access-Control-Request-Method", "POST")
			h := res.Header
			if res.StatusCode != c.want || h.Get("Access-Control-Allow-Methods") != c.methods || h.Get("Access-Control-Allow-Origin") != "*" {
				t.Fatalf("got %d %v", res.StatusCode, h)
			}
			if c.want == 204 && h.Get("Access-Control-Allow-Headers") != "content-type,authorization,if-match" {
				t.Fatalf("got %v", h)
			}
		})
	}
	res, _ := a.request("POST", "/v1/tenants/T", "", "Origin", "http://x")
	if res.Header.Get("Access-Control-Expose-Headers") != "etag" || res.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Fatalf("got %v", res.Header)
	}
	res, _ = a.request("GET", "/v1/tenants/T", "")
	if res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Fatal("CORS headers without Origin")
	}
}
