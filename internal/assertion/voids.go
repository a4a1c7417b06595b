package assertion

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	defaultMaxVoids = 100_000
	// voidMemory is longer than any token lives that a void may concern.
	voidMemory = DefaultLifetime + time.Hour
)

// voids knows up to which feed position tokens are void. Every addition moves
// epoch, so that a token is compared once per addition and not once per use.
type voids struct {
	epoch atomic.Uint64

	mu      sync.RWMutex
	max     int // devices in all tenants together
	count   int
	tenants map[iot.TenantID]*tenantVoids
	swept   time.Time
}

type tenantVoids struct {
	all     mark
	devices map[iot.DeviceID]mark
}

// mark voids what was issued before rev.
type mark struct {
	rev string
	at  time.Time
}

// raised returns m moved up to rev; a mark never moves down.
func (m mark) raised(rev string, at time.Time) mark {
	if rev > m.rev {
		m.rev = rev
	}
	m.at = at
	return m
}

func newVoids(limit int) *voids {
	if limit <= 0 {
		limit = defaultMaxVoids
	}
	return &voids{max: limit, tenants: map[iot.TenantID]*tenantVoids{}}
}

func (v *voids) add(tenant iot.TenantID, device iot.DeviceID, rev string, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sweep(now)
	t := v.tenants[tenant]
	if t == nil {
		t = &tenantVoids{devices: map[iot.DeviceID]mark{}}
		v.tenants[tenant] = t
	}
	if device == "" {
		t.all = t.all.raised(rev, now)
	} else {
		if _, there := t.devices[device]; !there {
			v.count++
		}
		t.devices[device] = t.devices[device].raised(rev, now)
		if v.count > v.max {
			v.collapse()
		}
	}
	v.epoch.Add(1)
}

// collapse turns the devices of those tenants that have most of them into one
// mark for each such tenant: tokens die that need not, and their devices are
// admitted once anew, but none survives that must not. It looks at every tenant, and
// so makes room for many additions at once.
func (v *voids) collapse() {
	var bySize [bits.UintSize + 1]int // devices of the tenants that have as many, by powers of two
	for _, t := range v.tenants {
		bySize[bits.Len(uint(len(t.devices)))] += len(t.devices)
	}
	least, freed := len(bySize), 0
	for least > 1 && freed <= v.max/4 {
		least--
		freed += bySize[least]
	}
	for _, t := range v.tenants {
		if bits.Len(uint(len(t.devices))) >= least {
			v.count -= len(t.devices)
			t.collapse()
		}
	}
}

func (t *tenantVoids) collapse() {
	for _, m := range t.devices {
		at := m.at
		if t.all.at.After(at) {
			at = t.all.at
		}
		t.all = t.all.raised(m.rev, at)
	}
	t.devices = map[iot.DeviceID]mark{}
}

// sweep forgets, once an hour, what concerns only tokens that have expired.
func (v *voids) sweep(now time.Time) {
	if now.Sub(v.swept) < time.Hour {
		return
	}
	v.swept = now
	for id, t := range v.tenants {
		for d, m := range t.devices {
			if now.Sub(m.at) > voidMemory {
				delete(t.devices, d)
				v.count--
			}
		}
		if now.Sub(t.all.at) > voidMemory {
			t.all = mark{}
		}
		if len(t.devices) == 0 && t.all.rev == "" {
			delete(v.tenants, id)
		}
	}
}

// covers reports whether a token with these claims is void.
func (v *voids) covers(c *Claims) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	t := v.tenants[c.Tenant]
	if t == nil {
		return false
	}
	return c.Rev < t.all.rev || c.Rev < t.devices[c.Device].rev || (c.Gateway != "" && c.Rev < t.devices[c.Gateway].rev)
}
