package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// Run runs the suite. open returns an empty store without declared indexes, which
// it closes itself by t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) registry.Backend) {
	for _, c := range []struct {
		name string
		test func(*testing.T, registry.Backend)
	}{
		{"tenant life cycle", testTenants},
		{"tenant alias", testAlias},
		{"tenant trust anchors", testAnchors},
		{"device life cycle", testDevices},
		{"device limit", testDeviceLimit},
		{"devices outlive their tenant", testOrphans},
		{"delete all devices", testDeleteDevices},
		{"credentials", testCredentials},
		{"credentials are unique in a tenant", testUniqueAuthID},
		{"read a tenant", testReadTenant},
		{"read for an admission", testReadAdmission},
		{"read for an assertion", testReadAssertion},
		{"read gateway groups", testReadGroups},
		{"feed", testFeed},
		{"feed position", testFeedPosition},
		{"failed changes leave no trace", testNoTrace},
		{"concurrent updates", testLostUpdates},
		{"concurrent claims of an auth-id", testAuthIDRace},
		{"concurrent changes are dense", testDense},
		{"reads are consistent", testConsistentReads},
		{"ended context", testEndedContext},
		{"tenant alias and id", testAliasAndID},
		{"search tenants", testSearchTenants},
		{"search devices", testSearchDevices},
		{"search gateways", testSearchGateways},
		{"search of an unknown tenant", testSearchUnknown},
		{"search is bounded", testSearchBound},
		{"export", testExport},
		{"bulk", testBulk},
		{"bulk as single operations", testBulkEqualsSingle},
		{"bulk failures leave no trace", testBulkNoTrace},
		{"bulk limit of devices", testBulkLimit},
		{"bulk credentials", testBulkCredentials},
		{"bulk of a full batch", testBulkFull},
		{"bulk for an unknown tenant", testBulkUnknown},
		{"concurrent bulks are dense", testBulkDense},
		{"mark notified", testMarkNotified},
		{"keep verified", testKeepVerified},
		{"verified ends with its credential", testVerifiedEnds},
		{"observe", testObserve},
		{"observe concurrent changes", testObserveConcurrent},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

var at = time.Date(2026, 3, 1, 12, 0, 0, int(250*time.Millisecond), time.UTC)

func later(seconds int) time.Time { return at.Add(time.Duration(seconds) * time.Second) }

func ptr[T any](v T) *T { return &v }

func tenant(id iot.TenantID) registry.TenantRecord {
	return registry.TenantRecord{ID: id, Version: "v1", Created: at}
}

func device(tenant iot.TenantID, id iot.DeviceID) registry.DeviceRecord {
	return registry.DeviceRecord{Tenant: tenant, ID: id, Version: "v1", Status: iot.DeviceStatus{Created: iot.Timestamp{Time: at}}}
}

func password(authID string) iot.Credential {
	return iot.Credential{Type: iot.HashedPassword, AuthID: authID, Secrets: []iot.Secret{{
		ID: "s1", HashFunction: "sha-256", PwdHash: "aGFzaA==", Salt: []byte("salt"),
	}}}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
	var own *iot.Error
	if !errors.As(err, &own) || own.Text == "" {
		t.Fatalf("error %v has no text for the caller", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantEqual(t *testing.T, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("-want +got:\n%s", d)
	}
}

func addTenant(t *testing.T, s registry.Backend, id iot.TenantID) {
	t.Helper()
	must(t, s.CreateTenant(t.Context(), tenant(id)))
}

func addDevice(t *testing.T, s registry.Backend, d registry.DeviceRecord) {
	t.Helper()
	must(t, s.CreateDevice(t.Context(), d, "c1", -1))
}

func putCredentials(t *testing.T, s registry.Backend, tenant iot.TenantID, device iot.DeviceID, set ...iot.Credential) {
	t.Helper()
	must(t, s.PutCredentials(t.Context(), registry.CredentialsRecord{Tenant: tenant, Device: device, Set: set, Version: "c2"}, "", at))
}

// feed returns the tenant's changes from the beginning, as short strings.
func feed(t *testing.T, s registry.Backend, tenant iot.TenantID) []string {
	t.Helper()
	changes, more, err := s.Changes(t.Context(), registry.Position{Sequences: map[iot.TenantID]uint64{tenant: 0}}, 10000)
	must(t, err)
	if more {
		t.Fatal("more than 10000 changes")
	}
	var all []string
	for _, c := range changes {
		all = append(all, fmt.Sprintf("%d %s %s %s enabled=%t", c.Sequence, c.Kind, c.Change, c.Device, c.Enabled))
	}
	return all
}
