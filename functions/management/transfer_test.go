package management_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/functions/management"
	"github.com/sluice-iot/sluice/internal/iot"
)

// fill makes a tenant with some devices.
func fill(a *api) {
	a.want(201, "POST", "/v1/tenants/T", `{"alias":"t","ext":{"a":"<b>"},"registration-limits":{"max-devices":10}}`)
	a.want(201, "POST", "/v1/devices/T/d1", `{"enabled":false,"via":["g"],"ext":{"n":12345678901234567890}}`)
	a.want(201, "POST", "/v1/devices/T/d2", "")
	a.want(204, "PUT", "/v1/credentials/T/d1", `[{"type":"hashed-password","auth-id":"one","secrets":[{"pwd-plain":"geheim"}]},
		{"type":"psk","auth-id":"psk","secrets":[{"key":"AAEC","comment":"c"}]},{"type":"own","auth-id":"x","secrets":[{"member":[1]}]}]`)
}

func TestExportImport(t *testing.T) {
	a, b := start(t, management.Options{}), start(t, management.Options{})
	fill(a)
	_, export := a.want(200, "GET", "/v1/export/T", "")
	lines := strings.Split(strings.TrimSuffix(export, "\n"), "\n")
	if len(lines) != 4 || lines[3] != `{"end":true,"devices":2}` || !strings.Contains(lines[1], `"pwd-hash":"$2a$04$`) || !strings.Contains(lines[1], `"key":"AAEC"`) {
		t.Fatalf("got %s", export)
	}
	for i, path := range []string{"/v1/import/T", "/v1/import/T", "/v1/import/Copy"} { // anew, over it, and as another
		results, last := b.bulk(path, ndjson, strings.Replace(export, `"alias":"t"`, fmt.Sprintf(`"alias":"t%d"`, i), 1))
		if !*last.Done || last.Items != 3 || last.Failed != 0 || results[0].Tenant != path[len("/v1/import/"):] || results[1].ID != "d1" || results[1].Line != 2 {
			t.Fatalf("got %+v, %+v", results, last)
		}
		if want := []int{201, 204, 201}[i]; results[0].Status != want {
			t.Errorf("got %+v, want %d", results[0], want)
		}
	}
	for _, path := range []string{"/v1/devices/%s/d1", "/v1/credentials/%s/d1", "/v1/credentials/%s/d2"} {
		_, want := a.want(200, "GET", fmt.Sprintf(path, "T"), "")
		for _, tenant := range []string{"T", "Copy"} {
			_, got := b.want(200, "GET", fmt.Sprintf(path, tenant), "")
			if got, _, _ = strings.Cut(got, `,"status"`); !strings.HasPrefix(want, got) {
				t.Errorf("%s: got %s, want %s", tenant, got, want)
			}
		}
	}
	_, again := b.want(200, "GET", "/v1/export/T", "")
	if strings.Count(again, "$2a$04$") != 1 || strings.Count(again, "\n") != 4 {
		t.Errorf("got %s", again)
	}
}

func TestImportIncomplete(t *testing.T) {
	a := start(t, management.Options{})
	fill(a)
	_, export := a.want(200, "GET", "/v1/export/T", "")
	lines := strings.SplitAfter(export, "\n")
	for name, c := range map[string]struct {
		body string
		ok   bool
		text string
	}{
		"whole":            {export, true, ""},
		"without its end":  {strings.Join(lines[:3], ""), false, "cut off"},
		"within a line":    {export[:len(export)-60], false, "cut off"},
		"a device missing": {lines[0] + lines[1] + lines[3], false, "has 1 devices, its last line says 2"},
		"more at its end":  {export + lines[1], false, "has 3 devices, its last line says 2"},
	} {
		t.Run(name, func(t *testing.T) {
			a := &api{a.Server, t}
			_, last := a.bulk("/v1/import/T", ndjson, c.body)
			if *last.Done != c.ok || !strings.Contains(last.Error, c.text) {
				t.Fatalf("got %+v", last)
			}
		})
	}
	for name, body := range map[string]string{
		"no header":        lines[1] + lines[3],
		"other format":     strings.Replace(export, "sluice-tenant", "other", 1),
		"other version":    strings.Replace(export, `"version":1`, `"version":2`, 1),
		"no tenant":        `{"format":"sluice-tenant","version":1,"tenant-id":"T"}`,
		"tenant":           `{"format":"sluice-tenant","version":1,"tenant-id":"T","tenant":{"x":1}}`,
		"no JSON":          "x",
		"blank":            "\n\n",
		"too long a first": strings.Repeat("x", 200_000),
	} {
		t.Run(name, func(t *testing.T) {
			a := &api{a.Server, t}
			status := 400
			if name == "too long a first" {
				status = 413
			}
			a.want(status, "POST", "/v1/import/T", body, "Content-Type", ndjson)
		})
	}
	a.want(400, "POST", "/v1/import/T", export, "Content-Type", "application/json")
	a.want(400, "POST", "/v1/import/a%20b", export, "Content-Type", ndjson)
	a.want(409, "POST", "/v1/import/U", export, "Content-Type", ndjson) // the alias is T's
	a.want(404, "GET", "/v1/tenants/U", "")
	a.want(404, "GET", "/v1/export/U", "")
	a.want(400, "GET", "/v1/export/a%20b", "")
}

// TestExportScope expects secrets to leave only where export and read are allowed.
func TestExportScope(t *testing.T) {
	a := start(t, management.Options{})
	fill(a)
	for who, want := range map[string]int{"admin": 200, "writer": 403, "owner": 403, "exporter": 403, "reader": 403} {
		a.want(want, "GET", "/v1/export/T", "", "Authorization", "Bearer "+who)
	}
	a.want(403, "POST", "/v1/import/T", "x", "Content-Type", ndjson, "Authorization", "Bearer reader")
	a.want(400, "POST", "/v1/import/T", "x", "Content-Type", ndjson, "Authorization", "Bearer owner")
}

// TestExportMany expects more than one page, and a store that breaks not to
// look like the end.
func TestExportMany(t *testing.T) {
	service, f := newFailing(t)
	a := startWith(t, service, management.Options{})
	a.want(201, "POST", "/v1/tenants/T", "")
	var body strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&body, "{\"op\":\"create\",\"id\":\"d%04d\"}\n", i)
	}
	a.bulk("/v1/bulk/devices/T", ndjson, body.String())
	_, export := a.want(200, "GET", "/v1/export/T", "")
	if strings.Count(export, "\n") != 1002 || !strings.HasSuffix(export, `{"end":true,"devices":1000}`+"\n") {
		t.Fatalf("%d lines", strings.Count(export, "\n"))
	}
	f.fail(1, iot.Errorf(iot.ErrUnavailable, "the store is down"))
	r, _ := http.NewRequestWithContext(t.Context(), "GET", a.URL+"/v1/export/T", nil)
	r.SetBasicAuth("admin", "pw")
	res, err := a.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil || strings.Contains(string(b), `"end"`) {
		t.Fatal("the export ended like a whole one")
	}
	if res, _ := a.request("GET", "/v1/export/T", ""); res.StatusCode != 503 || res.Header.Get("Retry-After") != "2" { // which can still be said
		t.Fatalf("got %d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
	}
}
