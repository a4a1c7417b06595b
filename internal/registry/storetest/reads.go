package storetest

import (
	"testing"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

func read(t *testing.T, s registry.Backend, q registry.Query) registry.Snapshot {
	t.Helper()
	q.Tenant = registry.TenantKey{ID: "T"}
	snap, err := s.Read(t.Context(), q)
	must(t, err)
	return snap
}

// population makes tenant T with devices D and G, of which G has auth-id a.
func population(t *testing.T, s registry.Backend) {
	t.Helper()
	addTenant(t, s, "T")
	d := device("T", "D")
	d.Device.Via = []iot.DeviceID{"G"}
	addDevice(t, s, d)
	addDevice(t, s, device("T", "G"))
	putCredentials(t, s, "T", "G", password("a"))
}

func ids(s *registry.Snapshot) [5]string {
	out := [5]string{string(s.Owner), string(s.DeviceID), "", string(s.GatewayID), ""}
	if s.Device != nil {
		out[2] = string(s.Device.ID)
	}
	if s.Gateway != nil {
		out[4] = string(s.Gateway.ID)
	}
	return out
}

func testReadAdmission(t *testing.T, s registry.Backend) {
	population(t, s)
	for _, c := range []struct {
		name           string
		authID, device string
		want           [5]string // owner, device asked about and found, gateway asked about and found
	}{
		{"for itself", "a", "", [5]string{"G", "G", "G", "", ""}},
		{"for itself, named", "a", "G", [5]string{"G", "G", "G", "", ""}},
		{"as gateway", "a", "D", [5]string{"G", "D", "D", "G", "G"}},
		{"as gateway of an unknown device", "a", "X", [5]string{"G", "X", "", "G", "G"}},
		{"unknown credential", "b", "", [5]string{}},
		{"unknown credential for a device", "b", "D", [5]string{"", "D", "D", "", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			snap := read(t, s, registry.Query{Type: iot.HashedPassword, AuthID: c.authID, Device: iot.DeviceID(c.device)})
			wantEqual(t, ids(&snap), c.want)
			if got, want := snap.Sequence, uint64(4); got != want {
				t.Fatalf("got sequence %d, want %d", got, want)
			}
			if c.authID == "a" {
				wantEqual(t, *snap.Credential, password("a"))
			} else if snap.Credential != nil {
				t.Fatalf("got credential %v, want none", snap.Credential.AuthID)
			}
		})
	}
}

func testReadAssertion(t *testing.T, s registry.Backend) {
	population(t, s)
	for _, c := range []struct {
		name            string
		device, gateway string
		want            [5]string
	}{
		{"alone", "D", "", [5]string{"", "D", "D", "", ""}},
		{"gateway", "D", "G", [5]string{"", "D", "D", "G", "G"}},
		{"its own gateway", "D", "D", [5]string{"", "D", "D", "", ""}},
		{"unknown", "X", "Y", [5]string{"", "X", "", "Y", ""}},
		{"gateway without device", "", "G", [5]string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			snap := read(t, s, registry.Query{Device: iot.DeviceID(c.device), Gateway: iot.DeviceID(c.gateway)})
			wantEqual(t, ids(&snap), c.want)
			if snap.Device != nil {
				want, err := s.Device(t.Context(), "T", "D")
				must(t, err)
				wantEqual(t, *snap.Device, want)
			}
		})
	}
}

func testReadGroups(t *testing.T, s registry.Backend) {
	addTenant(t, s, "T")
	addTenant(t, s, "U")
	for id, groups := range map[iot.DeviceID][]string{"G3": {"b"}, "G1": {"a", "b"}, "G2": {"a"}, "G4": {"c"}} {
		d := device("T", id)
		d.Device.MemberOf = groups
		addDevice(t, s, d)
	}
	other := device("U", "G9")
	other.Device.MemberOf = []string{"a"}
	addDevice(t, s, other)
	d := device("T", "D")
	d.Device.ViaGroups = []string{"b", "a", "none"}
	addDevice(t, s, d)
	wantEqual(t, read(t, s, registry.Query{Device: "D"}).Members, []iot.DeviceID{"G1", "G2", "G3"})

	gone := device("T", "G2")
	must(t, s.UpdateDevice(t.Context(), gone, ""))
	must(t, s.DeleteDevice(t.Context(), "T", "G3", "", at))
	wantEqual(t, read(t, s, registry.Query{Device: "D"}).Members, []iot.DeviceID{"G1"})
	d.Device.ViaGroups = nil
	must(t, s.UpdateDevice(t.Context(), d, ""))
	wantEqual(t, len(read(t, s, registry.Query{Device: "D"}).Members), 0)
}
