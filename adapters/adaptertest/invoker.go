package adaptertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// The population that a new [Invoker] knows. Every device logs in with its id
// as auth-id and [Password]. Device2 and DisabledDevice may be acted for by
// Gateway; OtherDevice may not.
const (
	Tenant      iot.TenantID = "tenant-1"
	Alias       iot.TenantID = "alias-1" // of Tenant
	OtherTenant iot.TenantID = "tenant-2"
	OffTenant   iot.TenantID = "tenant-off" // the adapter is disabled for it

	Device         iot.DeviceID = "device-1"
	Device2        iot.DeviceID = "device:2"
	OtherDevice    iot.DeviceID = "device-3"
	DisabledDevice iot.DeviceID = "device-off"
	Gateway        iot.DeviceID = "gateway-1"

	Password = "se:cret@1"
)

// Invoker is an admission function with a population of its own. Its answers
// may be used for an hour. Each carries another assertion: token-1, token-2...
// Safe for concurrent use.
type Invoker struct {
	mu             sync.Mutex
	calls          []events.Admit
	tokens         int
	fail           error
	gate           chan struct{}
	tenantDefaults map[string]any
	deviceDefaults map[string]any
	limits         string
	adapters       []events.TenantAdapter
	lookups        int
}

var _ events.Invoker = (*Invoker)(nil)

// Calls returns the questions asked so far.
func (i *Invoker) Calls() []events.Admit {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.calls)
}

// Fail makes every call from now on end with err; nil ends that.
func (i *Invoker) Fail(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fail = err
}

// Block holds every call from now on until release is called.
func (i *Invoker) Block() (release func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	gate := make(chan struct{})
	i.gate = gate
	return sync.OnceFunc(func() {
		i.mu.Lock()
		i.gate = nil
		i.mu.Unlock()
		close(gate)
	})
}

// Defaults sets the defaults and resource limits (JSON, "" = none) of what is
// answered from now on.
func (i *Invoker) Defaults(tenant, device map[string]any, limits string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tenantDefaults, i.deviceDefaults, i.limits = tenant, device, limits
}

// Invoke implements [events.Invoker].
func (i *Invoker) Invoke(ctx context.Context, req events.Request) (events.Reply, error) {
	if q, ok := req.(events.TenantGet); ok {
		return i.tenant(q)
	}
	q, ok := req.(events.Admit)
	if !ok {
		return nil, fmt.Errorf("the fake serves %s and %s only, got %s", events.TypeAdmit, events.TypeTenantGet, req.EventType())
	}
	i.mu.Lock()
	i.calls = append(i.calls, q)
	gate := i.gate
	i.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.fail != nil {
		return nil, i.fail
	}
	return i.admit(q)
}

func (i *Invoker) admit(q events.Admit) (events.Reply, error) {
	tenant := q.TenantRef.ID
	if tenant == Alias {
		tenant = Tenant
	}
	device, gateway := q.DeviceID, iot.DeviceID("")
	if q.Credential != nil {
		if !authentic(tenant, q.Credential) {
			return nil, iot.Errorf(iot.ErrUnauthenticated, "bad credentials")
		}
		own := iot.DeviceID(q.Credential.AuthID)
		if device == "" {
			device = own
		}
		if device != own {
			gateway = own
		}
	}
	switch {
	case tenant == OffTenant:
		return nil, iot.Errorf(iot.ErrForbidden, "adapter is disabled")
	case tenant != Tenant && tenant != OtherTenant:
		return nil, iot.Errorf(iot.ErrNotFound, "tenant is disabled or not registered")
	case device == DisabledDevice || !slices.Contains(population, device):
		return nil, iot.Errorf(iot.ErrNotFound, "device is disabled or not registered")
	case gateway != "" && (gateway != Gateway || device != Device2):
		return nil, iot.Errorf(iot.ErrForbidden, "gateway is disabled or not registered")
	}
	i.tokens++
	return &events.Admitted{
		TenantObject: i.object(tenant),
		DeviceID:     device, GatewayID: gateway,
		Registration:     events.Registration{DeviceID: device, Defaults: i.deviceDefaults},
		Assertion:        fmt.Sprintf("token-%d", i.tokens),
		AssertionExpires: time.Now().Add(24 * time.Hour),
		CacheFor:         time.Hour,
	}, nil
}

// object is the tenant as adapters see it. i.mu is held.
func (i *Invoker) object(tenant iot.TenantID) events.TenantObject {
	return events.TenantObject{ID: tenant, Enabled: true, Defaults: i.tenantDefaults, ResourceLimits: []byte(i.limits), Adapters: i.adapters}
}

// tenant answers for a tenant that exists.
func (i *Invoker) tenant(q events.TenantGet) (events.Reply, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.lookups++
	if i.fail != nil {
		return nil, i.fail
	}
	return &events.TenantGot{TenantObject: i.object(q.ID), CacheFor: 180 * time.Second}, nil
}

// Lookups counts the tenants that were asked for by themselves.
func (i *Invoker) Lookups() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.lookups
}

// Adapters sets the adapters of every tenant from now on.
func (i *Invoker) Adapters(list ...events.TenantAdapter) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.adapters = list
}

var population = []iot.DeviceID{Device, Device2, OtherDevice, DisabledDevice, Gateway}

func authentic(tenant iot.TenantID, c *events.Credential) bool {
	return slices.Contains([]iot.TenantID{Tenant, OtherTenant, OffTenant}, tenant) &&
		slices.Contains(population, iot.DeviceID(c.AuthID)) && c.Password == Password
}
