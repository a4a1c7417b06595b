package adapters

import (
	"reflect"
	"sync"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// index finds the cached entries that a notice concerns.
type index struct {
	mu      sync.Mutex
	tenants map[iot.TenantID]*tenantEntries
}

// tenantEntries are the entries of one tenant. A device has few; a gateway may
// act for very many.
type tenantEntries struct {
	settings *events.TenantObject // the latest
	devices  map[iot.DeviceID][]*entry
	gateways map[iot.DeviceID]map[*entry]struct{}
}

func (x *index) add(e *entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.tenants[e.tenant()]
	if t == nil {
		t = &tenantEntries{devices: make(map[iot.DeviceID][]*entry)}
		x.tenants[e.tenant()] = t
	}
	t.settings = &e.admitted.TenantObject
	d, g := e.admitted.DeviceID, e.admitted.GatewayID
	t.devices[d] = append(t.devices[d], e)
	if g == "" {
		return
	}
	if t.gateways == nil {
		t.gateways = make(map[iot.DeviceID]map[*entry]struct{})
	}
	if t.gateways[g] == nil {
		t.gateways[g] = make(map[*entry]struct{})
	}
	t.gateways[g][e] = struct{}{}
}

func (x *index) remove(e *entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.tenants[e.tenant()]
	if t == nil {
		return
	}
	d, g := e.admitted.DeviceID, e.admitted.GatewayID
	list := t.devices[d]
	for i := range list {
		if list[i] == e {
			last := len(list) - 1
			list[i], list[last] = list[last], nil
			list = list[:last]
			break
		}
	}
	if len(list) == 0 {
		delete(t.devices, d)
	} else {
		t.devices[d] = list
	}
	if g != "" {
		if delete(t.gateways[g], e); len(t.gateways[g]) == 0 {
			delete(t.gateways, g)
		}
	}
	if len(t.devices) == 0 {
		delete(x.tenants, e.tenant())
	}
}

// shared returns the settings that entries of the tenant have already, where they
// are the same as t: a hundred thousand answers need not hold as many copies.
func (x *index) shared(t *events.TenantObject) *events.TenantObject {
	x.mu.Lock()
	known := x.tenants[t.ID]
	var settings *events.TenantObject
	if known != nil {
		settings = known.settings
	}
	x.mu.Unlock()
	if settings != nil && reflect.DeepEqual(settings, t) {
		return settings
	}
	return t
}

func (x *index) has(tenant iot.TenantID) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.tenants[tenant] != nil
}

// ofTenant lists every entry of a tenant.
func (x *index) ofTenant(tenant iot.TenantID) (all []*entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if t := x.tenants[tenant]; t != nil {
		for _, list := range t.devices {
			all = append(all, list...)
		}
	}
	return all
}

// ofDevice lists the entries that are of a device, or through it as a gateway.
func (x *index) ofDevice(tenant iot.TenantID, device iot.DeviceID) (all []*entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.tenants[tenant]
	if t == nil {
		return nil
	}
	all = append(all, t.devices[device]...)
	for e := range t.gateways[device] {
		all = append(all, e)
	}
	return all
}

// len counts the entries that can be found.
func (x *index) len() (n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, t := range x.tenants {
		for _, list := range t.devices {
			n += len(list)
		}
	}
	return n
}
