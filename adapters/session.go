package adapters

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Session is one connected device. Safe for concurrent use.
type Session struct {
	ss     *Sessions
	login  Login
	remote netip.Addr
	closer func(why error)
	own    Admission
	tenant iot.TenantID
	device iot.DeviceID
}

// Tenant returns the id of the device's tenant, never an alias; "" for an
// anonymous session.
func (s *Session) Tenant() iot.TenantID { return s.tenant }

// Device returns the device that is connected, which may be a gateway; "" for
// an anonymous session.
func (s *Session) Device() iot.DeviceID { return s.device }

// Anonymous reports whether the device did not say who it is.
func (s *Session) Anonymous() bool { return s.login.Credential == nil }

// Expired reports whether the proof that the device came in with has ended by
// itself.
func (s *Session) Expired(now time.Time) bool {
	return !s.login.Expires.IsZero() && !now.Before(s.login.Expires)
}

var (
	errOtherTenant = iot.Errorf(iot.ErrForbidden, "not authorized for this tenant")
	errExpired     = iot.Errorf(iot.ErrUnauthenticated, "the credentials have expired")
	errTenantOnly  = iot.Errorf(iot.ErrInvalid, "device id is missing: a tenant alone is no address")
	errNoAddress   = iot.Errorf(iot.ErrInvalid, "tenant and device id are required")
)

// address applies the rules for what a message may be addressed to (contract:
// adapters 1.3) and returns whose it is.
func (s *Session) address(tenant iot.TenantID, device iot.DeviceID) (iot.TenantID, iot.DeviceID, error) {
	if s.Anonymous() {
		if tenant == "" || device == "" {
			return "", "", errNoAddress
		}
		return tenant, device, nil
	}
	switch {
	case s.Expired(time.Now()):
		return "", "", errExpired
	case tenant != "" && device == "":
		return "", "", errTenantOnly
	case tenant != "" && tenant != s.tenant && tenant != s.login.Tenant.ID:
		return "", "", errOtherTenant
	case device == "":
		device = s.device
	}
	return s.tenant, device, nil
}

// Admit lets a message of device in; "" stands for the session's own tenant and
// device. Errors are those of [Pipeline.Admit] and of the rules of addresses:
// ErrInvalid for one that is incomplete, ErrForbidden for another tenant, and
// ErrUnauthenticated once the proof has expired. Ask [Session.Terminal] what
// they mean for the connection.
func (s *Session) Admit(ctx context.Context, tenant iot.TenantID, device iot.DeviceID) (Admission, error) {
	tenant, device, err := s.address(tenant, device)
	if err != nil {
		return Admission{}, err
	}
	return s.ss.p.Admit(ctx, s.request(tenant, device))
}

func (s *Session) request(tenant iot.TenantID, device iot.DeviceID) *Request {
	if s.Anonymous() {
		l := Login{}
		l.Tenant.ID = tenant
		return l.Request(device, s.remote)
	}
	if device == s.device {
		device = ""
	}
	return s.login.Request(device, s.remote)
}

// TryAdmit is [Session.Admit] from what is known already. It never waits: ok
// is false where Admit has to be called.
func (s *Session) TryAdmit(tenant iot.TenantID, device iot.DeviceID) (who Admission, ok bool, err error) {
	tenant, device, err = s.address(tenant, device)
	if err != nil {
		return Admission{}, true, err
	}
	r := s.request(tenant, device)
	r.Admit.Adapter = s.ss.p.o.Type
	return s.ss.p.o.Admissions.tryAdmit(r)
}

// Terminal reports whether an error of Admit, or of an upload that it let in,
// ends the connection (contract: adapters 8.7).
func (s *Session) Terminal(device iot.DeviceID, err error) bool {
	switch {
	case s.Anonymous() || errors.Is(err, errOtherTenant):
		return false
	case errors.Is(err, iot.ErrUnauthenticated), errors.Is(err, iot.ErrForbidden):
		return true
	}
	return errors.Is(err, iot.ErrNotFound) && (device == "" || device == s.device)
}

// Close forgets the session. closer is not called after it.
func (s *Session) Close() { s.leave() }

// leave takes s out; false when it is out already.
func (s *Session) leave() bool {
	ss := s.ss
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if _, there := ss.all[s]; !there {
		return false
	}
	delete(ss.all, s)
	ss.o.Meter.Disconnected(s.tenant)
	ss.open--
	if !s.Anonymous() {
		if ss.tenants[s.tenant]--; ss.tenants[s.tenant] == 0 {
			delete(ss.tenants, s.tenant)
		}
	}
	return true
}

// end closes the connection of s.
func (s *Session) end(why error) {
	if s.leave() {
		s.closer(why)
	}
}

// maxConnections is how many connections the tenant may have; -1 = any number.
func (e *entry) maxConnections() int {
	var l struct {
		Max *float64 `json:"max-connections"`
	}
	raw := e.admitted.TenantObject.ResourceLimits
	if len(raw) == 0 || json.Unmarshal(raw, &l) != nil || l.Max == nil || *l.Max < 0 {
		return -1
	}
	return int(*l.Max)
}
