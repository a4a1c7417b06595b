package tenant_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/tenant"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

type reader func(registry.Query) (registry.Snapshot, error)

func (r reader) Read(_ context.Context, q registry.Query) (registry.Snapshot, error) { return r(q) }

func stamp(t time.Time) iot.Timestamp { return iot.Timestamp{Time: t} }

func TestAdaptersSeeNoManagement(t *testing.T) {
	record := registry.TenantRecord{ID: "T", Tenant: iot.Tenant{
		Alias: "alias", TrustAnchorGroup: "group", RegistrationLimits: &iot.RegistrationLimits{MaxDevices: 1},
		TrustedCA: []iot.TrustAnchor{
			{ID: "now", SubjectDN: "CN=now", PublicKey: []byte{1}, NotBefore: stamp(noon), NotAfter: stamp(noon), Cert: []byte{9},
				AuthIDTemplate: "{{subject-cn}}", AutoProvisioningEnabled: true, AutoProvisionAsGateway: true,
				AutoProvisioningDeviceIDTemplate: "{{subject-cn}}", OCSPRevocationEnabled: true, OCSPResponderURI: "http://o"},
			{ID: "early", SubjectDN: "CN=early", PublicKey: []byte{1}, NotBefore: stamp(noon.Add(time.Second)), NotAfter: stamp(noon.Add(time.Hour))},
			{ID: "late", SubjectDN: "CN=late", PublicKey: []byte{1}, NotBefore: stamp(noon.Add(-time.Hour)), NotAfter: stamp(noon.Add(-time.Second))},
		},
	}}
	f := tenant.New(reader(func(registry.Query) (registry.Snapshot, error) {
		return registry.Snapshot{Tenant: record}, nil
	}), func() time.Time { return noon })
	got, err := f.Handle(t.Context(), events.TenantGet{ID: "alias"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"tenant-id":"T","enabled":true,"trusted-ca":[{"id":"now","subject-dn":"CN=now","public-key":"AQ==",
		"auth-id-template":"{{subject-cn}}","auto-provisioning-enabled":true,"ocsp-revocation-enabled":true,"ocsp-responder-uri":"http://o"}]}`
	var g, w any
	if json.Unmarshal(b, &g) != nil || json.Unmarshal([]byte(want), &w) != nil {
		t.Fatalf("not JSON: %s", b)
	}
	if d := cmp.Diff(w, g); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestIDWinsOverDN(t *testing.T) {
	for _, tt := range []struct {
		req  events.TenantGet
		want registry.TenantKey
	}{
		{events.TenantGet{ID: "T", SubjectDN: "CN=a"}, registry.TenantKey{ID: "T"}},
		{events.TenantGet{SubjectDN: "CN=a"}, registry.TenantKey{SubjectDN: "CN=a"}},
	} {
		f := tenant.New(reader(func(q registry.Query) (registry.Snapshot, error) {
			if want := (registry.Query{Tenant: tt.want}); q != want {
				t.Errorf("asked %+v, want %+v", q, want)
			}
			return registry.Snapshot{}, nil
		}), time.Now)
		if _, err := f.Handle(t.Context(), tt.req); err != nil {
			t.Error(err)
		}
	}
}
