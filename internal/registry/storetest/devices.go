package storetest

import (
	"encoding/json"
	"testing"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

func testDevices(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	wantErr(t, s.CreateDevice(ctx, device("T", "D"), "c1", 0), iot.ErrNotFound) // the tenant comes first
	addTenant(t, s, "T")
	_, err := s.Device(ctx, "T", "D")
	wantErr(t, err, iot.ErrNotFound)
	wantErr(t, s.UpdateDevice(ctx, device("T", "D"), "x"), iot.ErrNotFound)
	wantErr(t, s.DeleteDevice(ctx, "T", "D", "x", at), iot.ErrNotFound)

	first := device("T", "D")
	first.Status.AutoProvisioned, first.Status.AutoProvisioningNotificationSent = true, true
	first.Device = iot.Device{
		Enabled: ptr(true), Ext: json.RawMessage(`{"a":{"b":1}}`), Via: []iot.DeviceID{"G2", "G1"},
		ViaGroups: []string{"g"}, Authorities: []string{"auto-provisioning-enabled"},
		CommandEndpoint: &iot.CommandEndpoint{URI: "http://x", Headers: map[string]string{"h": "v"}},
	}
	must(t, s.CreateDevice(ctx, first, "c1", -1))
	wantErr(t, s.CreateDevice(ctx, device("T", "D"), "c9", -1), iot.ErrExists)
	got, err := s.Device(ctx, "T", "D")
	must(t, err)
	wantEqual(t, got, first)

	second := registry.DeviceRecord{Tenant: "T", ID: "D", Version: "v2", Device: iot.Device{MemberOf: []string{"m"}}}
	second.Status.Updated.Time = later(9)
	wantErr(t, s.UpdateDevice(ctx, second, "v0"), iot.ErrVersion)
	must(t, s.UpdateDevice(ctx, second, "v1"))
	second.Status = first.Status
	second.Status.Updated.Time = later(9)
	got, err = s.Device(ctx, "T", "D")
	must(t, err)
	wantEqual(t, got, second)

	wantErr(t, s.DeleteDevice(ctx, "T", "D", "v1", at), iot.ErrVersion)
	must(t, s.DeleteDevice(ctx, "T", "D", "v2", at))
	_, err = s.Device(ctx, "T", "D")
	wantErr(t, err, iot.ErrNotFound)
}

func testDeviceLimit(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	addTenant(t, s, "T")
	wantErr(t, s.CreateDevice(ctx, device("T", "D1"), "c", 0), iot.ErrForbidden)
	must(t, s.CreateDevice(ctx, device("T", "D1"), "c", 2))
	must(t, s.CreateDevice(ctx, device("T", "D2"), "c", 2))
	wantErr(t, s.CreateDevice(ctx, device("T", "D2"), "c", 2), iot.ErrForbidden) // before the duplicate
	wantErr(t, s.CreateDevice(ctx, device("T", "D2"), "c", 3), iot.ErrExists)
	must(t, s.DeleteDevice(ctx, "T", "D1", "", at))
	must(t, s.CreateDevice(ctx, device("T", "D3"), "c", 2))
	must(t, s.DeleteDevices(ctx, "T", at))
	must(t, s.CreateDevice(ctx, device("T", "D4"), "c", 1))
}

func testOrphans(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	addTenant(t, s, "T")
	addDevice(t, s, device("T", "D1"))
	addDevice(t, s, device("T", "D2"))
	putCredentials(t, s, "T", "D1", password("a"))
	must(t, s.DeleteTenant(ctx, "T", "", at))

	_, err := s.Device(ctx, "T", "D1")
	wantErr(t, err, iot.ErrNotFound)
	_, err = s.Credentials(ctx, "T", "D1")
	wantErr(t, err, iot.ErrNotFound)
	wantErr(t, s.UpdateDevice(ctx, device("T", "D1"), ""), iot.ErrNotFound)
	wantErr(t, s.PutCredentials(ctx, registry.CredentialsRecord{Tenant: "T", Device: "D1", Version: "c"}, "", at), iot.ErrNotFound)
	_, err = s.Read(ctx, registry.Query{Tenant: registry.TenantKey{ID: "T"}, Type: iot.HashedPassword, AuthID: "a"})
	wantErr(t, err, iot.ErrNotFound)

	must(t, s.DeleteDevice(ctx, "T", "D2", "", at))
	wantErr(t, s.DeleteDevice(ctx, "T", "D2", "", at), iot.ErrNotFound)
	addTenant(t, s, "T")
	_, err = s.Device(ctx, "T", "D1")
	must(t, err)
	_, err = s.Device(ctx, "T", "D2")
	wantErr(t, err, iot.ErrNotFound)
}

func testDeleteDevices(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	must(t, s.DeleteDevices(ctx, "nobody", at))
	addTenant(t, s, "T")
	addTenant(t, s, "U")
	for _, id := range []iot.DeviceID{"D1", "D2"} {
		addDevice(t, s, device("T", id))
		addDevice(t, s, device("U", id))
	}
	putCredentials(t, s, "T", "D1", password("a"))
	must(t, s.DeleteDevices(ctx, "T", at))
	_, err := s.Device(ctx, "T", "D1")
	wantErr(t, err, iot.ErrNotFound)
	_, err = s.Device(ctx, "U", "D1")
	must(t, err)
	addDevice(t, s, device("T", "D3"))
	putCredentials(t, s, "T", "D3", password("a")) // the auth-id is free again
}

func testCredentials(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	addTenant(t, s, "T")
	_, err := s.Credentials(ctx, "T", "D")
	wantErr(t, err, iot.ErrNotFound)
	_, err = s.Credentials(ctx, "U", "D")
	wantErr(t, err, iot.ErrNotFound)
	wantErr(t, s.PutCredentials(ctx, registry.CredentialsRecord{Tenant: "T", Device: "D", Version: "c"}, "x", at), iot.ErrNotFound)

	addDevice(t, s, device("T", "D"))
	got, err := s.Credentials(ctx, "T", "D")
	must(t, err)
	wantEqual(t, got, registry.CredentialsRecord{Tenant: "T", Device: "D", Set: []iot.Credential{}, Version: "c1"})

	custom := iot.Credential{Type: "my-type", AuthID: "z", Ext: json.RawMessage(`{"client-id":"c"}`), Secrets: []iot.Secret{{
		ID: "s2", Extra: map[string]json.RawMessage{"key": json.RawMessage(`{"k":[1,2]}`)}}}}
	key := iot.Credential{Type: iot.PSK, AuthID: "b", Enabled: ptr(false), Secrets: []iot.Secret{{ID: "s3", Key: []byte{0, 1},
		NotBefore: iot.Timestamp{Time: later(0).Truncate(1e9)}}}}
	want := registry.CredentialsRecord{Tenant: "T", Device: "D", Version: "c2", Set: []iot.Credential{custom, password("a"), key}}
	wantErr(t, s.PutCredentials(ctx, want, "c0", at), iot.ErrVersion)
	must(t, s.PutCredentials(ctx, want, "c1", at))
	got, err = s.Credentials(ctx, "T", "D")
	must(t, err)
	wantEqual(t, got, want)

	dev, err := s.Device(ctx, "T", "D")
	must(t, err)
	wantEqual(t, dev.Version, "v1") // versions are separate
	must(t, s.PutCredentials(ctx, registry.CredentialsRecord{Tenant: "T", Device: "D", Version: "c3"}, "c2", at))
	got, err = s.Credentials(ctx, "T", "D")
	must(t, err)
	wantEqual(t, len(got.Set), 0)
}

func testUniqueAuthID(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	addTenant(t, s, "T")
	addTenant(t, s, "U")
	addDevice(t, s, device("T", "D1"))
	addDevice(t, s, device("T", "D2"))
	addDevice(t, s, device("U", "D1"))
	putCredentials(t, s, "T", "D1", password("a"))
	putCredentials(t, s, "U", "D1", password("a"))
	err := s.PutCredentials(ctx, registry.CredentialsRecord{Tenant: "T", Device: "D2", Version: "c", Set: []iot.Credential{
		password("b"), password("a")}}, "", at)
	wantErr(t, err, iot.ErrExists)
	putCredentials(t, s, "T", "D2", password("b"), iot.Credential{Type: iot.PSK, AuthID: "a"}) // another type
	must(t, s.DeleteDevice(ctx, "T", "D1", "", at))
	putCredentials(t, s, "T", "D2", password("a"))
}
