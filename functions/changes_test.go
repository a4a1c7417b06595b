package functions_test

import (
	"errors"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

func TestChangesAreFound(t *testing.T) { testChangesAreFound(t, newInstallation(t)) }

func testChangesAreFound(t *testing.T, in *installation) {
	in.tenant(t, "A", `{"ext":{"invalidate-cache-on-update":true}}`)
	in.device(t, "A", "d", `{"enabled":false}`, `[{"type":"psk","auth-id":"p","secrets":[{"id":"s","key":"AQID"}]}]`)
	in.tenant(t, "B", `{}`)
	if err := in.service.DeleteDevices(t.Context(), "B"); err != nil {
		t.Fatal(err)
	}
	inv := in.encoded(t)
	got, err := events.Call(t.Context(), inv, events.RegistryChanges{Since: noon.Add(-time.Minute), Max: 100})
	if err != nil {
		t.Fatal(err)
	}
	want := map[iot.TenantID][]events.RegistryChanged{
		"A": {
			{Type: events.TypeTenantChanged, TenantID: "A", Sequence: 1, Change: "CREATE", Enabled: true, InvalidateCache: true, At: noon},
			{Type: events.TypeDeviceChanged, TenantID: "A", Sequence: 2, DeviceID: "d", Change: "CREATE", At: noon},
			{Type: events.TypeCredentialsChanged, TenantID: "A", Sequence: 3, DeviceID: "d", At: noon},
		},
		"B": {
			{Type: events.TypeTenantChanged, TenantID: "B", Sequence: 1, Change: "CREATE", Enabled: true, At: noon},
			{Type: events.TypeDevicesDeleted, TenantID: "B", Sequence: 2, At: noon},
		},
	}
	found := map[iot.TenantID][]events.RegistryChanged{}
	for _, c := range got.Changes {
		found[c.TenantID] = append(found[c.TenantID], c)
	}
	for tenant, list := range want {
		if len(found[tenant]) != len(list) {
			t.Fatalf("%s: got %+v", tenant, found[tenant])
		}
		for i := range list {
			if found[tenant][i] != list[i] {
				t.Errorf("got %+v, want %+v", found[tenant][i], list[i])
			}
		}
	}
	if got.More || !got.Now.Equal(noon) || got.MaxAge() != 0 {
		t.Errorf("more %v, now %s, kept %s", got.More, got.Now, got.MaxAge())
	}

	got, err = events.Call(t.Context(), inv, events.RegistryChanges{Sequences: map[iot.TenantID]uint64{"A": 1, "B": 2}, Max: 1})
	if err != nil || len(got.Changes) != 1 || got.Changes[0].Sequence != 2 || !got.More {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, max := range []int{0, -1, events.MaxChanges + 1} {
		if _, err := events.Call(t.Context(), inv, events.RegistryChanges{Max: max}); !errors.Is(err, iot.ErrInvalid) {
			t.Errorf("max %d: %v", max, err)
		}
	}
}
