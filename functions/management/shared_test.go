package management_test

import (
	"testing"

	"github.com/sluice-iot/sluice/functions/management"
)

// TestWhatReachesBeyondATenant has an operator of the one tenant T.
func TestWhatReachesBeyondATenant(t *testing.T) {
	a := start(t, management.Options{})
	owner := []string{"Authorization", "Bearer owner"}
	for _, body := range []string{`{"alias":"victim"}`, `{"trust-anchor-group":"g"}`} {
		a.want(403, "POST", "/v1/tenants/T", body, owner...)
	}
	a.want(201, "POST", "/v1/tenants/T", "{}", owner...)
	for _, body := range []string{`{"alias":"victim"}`, `{"trust-anchor-group":"g"}`} {
		a.want(403, "PUT", "/v1/tenants/T", body, owner...)
		a.want(403, "PATCH", "/v1/tenants/T", body, owner...)
	}
	a.want(204, "PUT", "/v1/tenants/T", `{"alias":"mine","trust-anchor-group":"g"}`)
	_, export := a.want(200, "GET", "/v1/export/T", "")
	a.want(204, "PUT", "/v1/tenants/T", `{"alias":"mine","trust-anchor-group":"g","enabled":false}`, owner...)
	a.want(204, "PATCH", "/v1/tenants/T", `{"alias":"mine","enabled":true}`, owner...)
	a.want(400, "PATCH", "/v1/tenants/T", `{"alias":7}`, owner...)
	a.want(200, "POST", "/v1/import/T", export, append([]string{"Content-Type", ndjson}, owner...)...)
	a.want(204, "PATCH", "/v1/tenants/T", `{"alias":null,"trust-anchor-group":null}`, owner...)
	a.want(403, "POST", "/v1/import/T", export, append([]string{"Content-Type", ndjson}, owner...)...)
	a.wantBody("/v1/tenants/T", `{}`)
}
