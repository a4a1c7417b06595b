package assertion

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Making room looks at every tenant, with nobody verifying meanwhile: it must
// not be done again for each change where every tenant has few devices.
func TestRoomIsMadeForManyVoids(t *testing.T) {
	const limit = 1000
	v := newVoids(limit)
	now := time.Unix(0, 0)
	for i := range limit + 1 {
		v.add(iot.TenantID(fmt.Sprint("T", i/2)), iot.DeviceID(fmt.Sprint("D", i)), "5", now)
	}
	if v.count > limit*3/4 {
		t.Errorf("%d are left, want at most %d", v.count, limit*3/4)
	}
	for i := range limit + 1 {
		tenant, device := iot.TenantID(fmt.Sprint("T", i/2)), iot.DeviceID(fmt.Sprint("D", i))
		if !v.covers(&Claims{Tenant: tenant, Device: device, Rev: "4"}) || v.covers(&Claims{Tenant: tenant, Device: device, Rev: "5"}) {
			t.Fatalf("the void of %s/%s is gone, or is for more than it was", tenant, device)
		}
	}
}

func TestTheTenantWithMostVoidsMakesRoom(t *testing.T) {
	const limit = 100
	v := newVoids(limit)
	now := time.Unix(0, 0)
	v.add("small", "D", "5", now)
	for i := range limit {
		v.add("large", iot.DeviceID(fmt.Sprint("D", i)), "5", now)
	}
	if !v.covers(&Claims{Tenant: "large", Device: "another", Rev: "4"}) || v.covers(&Claims{Tenant: "small", Device: "another", Rev: "4"}) {
		t.Error("room was made at the expense of another tenant than the one that takes most")
	}
}
