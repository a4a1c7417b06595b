package admission

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/registration"
	"github.com/sluice-iot/sluice/functions/tenant"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// Function answers admission.admit.
type Function struct {
	registry  registration.Reader
	passwords *registry.Passwords
	signer    registration.Signer
	now       func() time.Time
}

// New returns the function. p bounds how many slow hashes run at a time.
func New(r registration.Reader, p *registry.Passwords, s registration.Signer, now func() time.Time) *Function {
	return &Function{registry: r, passwords: p, signer: s, now: now}
}

var (
	errBadCredentials  = iot.Errorf(iot.ErrUnauthenticated, "bad credentials")
	errTenantDisabled  = iot.Errorf(iot.ErrForbidden, "tenant is disabled or not registered")
	errAdapterDisabled = iot.Errorf(iot.ErrForbidden, "adapter is disabled")
)

// Handle admits a device.
//
//	iot.ErrInvalid          the request breaks the form, or names a credential type not accepted here
//	iot.ErrUnauthenticated  unknown tenant or credentials, wrong secret, or no credential where one is required
//	iot.ErrForbidden        tenant or adapter disabled (looked at before the secret), or a gateway that may not act
//	iot.ErrNotFound         device disabled or not registered; without credential also an unknown tenant
func (f *Function) Handle(ctx context.Context, req events.Admit) (*events.Admitted, error) {
	q, err := query(&req)
	if err != nil {
		return nil, err
	}
	s, err := f.registry.Read(ctx, q)
	if err != nil {
		return nil, f.unread(ctx, &req, err)
	}
	t := &s.Tenant.Tenant
	adapter := t.Adapter(req.Adapter)
	switch {
	case !t.IsEnabled():
		return nil, errTenantDisabled
	case !adapter.Enabled:
		return nil, errAdapterDisabled
	}
	out := &events.Admitted{}
	if req.Credential != nil {
		if err := f.verify(ctx, &req, &s, out); err != nil {
			return nil, err
		}
	} else if adapter.DeviceAuthenticationRequired {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "device authentication is required")
	}
	if err := f.vouch(ctx, &s, out); err != nil {
		return nil, err
	}
	return out, nil
}

// vouch fills in what the registry says about the device.
func (f *Function) vouch(ctx context.Context, s *registry.Snapshot, out *events.Admitted) error {
	now := f.now()
	reg, tok, err := registration.Vouch(ctx, f.signer, s)
	if err != nil {
		return err
	}
	if out.TenantObject, err = tenant.Object(&s.Tenant, now); err != nil {
		return err
	}
	out.DeviceID, out.GatewayID, out.Registration = s.DeviceID, s.GatewayID, reg
	out.Assertion, out.AssertionExpires, out.CacheFor = tok.JWT, tok.Expires, registration.CacheFor(tok, now)
	return nil
}

// unread turns a failed look-up into the answer: who brings a credential must
// not learn from it, nor from the time it takes, whether the tenant exists.
func (f *Function) unread(ctx context.Context, req *events.Admit, err error) error {
	switch {
	case !errors.Is(err, iot.ErrNotFound):
		return err
	case req.Credential == nil:
		return iot.Errorf(iot.ErrNotFound, "tenant is disabled or not registered")
	case req.Credential.Type == iot.HashedPassword:
		return f.refuse(ctx, nil, req.Credential.Password)
	}
	return errBadCredentials
}

// query checks the form of a request and returns what to read.
func query(req *events.Admit) (registry.Query, error) {
	if req.Adapter == "" {
		return registry.Query{}, iot.Errorf(iot.ErrInvalid, "adapter is missing")
	}
	key, err := tenantKey(&req.TenantRef)
	if err != nil {
		return registry.Query{}, err
	}
	q := registry.Query{Tenant: key, Device: req.DeviceID}
	c := req.Credential
	if c == nil {
		if req.DeviceID == "" {
			return q, iot.Errorf(iot.ErrInvalid, "device-id or credential is required")
		}
		return q, nil
	}
	switch {
	case c.Type == "":
		return q, iot.Errorf(iot.ErrInvalid, "type of the credential is missing")
	case c.Type != iot.HashedPassword && c.Type != iot.PSK:
		return q, iot.Errorf(iot.ErrInvalid, "credential type not accepted: %.60q, want %s or %s", c.Type, iot.HashedPassword, iot.PSK)
	case c.AuthID == "":
		return q, errBadCredentials
	case c.Password != "" && c.SecretID != "":
		return q, iot.Errorf(iot.ErrInvalid, "credential has both password and secret-id")
	}
	q.Type, q.AuthID = c.Type, c.AuthID
	return q, nil
}

func tenantKey(ref *events.TenantRef) (registry.TenantKey, error) {
	given := 0
	for _, s := range []string{string(ref.ID), ref.SubjectDN, ref.SNI} {
		if s != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return registry.TenantKey{}, iot.Errorf(iot.ErrInvalid, "tenant: want exactly one of id, subject-dn and sni")
	case ref.SNI != "":
		label, _, dotted := strings.Cut(ref.SNI, ".")
		if !dotted || label == "" {
			return registry.TenantKey{}, iot.Errorf(iot.ErrInvalid, "sni %.60q has no first label that names a tenant", ref.SNI)
		}
		return registry.TenantKey{ID: iot.TenantID(label)}, nil
	}
	return registry.TenantKey{ID: ref.ID, SubjectDN: ref.SubjectDN}, nil
}
