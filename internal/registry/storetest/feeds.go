package storetest

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

func testFeed(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	r := tenant("T")
	r.Tenant.Ext = json.RawMessage(`{"invalidate-cache-on-update":true}`)
	must(t, s.CreateTenant(ctx, r))
	r.Tenant.Enabled = ptr(false)
	r.Updated = later(1)
	must(t, s.UpdateTenant(ctx, r, ""))
	addDevice(t, s, device("T", "D"))
	d := device("T", "D")
	d.Device.Enabled = ptr(false)
	must(t, s.UpdateDevice(ctx, d, ""))
	putCredentials(t, s, "T", "D", password("a"))
	must(t, s.DeleteDevice(ctx, "T", "D", "", later(2)))
	must(t, s.DeleteDevices(ctx, "T", later(2)))
	must(t, s.DeleteTenant(ctx, "T", "", later(3)))
	addTenant(t, s, "T") // the counter goes on
	wantEqual(t, feed(t, s, "T"), []string{
		"1 tenant-change-v1 CREATE  enabled=true",
		"2 tenant-change-v1 UPDATE  enabled=false",
		"3 device-change-v1 CREATE D enabled=true",
		"4 device-change-v1 UPDATE D enabled=false",
		"5 credentials-change-v1  D enabled=false",
		"6 device-change-v1 DELETE D enabled=false",
		"7 all-devices-of-tenant-deleted-v1   enabled=false",
		"8 tenant-change-v1 DELETE  enabled=false",
		"9 tenant-change-v1 CREATE  enabled=true",
	})
	changes, _, err := s.Changes(ctx, registry.Position{Sequences: map[iot.TenantID]uint64{"T": 7}}, 10)
	must(t, err)
	wantEqual(t, changes[0], registry.Change{Tenant: "T", Sequence: 8, Kind: registry.TenantChanged, Change: registry.Delete,
		InvalidateCache: true, At: later(3)})
	if changes[1].InvalidateCache {
		t.Fatal("a tenant without the ext member invalidates caches")
	}
}

func testFeedPosition(t *testing.T, s registry.Backend) {
	for i, id := range []iot.TenantID{"A", "B", "C"} {
		r := tenant(id)
		r.Created = later(i * 10)
		must(t, s.CreateTenant(t.Context(), r))
		r.Updated = later(i*10 + 1)
		must(t, s.UpdateTenant(t.Context(), r, ""))
	}
	type row struct {
		Tenant   iot.TenantID
		Sequence uint64
	}
	for _, c := range []struct {
		name  string
		after registry.Position
		max   int
		want  []row
		more  bool
	}{
		{"nothing asked", registry.Position{}, 9, nil, false},
		{"all", registry.Position{Since: at}, 9, []row{{"A", 1}, {"A", 2}, {"B", 1}, {"B", 2}, {"C", 1}, {"C", 2}}, false},
		{"since", registry.Position{Since: later(11)}, 9, []row{{"B", 2}, {"C", 1}, {"C", 2}}, false},
		{"exactly max", registry.Position{Since: later(11)}, 3, []row{{"B", 2}, {"C", 1}, {"C", 2}}, false},
		{"more", registry.Position{Since: later(11)}, 2, []row{{"B", 2}, {"C", 1}}, true},
		{"future", registry.Position{Since: at.Add(time.Hour)}, 9, nil, false},
		{"known tenants", registry.Position{Sequences: map[iot.TenantID]uint64{"B": 1, "A": 2, "X": 0}}, 9, []row{{"B", 2}}, false},
		{"known before since", registry.Position{Sequences: map[iot.TenantID]uint64{"A": 1, "C": 2}, Since: later(11)}, 9,
			[]row{{"A", 2}, {"B", 2}}, false},
		{"known, more", registry.Position{Sequences: map[iot.TenantID]uint64{"A": 0}, Since: later(11)}, 1, []row{{"A", 1}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			changes, more, err := s.Changes(t.Context(), c.after, c.max)
			must(t, err)
			var got []row
			for _, ch := range changes {
				got = append(got, row{ch.Tenant, ch.Sequence})
			}
			wantEqual(t, got, c.want)
			wantEqual(t, more, c.more)
		})
	}
}

func testNoTrace(t *testing.T, s registry.Backend) {
	ctx := t.Context()
	population(t, s)
	before := feed(t, s, "T")
	wantErr(t, s.CreateTenant(ctx, tenant("T")), iot.ErrExists)
	wantErr(t, s.UpdateTenant(ctx, tenant("T"), "x"), iot.ErrVersion)
	wantErr(t, s.CreateDevice(ctx, device("T", "D"), "c", -1), iot.ErrExists)
	wantErr(t, s.UpdateDevice(ctx, device("T", "D"), "x"), iot.ErrVersion)
	wantErr(t, s.DeleteDevice(ctx, "T", "X", "", at), iot.ErrNotFound)
	err := s.PutCredentials(ctx, registry.CredentialsRecord{Tenant: "T", Device: "D", Version: "c9",
		Set: []iot.Credential{password("new"), password("a")}}, "", at)
	wantErr(t, err, iot.ErrExists)
	wantEqual(t, feed(t, s, "T"), before)
	got, err := s.Credentials(ctx, "T", "D")
	must(t, err)
	wantEqual(t, got, registry.CredentialsRecord{Tenant: "T", Device: "D", Set: []iot.Credential{}, Version: "c1"})
}
