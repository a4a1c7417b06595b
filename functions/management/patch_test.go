package management_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-iot/sluice/functions/management"
)

const mergePatch = "application/merge-patch+json"

func TestPatch(t *testing.T) {
	a := start(t, management.Options{})
	tenant := `{"enabled":true,"alias":"t","ext":{"a":1,"b":{"c":2,"d":12345678901234567890}},"adapters":[{"type":"x"}],"registration-limits":{"max-devices":5}}`
	a.want(201, "POST", "/v1/tenants/T", tenant)
	etag, _ := a.want(200, "GET", "/v1/tenants/T", "")
	second, _ := a.want(204, "PATCH", "/v1/tenants/T", `{"enabled":false,"alias":null,"ext":{"a":null,"b":{"c":3}},"adapters":[{"type":"y"}]}`, "Content-Type", mergePatch)
	if second == etag {
		t.Fatal("the ETag did not change")
	}
	a.wantBody("/v1/tenants/T", `{"enabled":false,"ext":{"b":{"c":3,"d":12345678901234567890}},"adapters":[{"type":"y","enabled":false,"device-authentication-required":true}],"registration-limits":{"max-devices":5,"max-credentials-per-device":-1}}`)
	a.want(412, "PATCH", "/v1/tenants/T", `{}`, "If-Match", etag)
	a.want(204, "PATCH", "/v1/tenants/T", `{"ext":null,"adapters":null,"registration-limits":null}`, "If-Match", second)
	a.wantBody("/v1/tenants/T", `{"enabled":false}`)
	a.want(404, "PATCH", "/v1/tenants/U", `{}`)
	a.want(404, "PATCH", "/v1/tenants/U", `{}`, "If-Match", "x")
	a.want(201, "POST", "/v1/tenants/U", `{"alias":"u"}`)
	a.want(409, "PATCH", "/v1/tenants/T", `{"alias":"u"}`)

	a.want(404, "PATCH", "/v1/devices/T/D", `{}`)
	a.want(201, "POST", "/v1/devices/T/D", `{"via":["g"],"ext":{"a":1}}`)
	a.want(204, "PATCH", "/v1/devices/T/D", `{"via":"h","status":{"created":1},"ext":{"b":"<&>"}}`)
	_, body := a.want(200, "GET", "/v1/devices/T/D", "")
	if want := `{"ext":{"a":1,"b":"`; len(body) < len(want) || body[:len(want)] != want {
		t.Fatalf("got %s", body)
	}
	for _, c := range []struct {
		body, mediaType string
		want            int
	}{
		{`[]`, mergePatch, 400}, {`null`, mergePatch, 400}, {`"x"`, mergePatch, 400}, {``, mergePatch, 400}, {`{}`, "text/plain", 400}, {`{}`, "", 400},
		{`{"x":1}`, mergePatch, 400}, {`{"enabled":"no"}`, mergePatch, 400}, {`{"memberOf":"g"}`, mergePatch, 400}, {`{`, mergePatch, 400},
		{`{"via":null,"memberOf":"g"}`, mergePatch, 204}, {`{}`, "application/json; charset=utf-8", 204},
	} {
		a.want(c.want, "PATCH", "/v1/devices/T/D", c.body, "Content-Type", c.mediaType)
	}
	a.want(400, "PATCH", "/v1/tenants/a%20b", `{}`)
	a.want(400, "PATCH", "/v1/devices/T/a%20b", `{}`)
}

// TestPatchesAddUp expects patches one by one not to make a resource of any size.
func TestPatchesAddUp(t *testing.T) {
	a := start(t, management.Options{MaxBody: 100_000})
	a.want(201, "POST", "/v1/tenants/T", `{"ext":{"a":"`+strings.Repeat("x", 90_000)+`"}}`)
	more := `{"ext":{"b":"` + strings.Repeat("x", 60_000) + `"}}`
	a.want(413, "PATCH", "/v1/tenants/T", more)
	a.want(204, "PATCH", "/v1/tenants/T", `{"ext":{"a":null}}`)
	a.want(204, "PATCH", "/v1/tenants/T", more)
}

// TestPatchesAtOnce expects that none of many patches is lost.
func TestPatchesAtOnce(t *testing.T) {
	a := start(t, management.Options{})
	a.want(201, "POST", "/v1/tenants/T", "")
	a.want(201, "POST", "/v1/devices/T/D", "")
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			// More of them at once than there are tries may be told to come again.
			for {
				res, body := a.request("PATCH", "/v1/devices/T/D", fmt.Sprintf(`{"ext":{"m%d":true}}`, i))
				if res.StatusCode == http.StatusNoContent {
					return
				}
				if res.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("got %d %s", res.StatusCode, body)
					return
				}
			}
		})
	}
	wg.Wait()
	for i := range 6 {
		a.want(200, "GET", "/v1/devices/T?"+query(fmt.Sprintf(`filterJson={"field":"/ext/m%d","value":true}`, i)), "")
	}
}
