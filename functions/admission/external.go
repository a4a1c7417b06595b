package admission

import (
	"context"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// External checks passwords at identity providers, for tenants that name one (see
// [iot.Tenant.IdentityProvider]).
type External interface {
	// Verify returns the device that the password proves, and until when that may be
	// relied on. iot.ErrUnauthenticated when it is refused; iot.ErrUnavailable when
	// nobody can say, also for a provider that is not known or not the tenant's.
	Verify(ctx context.Context, provider string, tenant iot.TenantID, authID, password string) (iot.DeviceID, time.Time, error)
}

var (
	errNoProvider = &iot.Error{Sentinel: iot.ErrUnavailable, Text: "the tenant's identity provider is not configured here", RetryAfter: time.Minute}
	errMoved      = iot.Errorf(iot.ErrUnavailable, "the tenant is being changed by others")
)

// proven is what an identity provider said in this visit.
type proven struct {
	provider string
	tenant   iot.TenantID
	until    time.Time
}

// external has the password checked by the tenant's identity provider, once in a
// visit, and then asks the registry about the device that it proves. Nothing of
// the password is kept.
func (f *Function) external(ctx context.Context, v *visit, provider string) (again bool, err error) {
	proof := v.req.Credential
	if p := v.proven; p != nil {
		if p.provider != provider || p.tenant != v.s.Tenant.ID {
			return false, errMoved
		}
		v.until(p.until)
		return false, nil
	}
	switch {
	case f.External == nil:
		return false, errNoProvider
	case proof.SecretID != "": // what the provider was shown cannot be shown again
		return false, errBadCredentials
	case proof.Password == "":
		return false, f.refuse(ctx, nil, proof.Password)
	}
	device, until, err := f.External.Verify(ctx, provider, v.s.Tenant.ID, proof.AuthID, proof.Password)
	if err != nil {
		return false, err
	}
	v.proven = &proven{provider, v.s.Tenant.ID, until}
	v.q.Type, v.q.AuthID = "", ""
	v.q.Device, v.q.Gateway = device, ""
	if asked := v.req.DeviceID; asked != "" && asked != device {
		v.q.Device, v.q.Gateway = asked, device
	}
	return true, nil
}
