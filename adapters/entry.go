package adapters

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// answer is what the admission function said. It does not change, and is kept
// for as many devices as are connected: it holds what is used, not the reply.
type answer struct {
	key      key
	asked    int64 // when the question was put: Admissions.age
	expires  int64 // the same scale
	settings *settings
	defaults *defaults // of tenant and device; shared where the device has none

	device, gateway iot.DeviceID
	registration    *events.Registration // nil where it says no more than the device
	assertion       string               // JWT
	secretID        string               // of the secret that proved the device
	address         netip.Addr           // which asked for it; see attempts.Address
}

// entry is an answer in the index, which notices find: of the cache, or of one
// session.
type entry struct {
	answer
	owner      *Session    // nil = it is the cache's
	next, prev *entry      // of the same device; the index's
	gone       atomic.Bool // a notice said that it may no longer be true
}

// settings are what the answers of a tenant's devices have in common.
type settings struct {
	object         events.TenantObject
	defaults       defaults
	limits         ttlLimits
	maxConnections int // -1 = any number
}

// newSettings computes what follows from a tenant's settings.
func newSettings(t *events.TenantObject) *settings {
	return &settings{
		object: *t, defaults: mergeDefaults(t.Defaults),
		limits: parseTTLLimits(t.ResourceLimits), maxConnections: parseMaxConnections(t.ResourceLimits),
	}
}

// parseMaxConnections reads how many connections a tenant may have. Limits
// fail open: what cannot be read limits nothing (contract: adapters 4.1).
func parseMaxConnections(raw json.RawMessage) int {
	var l struct {
		Max *float64 `json:"max-connections"`
	}
	if len(raw) == 0 || json.Unmarshal(raw, &l) != nil || l.Max == nil || *l.Max < 0 || *l.Max > 1<<31 {
		return -1
	}
	return int(*l.Max)
}

// allows reports whether the tenant lets devices use an adapter type.
func (s *settings) allows(adapterType string) bool {
	for i := range s.object.Adapters {
		if a := &s.object.Adapters[i]; a.Type == adapterType {
			return a.Enabled
		}
	}
	return len(s.object.Adapters) == 0
}

// answer keeps what is used of a reply.
func (a *Admissions) answer(k key, asked int64, admitted *events.Admitted, address netip.Addr) answer {
	now := time.Now()
	age := admitted.MaxAge()
	if a.o.MaxAge != 0 {
		age = min(age, a.o.MaxAge)
	}
	if end := admitted.AssertionExpires; !end.IsZero() {
		age = min(age, end.Sub(now))
	}
	n := answer{
		key: k, asked: asked, expires: a.age(now) + int64(age),
		settings: a.follow.index.shared(&admitted.TenantObject),
		device:   admitted.DeviceID, gateway: admitted.GatewayID,
		assertion: admitted.Assertion, secretID: admitted.SecretID, address: address,
	}
	if r := admitted.Registration; !reflect.DeepEqual(r, events.Registration{DeviceID: r.DeviceID}) {
		n.registration = &r
	}
	n.settle()
	return n
}

// settle computes what follows from the settings of tenant and device.
func (n *answer) settle() {
	n.defaults = &n.settings.defaults
	if n.registration != nil && len(n.registration.Defaults) > 0 {
		d := mergeDefaults(n.settings.object.Defaults, n.registration.Defaults)
		n.defaults = &d
	}
}

func (n *answer) tenant() iot.TenantID { return n.settings.object.ID }

// withSettings is e's answer with other settings of its tenant.
func (e *entry) withSettings(s *settings) *entry {
	n := &entry{answer: e.answer, owner: e.owner}
	n.settings = s
	n.settle()
	return n
}

// Admission is the answer to a [Request]: the device is let in. It is valid
// for the upload at hand; ask again for the next one. The zero Admission lets
// nobody in.
type Admission struct {
	req *Request // nil where s is not
	e   *entry
	s   *Session // that asked; nil = none
}

// Tenant returns the id of the tenant, never an alias.
func (a Admission) Tenant() iot.TenantID { return a.e.tenant() }

// TenantObject returns the tenant's settings. They are shared and must not be
// changed.
func (a Admission) TenantObject() *events.TenantObject { return &a.e.settings.object }

// Device returns the device that the message is from.
func (a Admission) Device() iot.DeviceID { return a.e.device }

// Gateway returns the gateway that acts for the device, or "".
func (a Admission) Gateway() iot.DeviceID { return a.e.gateway }

// Registration returns what the registry says about the device, with shared
// members, which must not be changed.
func (a Admission) Registration() events.Registration {
	if r := a.e.registration; r != nil {
		return *r
	}
	return events.Registration{DeviceID: a.e.device}
}

// defaultMaxTTD is the longest wait for a command where the tenant sets none.
const defaultMaxTTD = 60 * time.Second

// MaxTTD is how long a device may wait for a command with an upload by an adapter
// of the given type; 0 = not at all (contract: adapters 5.4).
func (a Admission) MaxTTD(adapterType string) time.Duration {
	list := a.TenantObject().Adapters
	for i := range list {
		if list[i].Type != adapterType {
			continue
		}
		if n, ok := wholeNumber(list[i].Ext["max-ttd"]); ok && n >= 0 {
			return seconds(float64(n))
		}
	}
	return defaultMaxTTD
}
