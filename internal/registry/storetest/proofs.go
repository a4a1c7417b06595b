package storetest

import (
	"testing"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

func testMarkNotified(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	wantErr(t, s.MarkNotified(ctx, "T", "D", "v1", "v2", at), iot.ErrNotFound)
	addTenant(t, s, "T")
	wantErr(t, s.MarkNotified(ctx, "T", "D", "v1", "v2", at), iot.ErrNotFound)
	d := device("T", "D")
	d.Device.Enabled = ptr(false)
	d.Device.Via = []iot.DeviceID{"G"}
	d.Status.AutoProvisioned = true
	addDevice(t, s, d)
	wantErr(t, s.MarkNotified(ctx, "T", "D", "v0", "v2", at), iot.ErrVersion)
	must(t, s.MarkNotified(ctx, "T", "D", "v1", "v2", later(3)))
	wantErr(t, s.MarkNotified(ctx, "T", "D", "v1", "v3", at), iot.ErrVersion)
	d.Version, d.Status.AutoProvisioningNotificationSent, d.Status.Updated.Time = "v2", true, later(3)
	got, err := s.Device(ctx, "T", "D")
	must(t, err)
	wantEqual(t, got, d)
	changes, _, err := s.Changes(ctx, registry.Position{Sequences: map[iot.TenantID]uint64{"T": 2}}, 10)
	must(t, err)
	sameChanges(t, changes, []registry.Change{{Tenant: "T", Sequence: 3, Kind: registry.DeviceChanged, Device: "D", Change: registry.Update, At: later(3)}})
}

func verified(secret, mac string) registry.Verified {
	return registry.Verified{SecretID: secret, MAC: []byte(mac), Until: later(100)}
}

func kept(t *testing.T, s registry.Backend, authID string) []registry.Verified {
	t.Helper()
	return read(t, s, registry.Query{Type: iot.HashedPassword, AuthID: authID}).Verified
}

func testKeepVerified(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	must(t, s.KeepVerified(ctx, "T", iot.HashedPassword, "a", verified("s1", "m"))) // nothing is there
	population(t, s)
	putCredentials(t, s, "T", "D", password("d"))
	wantEqual(t, len(kept(t, s, "a")), 0)
	before := read(t, s, registry.Query{Type: iot.HashedPassword, AuthID: "a"})
	must(t, s.KeepVerified(ctx, "T", iot.HashedPassword, "a", verified("s1", "one")))
	must(t, s.KeepVerified(ctx, "T", iot.HashedPassword, "none", verified("s1", "x")))
	must(t, s.KeepVerified(ctx, "T", iot.PSK, "a", verified("s1", "x")))
	must(t, s.KeepVerified(ctx, "U", iot.HashedPassword, "a", verified("s1", "x")))
	wantEqual(t, kept(t, s, "a"), []registry.Verified{verified("s1", "one")})
	wantEqual(t, len(kept(t, s, "d")), 0)
	second := verified("s1", "two")
	second.Until = later(200)
	must(t, s.KeepVerified(ctx, "T", iot.HashedPassword, "a", second))
	wantEqual(t, kept(t, s, "a"), []registry.Verified{second})
	after := read(t, s, registry.Query{Type: iot.HashedPassword, AuthID: "a"})
	after.Verified = before.Verified
	wantEqual(t, after, before) // neither versions nor the sequence moved
	creds, err := s.Credentials(ctx, "T", "G")
	must(t, err)
	wantEqual(t, creds, registry.CredentialsRecord{Tenant: "T", Device: "G", Version: "c2", Set: []iot.Credential{password("a")}})
}

func testVerifiedEnds(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	apply := func(w registry.DeviceWrite) {
		results, err := s.ApplyDevices(ctx, "T", []registry.DeviceWrite{w}, -1)
		must(t, err)
		wantResults(t, results, nil)
	}
	renewed := write(registry.UpdateOp, "G", "v8")
	renewed.Credentials = credentialsOf("G", "c8", password("a"))
	for _, c := range []struct {
		name string
		end  func()
		keep bool
	}{
		{"put anew", func() { putCredentials(t, s, "T", "G", password("a")) }, false},
		{"removed", func() { putCredentials(t, s, "T", "G") }, false},
		{"the device is deleted", func() { must(t, s.DeleteDevice(ctx, "T", "G", "", at)) }, false},
		{"all devices are deleted", func() { must(t, s.DeleteDevices(ctx, "T", at)) }, false},
		{"put anew in bulk", func() { apply(renewed) }, false},
		{"deleted in bulk", func() { apply(write(registry.DeleteOp, "G", "")) }, false},
		{"the device is updated", func() { must(t, s.UpdateDevice(ctx, device("T", "G"), "")) }, true},
		{"the device is updated in bulk", func() { apply(write(registry.UpdateOp, "G", "v9")) }, true},
		{"another device is put", func() { putCredentials(t, s, "T", "D", password("d")) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			population(t, s)
			must(t, s.KeepVerified(ctx, "T", iot.HashedPassword, "a", verified("s1", "m")))
			c.end()
			if !c.keep { // the same credential again, on whatever device
				s.DeleteDevice(ctx, "T", "G", "", at)
				addDevice(t, s, device("T", "G"))
				putCredentials(t, s, "T", "G", password("a"))
			}
			if got := len(kept(t, s, "a")) > 0; got != c.keep {
				t.Errorf("kept is %t, want %t", got, c.keep)
			}
			must(t, s.DeleteDevices(ctx, "T", at))
			must(t, s.DeleteTenant(ctx, "T", "", at))
		})
	}
}
