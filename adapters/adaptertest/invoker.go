package adaptertest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
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
	anchors        []json.RawMessage
	via            []iot.DeviceID
	lookups        int
	changes
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
	if q, ok := req.(events.NotificationDerive); ok {
		return derive(q)
	}
	q, ok := req.(events.Admit)
	if !ok {
		return nil, fmt.Errorf("the fake serves %s, %s and %s only, got %s", events.TypeAdmit, events.TypeTenantGet, events.TypeNotificationDerive, req.EventType())
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
	id := identity{tenant: known(q.TenantRef.ID), device: q.DeviceID}
	if q.Credential != nil {
		var err error
		if id, err = i.identify(q.TenantRef, q.Credential); err != nil {
			return nil, err
		}
	}
	device, gateway := id.device, iot.DeviceID("")
	if q.DeviceID != "" && q.DeviceID != id.device {
		device, gateway = q.DeviceID, id.device
	}
	if err := i.registered(id.tenant, device, gateway, q.Adapter); err != nil {
		return nil, err
	}
	i.tokens++
	return &events.Admitted{
		TenantObject: i.object(id.tenant),
		DeviceID:     device, GatewayID: gateway,
		Registration:     events.Registration{DeviceID: device, Defaults: i.deviceDefaults, Via: i.via},
		Assertion:        fmt.Sprintf("token-%d", i.tokens),
		AssertionExpires: time.Now().Add(24 * time.Hour),
		SecretID:         id.secret,
		CacheFor:         time.Hour,
	}, nil
}

// registered says whether a device, maybe by a gateway, may use an adapter. i.mu
// is held.
func (i *Invoker) registered(tenant iot.TenantID, device, gateway iot.DeviceID, adapter string) error {
	created := gateway == ProvisioningGateway && strings.HasPrefix(string(device), Provisioned)
	switch {
	case tenant == OffTenant, !i.allows(adapter):
		return iot.Errorf(iot.ErrForbidden, "adapter is disabled")
	case i.off[tenant]:
		return iot.Errorf(iot.ErrForbidden, "tenant is disabled or not registered")
	case tenant != Tenant && tenant != OtherTenant:
		return iot.Errorf(iot.ErrNotFound, "tenant is disabled or not registered")
	case device == DisabledDevice, i.gone[device], !created && !slices.Contains(population, device):
		return iot.Errorf(iot.ErrNotFound, "device is disabled or not registered")
	case gateway != "" && !created && (gateway != Gateway || device != Device2), i.gone[gateway]:
		return iot.Errorf(iot.ErrForbidden, "gateway is disabled or not registered")
	}
	return nil
}

func (i *Invoker) allows(adapter string) bool {
	for _, a := range i.adapters {
		if a.Type == adapter {
			return a.Enabled
		}
	}
	return len(i.adapters) == 0
}

// object is the tenant as adapters see it. i.mu is held.
func (i *Invoker) object(tenant iot.TenantID) events.TenantObject {
	return events.TenantObject{ID: tenant, Enabled: true, Defaults: i.tenantDefaults, ResourceLimits: []byte(i.limits), Adapters: i.adapters, TrustedCA: i.anchors}
}

// tenant answers for a tenant that exists.
func (i *Invoker) tenant(q events.TenantGet) (events.Reply, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.lookups++
	if i.fail != nil {
		return nil, i.fail
	}
	if i.off[q.ID] {
		return nil, iot.Errorf(iot.ErrNotFound, "tenant is disabled or not registered")
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

// Via sets the gateways that answers say may act for a device from now on, whichever
// device it is. It changes nothing about who is let in.
func (i *Invoker) Via(gateways ...iot.DeviceID) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.via = gateways
}

// TrustedCA sets the trust anchors (JSON) of every tenant from now on; they say
// nothing about which certificates are accepted.
func (i *Invoker) TrustedCA(anchors ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.anchors = nil
	for _, a := range anchors {
		i.anchors = append(i.anchors, json.RawMessage(a))
	}
}
