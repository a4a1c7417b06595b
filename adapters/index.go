package adapters

import (
	"reflect"
	"sync"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// index finds the entries that a notice concerns: those of the cache and those
// of sessions.
type index struct {
	mu      sync.Mutex
	tenants map[iot.TenantID]*tenantEntries
}

// tenantEntries are the entries of one tenant. A device has few, chained by
// their next; a gateway may act for very many.
type tenantEntries struct {
	settings *settings // the latest
	devices  map[iot.DeviceID]*entry
	gateways map[iot.DeviceID]map[*entry]struct{}
}

func (x *index) add(e *entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.insert(e)
}

func (x *index) insert(e *entry) {
	t := x.tenants[e.tenant()]
	if t == nil {
		t = &tenantEntries{devices: make(map[iot.DeviceID]*entry)}
		x.tenants[e.tenant()] = t
	}
	t.settings = e.settings
	if first := t.devices[e.device]; first != nil {
		e.next, first.prev = first, e
	}
	t.devices[e.device] = e
	if e.gateway == "" {
		return
	}
	if t.gateways == nil {
		t.gateways = make(map[iot.DeviceID]map[*entry]struct{})
	}
	if t.gateways[e.gateway] == nil {
		t.gateways[e.gateway] = make(map[*entry]struct{})
	}
	t.gateways[e.gateway][e] = struct{}{}
}

func (x *index) remove(e *entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.take(e)
}

// take removes e, where it is there.
func (x *index) take(e *entry) {
	t := x.tenants[e.tenant()]
	if t == nil || e.prev == nil && t.devices[e.device] != e {
		return
	}
	if e.next != nil {
		e.next.prev = e.prev
	}
	switch {
	case e.prev != nil:
		e.prev.next = e.next
	case e.next != nil:
		t.devices[e.device] = e.next
	default:
		delete(t.devices, e.device)
	}
	e.next, e.prev = nil, nil
	if g := e.gateway; g != "" {
		if delete(t.gateways[g], e); len(t.gateways[g]) == 0 {
			delete(t.gateways, g)
		}
	}
	if len(t.devices) == 0 {
		delete(x.tenants, e.tenant())
	}
}

// holds reports whether notices find e.
func (x *index) holds(e *entry) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.tenants[e.tenant()]
	return t != nil && (e.prev != nil || t.devices[e.device] == e)
}

// swap puts e in old's place. As the same answer in other words it is gone where
// old is.
func (x *index) swap(old, e *entry, same bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if same && old.gone.Load() {
		e.gone.Store(true)
	}
	x.insert(e) // first: the last entry of a tenant takes the tenant along
	x.take(old)
}

// shared returns the settings that entries of the tenant have already, where they
// are the same as t: a hundred thousand answers need not hold as many copies.
func (x *index) shared(t *events.TenantObject) *settings {
	x.mu.Lock()
	known := x.tenants[t.ID]
	var s *settings
	if known != nil {
		s = known.settings
	}
	x.mu.Unlock()
	if s != nil && reflect.DeepEqual(&s.object, t) {
		return s
	}
	return newSettings(t)
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
	x.eachOf(tenant, "", func(e *entry) { all = append(all, e) })
	return all
}

// end marks what is of a tenant, or of a device or through it as a gateway, as
// gone, and lists it.
func (x *index) end(tenant iot.TenantID, device iot.DeviceID) (all []*entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.eachOf(tenant, device, func(e *entry) {
		e.gone.Store(true)
		all = append(all, e)
	})
	return all
}

// sessions lists the sessions of a device, "" = of a tenant; nil = whoever's.
func (x *index) sessions(ss *Sessions, tenant iot.TenantID, device iot.DeviceID) (all []*Session) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.eachOf(tenant, device, func(e *entry) {
		if e.owner != nil && (ss == nil || e.owner.ss == ss) {
			all = append(all, e.owner)
		}
	})
	return all
}

// eachOf calls f for the entries of a device and those through it as a gateway;
// "" = of the whole tenant. f must not change the index.
func (x *index) eachOf(tenant iot.TenantID, device iot.DeviceID, f func(*entry)) {
	t := x.tenants[tenant]
	switch {
	case t == nil:
	case device == "":
		for _, e := range t.devices {
			for ; e != nil; e = e.next {
				f(e)
			}
		}
	default:
		for e := t.devices[device]; e != nil; e = e.next {
			f(e)
		}
		for e := range t.gateways[device] {
			f(e)
		}
	}
}

// len counts the entries that can be found.
func (x *index) len() (n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for tenant := range x.tenants {
		x.eachOf(tenant, "", func(*entry) { n++ })
	}
	return n
}
