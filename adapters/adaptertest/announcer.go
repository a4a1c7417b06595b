package adaptertest

import (
	"slices"
	"sync"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Announcer is a router that knows what it is told at once. Safe for concurrent use.
type Announcer struct {
	mu       sync.Mutex
	told     []adapters.Announcement
	gateways []LastGateway
	held     []func()
	hold     bool
}

// LastGateway is one call of [Announcer.LastGateway].
type LastGateway struct {
	Tenant          iot.TenantID
	Device, Gateway iot.DeviceID
}

var _ adapters.Announcer = (*Announcer)(nil)

// Announce implements [adapters.Announcer].
func (a *Announcer) Announce(changes []adapters.Announcement, done func()) {
	a.mu.Lock()
	a.told = append(a.told, changes...)
	hold := a.hold && done != nil
	if hold {
		a.held = append(a.held, done)
	}
	a.mu.Unlock()
	if !hold && done != nil {
		done()
	}
}

// LastGateway implements [adapters.Announcer].
func (a *Announcer) LastGateway(tenant iot.TenantID, device, gateway iot.DeviceID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gateways = append(a.gateways, LastGateway{tenant, device, gateway})
}

// Told returns everything announced so far.
func (a *Announcer) Told() []adapters.Announcement {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.told)
}

// Gateways returns the last gateways told so far.
func (a *Announcer) Gateways() []LastGateway {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.gateways)
}

// Now returns what counts for a device after everything announced so far; false
// where it cannot be reached.
func (a *Announcer) Now(tenant iot.TenantID, device iot.DeviceID) (adapters.Announcement, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, row := range slices.Backward(a.told) {
		if row.Tenant == tenant && row.Device == device {
			return row, !row.Gone
		}
	}
	return adapters.Announcement{}, false
}

// Hold has those who announce wait from now on, until release is called.
func (a *Announcer) Hold() (release func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hold = true
	return sync.OnceFunc(func() {
		a.mu.Lock()
		held := a.held
		a.held, a.hold = nil, false
		a.mu.Unlock()
		for _, done := range held {
			done()
		}
	})
}
