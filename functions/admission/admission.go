package admission

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/provisioning"
	"github.com/sluice-iot/sluice/functions/registration"
	"github.com/sluice-iot/sluice/functions/tenant"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// maxRounds bounds how often the registry is read for one admission: at first,
// for the auth-id that a template gives, after a device and its gateway were
// registered, and after the world was told of it.
const maxRounds = 6

// Registry is what admissions need of the registry.
type Registry interface {
	provisioning.Registry
	KeepVerified(context.Context, *registry.Snapshot, registry.Verified) error
}

// Config is what admissions stand on. Poster, MACs, Revocation
// and External may be nil.
type Config struct {
	Registry   Registry
	Passwords  *registry.Passwords // bounds how many slow hashes run at a time
	Signer     registration.Signer
	Poster     events.Poster  // told of devices that are registered by themselves
	MACs       *registry.MACs // recognises passwords verified before; nil = each pays its slow hash
	Revocation Revocation     // nil = certificates of anchors that ask for OCSP are refused
	External   External       // nil = tenants with an identity provider have no passwords checked
	Log        *slog.Logger
	Now        func() time.Time
}

// Function answers admission.admit.
type Function struct {
	Config
	provisioner *provisioning.Provisioner
}

// New returns the function.
func New(c Config) *Function {
	return &Function{Config: c, provisioner: provisioning.New(c.Registry, c.Poster, c.Log)}
}

var (
	errBadCredentials  = iot.Errorf(iot.ErrUnauthenticated, "bad credentials")
	errTenantDisabled  = iot.Errorf(iot.ErrForbidden, "tenant is disabled or not registered")
	errAdapterDisabled = iot.Errorf(iot.ErrForbidden, "adapter is disabled")
)

// Handle admits a device.
//
//	iot.ErrInvalid          the request breaks the form, names a credential type not accepted here, or an id that no device may have
//	iot.ErrUnauthenticated  unknown tenant or credentials, wrong secret, or no credential where one is required
//	iot.ErrForbidden        tenant or adapter disabled (looked at before the secret), a gateway that may not act, or a limit of the tenant
//	iot.ErrNotFound         device disabled or not registered; without credential also an unknown tenant
//	iot.ErrExists           the device to be registered by its certificate has the id of another one
//	iot.ErrUnavailable      besides a store that is down: a device was registered and the notice of it not taken, or the tenant's identity provider cannot be asked
func (f *Function) Handle(ctx context.Context, req events.Admit) (*events.Admitted, error) {
	v, err := newVisit(&req)
	if err != nil {
		return nil, err
	}
	for range maxRounds {
		again, err := f.round(ctx, v)
		if err != nil {
			return nil, err
		}
		if !again {
			return f.vouch(ctx, v)
		}
	}
	return nil, iot.Errorf(iot.ErrUnavailable, "the registry is being changed by others")
}

// round looks at one state of the registry. again means that the registry was
// changed or another question is to be asked: everything is looked at anew,
// so that what is vouched for was all true at one time.
func (f *Function) round(ctx context.Context, v *visit) (again bool, err error) {
	if err := f.look(ctx, v); err != nil {
		return false, err
	}
	t := &v.s.Tenant.Tenant
	adapter := t.Adapter(v.req.Adapter)
	switch {
	case !t.IsEnabled():
		return false, errTenantDisabled
	case !adapter.Enabled:
		return false, errAdapterDisabled
	}
	v.out, v.end = &events.Admitted{}, time.Time{}
	if v.req.Credential != nil {
		if again, err := f.verify(ctx, v); again || err != nil {
			return again, err
		}
	} else if adapter.DeviceAuthenticationRequired {
		return false, iot.Errorf(iot.ErrUnauthenticated, "device authentication is required")
	}
	return f.provision(ctx, v)
}

// provision registers a missing device for its gateway and tells of what was
// registered.
func (f *Function) provision(ctx context.Context, v *visit) (again bool, err error) {
	if registry.MayProvision(&v.s) && !v.triedGateway {
		v.triedGateway = true
		created, err := f.provisioner.ByGateway(ctx, &v.s)
		v.created = v.created || created
		return true, err
	}
	if !f.provisioner.Untold(&v.s) || v.told {
		return false, nil
	}
	if _, err := registry.Assert(&v.s); err != nil && !v.created {
		return false, err
	}
	v.told = true
	err = f.provisioner.Tell(ctx, v.q, v.s, v.created)
	if err != nil && (v.created || !errors.Is(err, iot.ErrUnavailable)) {
		return false, err
	}
	return true, nil
}

// look reads the registry. A certificate's tenant is that of its issuer, and
// only where there is none, the one that the client asked for by SNI.
func (f *Function) look(ctx context.Context, v *visit) (err error) {
	v.s, err = f.Registry.Read(ctx, v.q)
	if errors.Is(err, iot.ErrNotFound) && v.sni != "" {
		if v.q.Tenant, err = sniKey(v.sni); err != nil {
			return err
		}
		v.sni = ""
		v.s, err = f.Registry.Read(ctx, v.q)
	}
	if err != nil {
		return f.unread(ctx, v, err)
	}
	return nil
}

// unread turns a failed look-up into the answer: who brings a credential must
// not learn from it, nor from the time it takes, whether the tenant exists.
func (f *Function) unread(ctx context.Context, v *visit, err error) error {
	c := v.req.Credential
	switch {
	case !errors.Is(err, iot.ErrNotFound):
		return err
	case c == nil:
		return iot.Errorf(iot.ErrNotFound, "tenant is disabled or not registered")
	case c.Type == iot.HashedPassword && c.SecretID == "":
		return f.refuse(ctx, nil, c.Password)
	}
	return errBadCredentials
}

// vouch says what the registry knows about the device.
func (f *Function) vouch(ctx context.Context, v *visit) (*events.Admitted, error) {
	now, out := f.Now(), v.out
	reg, tok, err := registration.Vouch(ctx, f.Signer, &v.s)
	if err != nil {
		return nil, err
	}
	if out.TenantObject, err = tenant.Object(&v.s.Tenant, now); err != nil {
		return nil, err
	}
	out.DeviceID, out.GatewayID, out.Registration = v.s.DeviceID, v.s.GatewayID, reg
	out.Assertion, out.AssertionExpires, out.CacheFor = tok.JWT, tok.Expires, registration.CacheFor(tok, now)
	if !v.end.IsZero() { // what proved the device ends before the assertion
		out.CacheFor = min(out.CacheFor, max(0, v.end.Sub(now)).Truncate(time.Second))
	}
	if f.provisioner.Untold(&v.s) {
		out.CacheFor = 0 // the next look-up is to tell
	}
	return out, nil
}
