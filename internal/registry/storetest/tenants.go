package storetest

import (
	"encoding/json"
	"testing"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

func testTenants(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	_, err := s.Tenant(ctx, "T")
	wantErr(t, err, iot.ErrNotFound)
	wantErr(t, s.UpdateTenant(ctx, tenant("T"), "other"), iot.ErrNotFound)
	wantErr(t, s.DeleteTenant(ctx, "T", "other", at), iot.ErrNotFound)

	first := tenant("T")
	first.Tenant = iot.Tenant{
		Enabled: ptr(false), Ext: json.RawMessage(`{"n":12345678901234567890}`), TrustAnchorGroup: "g",
		ResourceLimits:     &iot.ResourceLimits{MaxTTL: ptr(int64(0))},
		RegistrationLimits: &iot.RegistrationLimits{MaxDevices: 7, MaxCredentialsPerDevice: -1},
		Adapters:           []iot.Adapter{{Type: "hono-http", Enabled: true}},
	}
	must(t, s.CreateTenant(ctx, first))
	wantErr(t, s.CreateTenant(ctx, tenant("T")), iot.ErrExists)
	got, err := s.Tenant(ctx, "T")
	must(t, err)
	wantEqual(t, got, first)

	second := registry.TenantRecord{ID: "T", Version: "v2", Updated: later(5), Created: later(4)}
	wantErr(t, s.UpdateTenant(ctx, second, "other"), iot.ErrVersion)
	must(t, s.UpdateTenant(ctx, second, "v1"))
	second.Created = at
	got, err = s.Tenant(ctx, "T")
	must(t, err)
	wantEqual(t, got, second)
	must(t, s.UpdateTenant(ctx, second, ""))

	wantErr(t, s.DeleteTenant(ctx, "T", "v1", at), iot.ErrVersion)
	must(t, s.DeleteTenant(ctx, "T", "v2", at))
	_, err = s.Tenant(ctx, "T")
	wantErr(t, err, iot.ErrNotFound)
	must(t, s.CreateTenant(ctx, tenant("T")))
}

func testAlias(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	a := tenant("A")
	a.Tenant.Alias = "acme"
	must(t, s.CreateTenant(ctx, a))
	must(t, s.UpdateTenant(ctx, a, "")) // its own alias is no conflict

	b := tenant("B")
	b.Tenant.Alias = "acme"
	wantErr(t, s.CreateTenant(ctx, b), iot.ErrExists)
	addTenant(t, s, "B")
	wantErr(t, s.UpdateTenant(ctx, b, ""), iot.ErrExists)
	_, err := s.Tenant(ctx, "acme")
	wantErr(t, err, iot.ErrNotFound)

	must(t, s.DeleteTenant(ctx, "A", "", at))
	must(t, s.UpdateTenant(ctx, b, ""))
}

func testAnchors(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	with := func(id iot.TenantID, group string, dns ...string) registry.TenantRecord {
		r := tenant(id)
		r.Tenant.TrustAnchorGroup = group
		for _, dn := range dns {
			r.Tenant.TrustedCA = append(r.Tenant.TrustedCA, iot.TrustAnchor{ID: "1", SubjectDN: dn})
		}
		return r
	}
	must(t, s.CreateTenant(ctx, with("A", "", "CN=x", "CN=x", "CN=y"))) // a DN twice in one tenant is fine
	must(t, s.UpdateTenant(ctx, with("A", "", "CN=x", "CN=y"), ""))
	wantErr(t, s.CreateTenant(ctx, with("B", "", "CN=z", "CN=y")), iot.ErrExists)
	wantErr(t, s.CreateTenant(ctx, with("B", "g", "CN=x")), iot.ErrExists)
	must(t, s.CreateTenant(ctx, with("B", "g", "CN=z")))
	must(t, s.CreateTenant(ctx, with("C", "g", "CN=z")))
	wantErr(t, s.UpdateTenant(ctx, with("C", "", "CN=z"), ""), iot.ErrExists)
	wantErr(t, s.UpdateTenant(ctx, with("C", "h", "CN=z"), ""), iot.ErrExists)

	must(t, s.UpdateTenant(ctx, with("B", "g"), ""))
	must(t, s.UpdateTenant(ctx, with("C", ""), "")) // no CA on either: no conflict
	must(t, s.UpdateTenant(ctx, with("C", "", "CN=z"), ""))
	must(t, s.DeleteTenant(ctx, "A", "", at))
	must(t, s.UpdateTenant(ctx, with("B", "", "CN=x"), ""))
}

func testReadTenant(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	a, b := tenant("A"), tenant("B")
	a.Tenant.Alias, b.Tenant.Alias = "acme", "a2"
	a.Tenant.TrustAnchorGroup, b.Tenant.TrustAnchorGroup = "g", "g"
	a.Tenant.TrustedCA = []iot.TrustAnchor{{SubjectDN: "CN=both"}, {SubjectDN: "CN=a"}, {SubjectDN: "CN=a"}}
	b.Tenant.TrustedCA = []iot.TrustAnchor{{SubjectDN: "CN=both"}}
	must(t, s.CreateTenant(ctx, a))
	must(t, s.CreateTenant(ctx, b))
	addTenant(t, s, "A3")

	for _, c := range []struct {
		name string
		key  registry.TenantKey
		want iot.TenantID
	}{
		{"id", registry.TenantKey{ID: "A"}, "A"},
		{"alias", registry.TenantKey{ID: "acme"}, "A"},
		{"alias of another", registry.TenantKey{ID: "a2"}, "B"},
		{"DN", registry.TenantKey{SubjectDN: "CN=a"}, "A"},
		{"ambiguous DN", registry.TenantKey{SubjectDN: "CN=both"}, ""},
		{"unknown DN", registry.TenantKey{SubjectDN: "CN=c"}, ""},
		{"unknown id", registry.TenantKey{ID: "C"}, ""},
		{"nothing", registry.TenantKey{}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			snap, err := s.Read(t.Context(), registry.Query{Tenant: c.key})
			if c.want == "" {
				wantErr(t, err, iot.ErrNotFound)
				return
			}
			must(t, err)
			wantEqual(t, snap.Tenant.ID, c.want)
			if snap.Credential != nil || snap.Device != nil || snap.Gateway != nil || snap.DeviceID != "" {
				t.Fatalf("got %+v, want a tenant only", snap)
			}
		})
	}
}

// Ids and aliases share one space, since both name a tenant.
func testAliasAndID(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	a := tenant("A")
	a.Tenant.Alias = "acme"
	must(t, s.CreateTenant(ctx, a))
	wantErr(t, s.CreateTenant(ctx, tenant("acme")), iot.ErrExists)
	b := tenant("B")
	b.Tenant.Alias = "A"
	wantErr(t, s.CreateTenant(ctx, b), iot.ErrExists)
	addTenant(t, s, "B")
	wantErr(t, s.UpdateTenant(ctx, b, ""), iot.ErrExists)
	a.Tenant.Alias = "A" // its own id
	must(t, s.UpdateTenant(ctx, a, ""))
	addTenant(t, s, "acme") // free again
	must(t, s.DeleteTenant(ctx, "A", "", at))
	must(t, s.UpdateTenant(ctx, b, ""))
	wantErr(t, s.CreateTenant(ctx, tenant("A")), iot.ErrExists)
}
