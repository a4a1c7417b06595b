package registration

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/provisioning"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// Signer vouches.
type Signer interface {
	Sign(context.Context, assertion.Subject) (assertion.Token, error)
}

// Config is what assertions stand on.
type Config struct {
	Registry provisioning.Registry
	Signer   Signer
	Poster   events.Poster // told of devices that gateways register; may be nil
	Log      *slog.Logger
	Now      func() time.Time
}

// Function answers registration.assert.
type Function struct {
	Config
	provisioner *provisioning.Provisioner
}

// New returns the function.
func New(c Config) *Function {
	return &Function{Config: c, provisioner: provisioning.New(c.Registry, c.Poster, c.Log)}
}

// Handle asserts the registration. A missing device is registered for a gateway
// that may do so. iot.ErrInvalid where tenant or device are missing or no
// device may have the id, iot.ErrNotFound for an unknown tenant and an unknown
// or disabled device, iot.ErrForbidden for a gateway that may not act, at a limit
// of the tenant, and for a disabled tenant, for which nobody vouches;
// iot.ErrUnavailable also when the device was registered and nobody took the
// notice of it.
func (f *Function) Handle(ctx context.Context, req events.RegistrationAssert) (*events.RegistrationAsserted, error) {
	if req.TenantID == "" || req.DeviceID == "" {
		return nil, iot.Errorf(iot.ErrInvalid, "tenant and device-id are required")
	}
	q := registry.Query{Tenant: registry.TenantKey{ID: req.TenantID}, Device: req.DeviceID}
	if req.GatewayID != req.DeviceID {
		q.Gateway = req.GatewayID
	}
	s, err := f.read(ctx, q)
	if err != nil {
		return nil, err
	}
	created := false
	if registry.MayProvision(&s) {
		if created, err = f.provisioner.ByGateway(ctx, &s); err != nil {
			return nil, err
		}
		if s, err = f.read(ctx, q); err != nil {
			return nil, err
		}
	}
	if s, err = f.tell(ctx, q, s, created); err != nil {
		return nil, err
	}
	reg, tok, err := Vouch(ctx, f.Signer, &s)
	if err != nil {
		return nil, err
	}
	got := &events.RegistrationAsserted{
		Registration: reg, Assertion: tok.JWT, AssertionExpires: tok.Expires, CacheFor: CacheFor(tok, f.Now()),
	}
	if f.provisioner.Untold(&s) {
		got.CacheFor = 0 // the next look-up is to tell
	}
	return got, nil
}

func (f *Function) read(ctx context.Context, q registry.Query) (registry.Snapshot, error) {
	s, err := provisioning.Read(ctx, f.Registry, q)
	if err == nil && !s.Tenant.Tenant.IsEnabled() {
		err = iot.Errorf(iot.ErrForbidden, "tenant is disabled or not registered")
	}
	return s, err
}

// tell tells of devices that the world was not told of yet, and returns the
// state after it.
func (f *Function) tell(ctx context.Context, q registry.Query, s registry.Snapshot, created bool) (registry.Snapshot, error) {
	if !f.provisioner.Untold(&s) {
		return s, nil
	}
	if _, err := registry.Assert(&s); err != nil {
		return s, err
	}
	if err := f.provisioner.Tell(ctx, q, s, created); err != nil && (created || !errors.Is(err, iot.ErrUnavailable)) {
		return s, err
	}
	return f.read(ctx, q)
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
