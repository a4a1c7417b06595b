package registration

import (
	"context"
	"encoding/json"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// Reader reads the registry.
type Reader interface {
	Read(context.Context, registry.Query) (registry.Snapshot, error)
}

// Signer vouches.
type Signer interface {
	Sign(context.Context, assertion.Subject) (assertion.Token, error)
}

// Function answers registration.assert.
type Function struct {
	registry Reader
	signer   Signer
	now      func() time.Time
}

// New returns the function over r and s.
func New(r Reader, s Signer, now func() time.Time) *Function { return &Function{r, s, now} }

// Handle asserts the registration. iot.ErrInvalid where tenant or device are
// missing, iot.ErrNotFound for an unknown tenant and an unknown or disabled
// device, iot.ErrForbidden for a gateway that may not act and for a disabled
// tenant, for which nobody vouches.
func (f *Function) Handle(ctx context.Context, req events.RegistrationAssert) (*events.RegistrationAsserted, error) {
	if req.TenantID == "" || req.DeviceID == "" {
		return nil, iot.Errorf(iot.ErrInvalid, "tenant and device-id are required")
	}
	q := registry.Query{Tenant: registry.TenantKey{ID: req.TenantID}, Device: req.DeviceID}
	if req.GatewayID != req.DeviceID {
		q.Gateway = req.GatewayID
	}
	s, err := f.registry.Read(ctx, q)
	if err != nil {
		return nil, err
	}
	if !s.Tenant.Tenant.IsEnabled() {
		return nil, iot.Errorf(iot.ErrForbidden, "tenant is disabled or not registered")
	}
	reg, tok, err := Vouch(ctx, f.signer, &s)
	if err != nil {
		return nil, err
	}
	return &events.RegistrationAsserted{
		Registration: reg, Assertion: tok.JWT, AssertionExpires: tok.Expires, CacheFor: CacheFor(tok, f.now()),
	}, nil
}

// Vouch asserts the registration of the snapshot's device and signs the
// assertion at the snapshot's feed position. Errors as [registry.Assert].
func Vouch(ctx context.Context, signer Signer, s *registry.Snapshot) (events.Registration, assertion.Token, error) {
	via, err := registry.Assert(s)
	if err != nil {
		return events.Registration{}, assertion.Token{}, err
	}
	d := &s.Device.Device
	reg := events.Registration{
		DeviceID: s.DeviceID, Via: via,
		DownstreamMessageMapper: d.DownstreamMessageMapper, UpstreamMessageMapper: d.UpstreamMessageMapper,
	}
	if len(d.Defaults) > 0 {
		if err := json.Unmarshal(d.Defaults, &reg.Defaults); err != nil {
			return events.Registration{}, assertion.Token{}, err
		}
	}
	if d.CommandEndpoint != nil {
		if reg.CommandEndpoint, err = json.Marshal(d.CommandEndpoint); err != nil {
			return events.Registration{}, assertion.Token{}, err
		}
	}
	tok, err := signer.Sign(ctx, assertion.Subject{
		Tenant: s.Tenant.ID, Device: s.DeviceID, Gateway: s.GatewayID, Rev: events.Sequence(s.Sequence),
	})
	return reg, tok, err
}

// CacheFor is how long what came with tok may be kept: all but the last
// twenty-fourth of its life, so that it is renewed before it ends.
func CacheFor(tok assertion.Token, now time.Time) time.Duration {
	return max(0, tok.Expires.Sub(now)*23/24).Truncate(time.Second)
}
