package registry

import (
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Change is the change that a store records when it made change (Create or
// Update) of the tenant at a time. The sequence is the store's to add.
func (t *TenantRecord) Change(change string, at time.Time) Change {
	return Change{
		Tenant: t.ID, Kind: TenantChanged, Change: change, At: at,
		Enabled: t.Tenant.IsEnabled(), InvalidateCache: t.Tenant.InvalidatesCaches(),
	}
}

// Change is the same for a device.
func (d *DeviceRecord) Change(change string, at time.Time) Change {
	return Change{
		Tenant: d.Tenant, Kind: DeviceChanged, Device: d.ID, Change: change, At: at,
		Enabled: d.Device.IsEnabled(),
	}
}

// Parties says who is asked about and which gateway acts for it, "" for none.
// owner is the device of the credential that the query names, where there is one.
func (q *Query) Parties(owner iot.DeviceID) (device, gateway iot.DeviceID) {
	actor := q.Gateway
	if q.Type != "" {
		actor = owner
		if q.Device == "" {
			return owner, ""
		}
	}
	if actor == q.Device || q.Device == "" {
		actor = ""
	}
	return q.Device, actor
}
