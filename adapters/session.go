package adapters

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Session is one connected device. It is let in once with its secret; after
// that it is renewed by the id of the secret. Safe for concurrent use.
type Session struct {
	ss      *Sessions
	closer  func(why error)
	own     atomic.Pointer[entry] // nil = anonymous, which does not change
	kind    string                // type of the credential
	authID  string
	proof   *events.Credential // what a renewal has to show again; nil = nothing
	context string             // client context as JSON
	alias   iot.TenantID       // the tenant as the device calls it
	remote  netip.Addr
	expires int64 // Unix time in ns; 0 = the proof does not end by itself

	mu       sync.Mutex
	closed   bool
	checking bool   // it is in line for a check, or is being checked
	failures uint8  // of checks, one after the other
	changes  uint32 // that made a check necessary
	renewing *renewal
	retry    *time.Timer
}

// remember keeps of a login what renewals need.
func (s *Session) remember(l *Login, context, secretID string) {
	c := l.Credential
	s.kind, s.authID, s.context, s.alias = c.Type, strings.Clone(c.AuthID), context, iot.TenantID(strings.Clone(string(l.Tenant.ID)))
	if !l.Expires.IsZero() {
		s.expires = l.Expires.UnixNano()
	}
	if len(c.Certificate) > 0 || c.JWT != "" || secretID == "" {
		proof := *c
		s.proof = &proof
	}
}

// request asks anew for the session's own device, with "", or for another
// one. Anonymous sessions name both tenant and device.
func (s *Session) request(tenant iot.TenantID, device iot.DeviceID) Request {
	r := Request{Remote: s.remote, context: s.context}
	r.Admit.Adapter, r.Admit.TenantRef.ID, r.Admit.DeviceID = s.ss.p.o.Type, tenant, device
	own := s.own.Load()
	if own == nil {
		return r
	}
	r.renewal, r.Admit.TenantRef.ID = true, own.tenant()
	c := &events.Credential{Type: s.kind, AuthID: s.authID}
	if s.proof != nil {
		*c = *s.proof
	}
	c.SecretID = own.secretID
	r.Admit.Credential = c
	return r
}

// Tenant returns the id of the device's tenant, never an alias; "" for an
// anonymous session.
func (s *Session) Tenant() iot.TenantID {
	if own := s.own.Load(); own != nil {
		return own.tenant()
	}
	return ""
}

// Device returns the device that is connected, which may be a gateway; "" for
// an anonymous session.
func (s *Session) Device() iot.DeviceID {
	if own := s.own.Load(); own != nil {
		return own.device
	}
	return ""
}

// Alias returns the name by which the device called its tenant, which may be the id;
// "" where it named none.
func (s *Session) Alias() iot.TenantID { return s.alias }

// Anonymous reports whether the device did not say who it is.
func (s *Session) Anonymous() bool { return s.own.Load() == nil }

// Expired reports whether the proof that the device came in with has ended by
// itself.
func (s *Session) Expired(now time.Time) bool {
	return s.expires != 0 && now.UnixNano() >= s.expires
}

var (
	errOtherTenant = iot.Errorf(iot.ErrForbidden, "not authorized for this tenant")
	errExpired     = iot.Errorf(iot.ErrUnauthenticated, "the credentials have expired")
	errTenantOnly  = iot.Errorf(iot.ErrInvalid, "device id is missing: a tenant alone is no address")
	errNoAddress   = iot.Errorf(iot.ErrInvalid, "tenant and device id are required")
	errClosed      = iot.Errorf(iot.ErrUnavailable, "the connection is closed")
)

// address applies the rules for what a message may be addressed to (contract:
// adapters 1.3). own is nil where the session's own answer is none for it.
func (s *Session) address(tenant iot.TenantID, device iot.DeviceID, now time.Time) (own *entry, err error) {
	own = s.own.Load()
	switch {
	case own == nil:
		if tenant == "" || device == "" {
			err = errNoAddress
		}
		return nil, err
	case s.Expired(now):
		return nil, errExpired
	case tenant != "" && device == "":
		return nil, errTenantOnly
	case tenant != "" && tenant != own.tenant() && tenant != s.alias:
		return nil, errOtherTenant
	case device == "" || device == own.device:
		return own, nil
	}
	return nil, nil
}

// Admit lets a message of device in; "" stands for the session's own tenant and
// device. Errors are those of [Pipeline.Admit] and of the rules of addresses:
// ErrInvalid for one that is incomplete, ErrForbidden for another tenant, and
// ErrUnauthenticated once the proof has expired. Ask [Session.Terminal] what
// they mean for the connection.
func (s *Session) Admit(ctx context.Context, tenant iot.TenantID, device iot.DeviceID) (Admission, error) {
	now := time.Now()
	own, err := s.address(tenant, device, now)
	if err != nil {
		return Admission{}, err
	}
	a := s.ss.p.o.Admissions
	if own != nil {
		if a.valid(own, now) {
			return Admission{e: own, s: s}, nil
		}
		return s.renewed(ctx, own)
	}
	r := s.request(tenant, device)
	e, _, err := a.admit(ctx, &r, true)
	if err != nil {
		return Admission{}, s.mark(err, device)
	}
	return Admission{e: e, s: s}, nil
}

// TryAdmit is [Session.Admit] from what is known already. It never waits: ok
// is false where Admit has to be called.
func (s *Session) TryAdmit(tenant iot.TenantID, device iot.DeviceID) (who Admission, ok bool, err error) {
	now := time.Now()
	own, err := s.address(tenant, device, now)
	if err != nil {
		return Admission{}, true, err
	}
	a := s.ss.p.o.Admissions
	if own != nil {
		if !a.valid(own, now) {
			return Admission{}, false, nil
		}
		return Admission{e: own, s: s}, true, nil
	}
	r := s.request(tenant, device)
	e, err := a.tryAdmit(&r)
	if e == nil {
		return Admission{}, err != nil, err
	}
	return Admission{e: e, s: s}, true, nil
}

// owns reports whether e is the session's own answer, or was.
func (s *Session) owns(e *entry) bool { return s != nil && e.owner == s }

// readmit is Admit after the router no longer took e's assertion.
func (s *Session) readmit(ctx context.Context, e *entry) (Admission, error) {
	s.ss.p.o.Admissions.drop(e)
	if s.owns(e) {
		return s.renewed(ctx, e)
	}
	return s.Admit(ctx, e.tenant(), e.device)
}

// terminalError is one that ends the connection.
type terminalError struct{ error }

func (e terminalError) Unwrap() error { return e.error }

// mark notes of an admission's error for device whether it ends the connection
// (contract: adapters 8.7); "" is the session's own device.
func (s *Session) mark(err error, device iot.DeviceID) error {
	switch {
	case err == nil || s.Anonymous():
		return err
	case errors.Is(err, iot.ErrUnauthenticated), errors.Is(err, iot.ErrForbidden),
		errors.Is(err, iot.ErrNotFound) && device == "":
		return terminalError{err}
	}
	return err
}

// Terminal reports whether an error of Admit, or of an upload that it let in,
// ends the connection (contract: adapters 8.7). That a device behind a gateway
// is gone does not: the gateway's own end is told by a notice.
func (s *Session) Terminal(_ iot.DeviceID, err error) bool {
	if err == nil || s.Anonymous() {
		return false
	}
	var t terminalError
	return errors.As(err, &t) || errors.Is(err, iot.ErrUnauthenticated)
}

// Close forgets the session. closer is not called after it.
func (s *Session) Close() { s.leave() }

// leave takes s out; false when it is out already.
func (s *Session) leave() bool {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	if s.retry != nil {
		s.retry.Stop()
		s.retry = nil
	}
	own := s.own.Load()
	s.mu.Unlock()
	if was {
		return false
	}
	if own != nil {
		s.ss.p.o.Admissions.retire(own)
	}
	s.ss.remove(s.Tenant())
	return true
}

// end closes the connection of s.
func (s *Session) end(why error) {
	if s.leave() {
		s.closer(why)
	}
}
