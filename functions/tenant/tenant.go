package tenant

import (
	"context"
	"encoding/json"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// MaxAge is how long a tenant may be kept (contract: events, 4.1).
const MaxAge = 180 * time.Second

// Reader reads the registry.
type Reader interface {
	Read(context.Context, registry.Query) (registry.Snapshot, error)
}

// Function answers tenant.get.
type Function struct {
	registry Reader
	now      func() time.Time
}

// New returns the function over r.
func New(r Reader, now func() time.Time) *Function { return &Function{r, now} }

// Handle finds the tenant by id, alias or the subject DN of a trust anchor.
// iot.ErrInvalid without either, iot.ErrNotFound where there is none or the
// DN is that of several tenants.
func (f *Function) Handle(ctx context.Context, req events.TenantGet) (*events.TenantGot, error) {
	key := registry.TenantKey{ID: req.ID}
	if req.ID == "" {
		if req.SubjectDN == "" {
			return nil, iot.Errorf(iot.ErrInvalid, "tenant-id or subject-dn is required")
		}
		key.SubjectDN = req.SubjectDN
	}
	s, err := f.registry.Read(ctx, registry.Query{Tenant: key})
	if err != nil {
		return nil, err
	}
	o, err := Object(&s.Tenant, f.now())
	if err != nil {
		return nil, err
	}
	return &events.TenantGot{TenantObject: o, CacheFor: MaxAge}, nil
}

// managementOnly are members of a trust anchor that adapters do not see
// (contract: registry, section 10).
var managementOnly = []string{
	"cert", "not-before", "not-after", "auto-provision-as-gateway", "auto-provisioning-device-id-template",
}

// Object returns the tenant as adapters see it now: the real id, without
// alias, registration limits, trust anchor group and what trust anchors hold for
// management only; anchors outside their validity are left out.
func Object(t *registry.TenantRecord, now time.Time) (events.TenantObject, error) {
	o := events.TenantObject{
		ID: t.ID, Enabled: t.Tenant.IsEnabled(), MinimumMessageSize: t.Tenant.MinimumMessageSize,
	}
	for _, a := range t.Tenant.Adapters {
		required := a.DeviceAuthenticationRequired
		ta := events.TenantAdapter{Type: a.Type, Enabled: a.Enabled, DeviceAuthenticationRequired: &required}
		if err := decode(a.Ext, &ta.Ext); err != nil {
			return o, err
		}
		o.Adapters = append(o.Adapters, ta)
	}
	var err error
	if err = decode(t.Tenant.Defaults, &o.Defaults); err != nil {
		return o, err
	}
	if err = decode(t.Tenant.Ext, &o.Ext); err != nil {
		return o, err
	}
	if l := t.Tenant.ResourceLimits; l != nil {
		if o.ResourceLimits, err = json.Marshal(l); err != nil {
			return o, err
		}
	}
	if tr := t.Tenant.Tracing; tr != nil {
		if o.Tracing, err = json.Marshal(tr); err != nil {
			return o, err
		}
	}
	for i := range t.Tenant.TrustedCA {
		a := &t.Tenant.TrustedCA[i]
		if !registry.AnchorValid(a, now) {
			continue
		}
		raw, err := anchor(a)
		if err != nil {
			return o, err
		}
		o.TrustedCA = append(o.TrustedCA, raw)
	}
	return o, nil
}

func anchor(a *iot.TrustAnchor) (json.RawMessage, error) {
	b, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	for _, name := range managementOnly {
		delete(m, name)
	}
	return json.Marshal(m)
}

// decode reads a free-form object that may be absent.
func decode(raw json.RawMessage, into *map[string]any) error {
	if len(raw) == 0 {
		return nil
	}
	return json.Unmarshal(raw, into)
}
