package credentials

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"regexp"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/provisioning"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// MaxAge is how long hashed passwords and certificates may be kept; every
// other type not at all (contract: events, 4.1).
const MaxAge = 180 * time.Second

var typeName = regexp.MustCompile(`^[a-z0-9-]+$`)

// Config is what credentials stand on.
type Config struct {
	Registry provisioning.Registry
	Poster   events.Poster // told of devices that are registered by their certificates; may be nil
	Log      *slog.Logger
	Now      func() time.Time
}

// Function answers credentials.get.
type Function struct {
	Config
	provisioner *provisioning.Provisioner
}

// New returns the function.
func New(c Config) *Function {
	return &Function{Config: c, provisioner: provisioning.New(c.Registry, c.Poster, c.Log)}
}

var (
	errNone      = iot.Errorf(iot.ErrNotFound, "no matching credentials on record")
	errElsewhere = iot.Errorf(iot.ErrNotFound, "the passwords of this tenant's devices are known to its identity provider only")
)

// Handle returns the whole credentials, disabled and expired secrets included.
// Where there are none and the request has a client certificate, the device is
// registered if the certificate's issuer allows it.
//
// iot.ErrInvalid for a request that breaks the form, or an id that no device
// may have; iot.ErrNotFound for an unknown tenant, no match, disabled
// credentials, another client context, and passwords that the tenant's identity
// provider knows; iot.ErrForbidden at a limit of the tenant; iot.ErrExists when
// the new device has the id of another one; iot.ErrUnavailable also when the
// device was registered and nobody took the notice of it.
func (f *Function) Handle(ctx context.Context, req events.CredentialsGet) (*events.CredentialsGot, error) {
	cert, err := check(&req)
	if err != nil {
		return nil, err
	}
	q := registry.Query{Tenant: registry.TenantKey{ID: req.TenantID}, Type: req.Type, AuthID: req.AuthID}
	s, err := f.read(ctx, q, cert)
	if err != nil {
		return nil, err
	}
	if _, named := s.Tenant.Tenant.IdentityProvider(); named && req.Type == iot.HashedPassword {
		return nil, errElsewhere
	}
	created := false
	if s.Credential == nil && cert != nil {
		if s, created, err = f.enrol(ctx, q, s, cert); err != nil {
			return nil, err
		}
	}
	c := s.Credential
	if c == nil || s.Device == nil || !c.IsEnabled() || !registry.MatchesContext(c, req.Context) {
		return nil, errNone
	}
	got := &events.CredentialsGot{DeviceID: s.Owner, Credential: *c, Provisioned: created}
	if c.Type == iot.HashedPassword || c.Type == iot.X509Cert {
		got.CacheFor = MaxAge
	}
	if !f.provisioner.Untold(&s) {
		return got, nil
	}
	if err := f.provisioner.Tell(ctx, q, s, created); err != nil {
		if created || !errors.Is(err, iot.ErrUnavailable) {
			return nil, err
		}
		got.CacheFor = 0 // the next look-up is to tell
	}
	return got, nil
}

func (f *Function) read(ctx context.Context, q registry.Query, cert *x509.Certificate) (registry.Snapshot, error) {
	s, err := provisioning.Read(ctx, f.Registry, q)
	if err == nil && cert != nil {
		err = checkSubject(&s.Tenant.Tenant, cert, q.AuthID, f.Now())
	}
	return s, err
}

// enrol registers the device of a certificate whose issuer is an anchor that
// allows it, and returns the state after it.
func (f *Function) enrol(ctx context.Context, q registry.Query, s registry.Snapshot, cert *x509.Certificate) (_ registry.Snapshot, created bool, err error) {
	anchor, err := registry.VerifyCertificate(&s.Tenant.Tenant, cert, f.Now())
	if err != nil {
		f.Log.InfoContext(ctx, "client certificate refused", "tenant", string(s.Tenant.ID), "subject", q.AuthID, "err", err)
		return s, false, nil
	}
	if !anchor.AutoProvisioningEnabled {
		return s, false, nil
	}
	created, taken := f.provisioner.ByCertificate(ctx, &s.Tenant, anchor, cert, q.AuthID)
	if taken != nil && !errors.Is(taken, iot.ErrExists) {
		return s, false, taken
	}
	if s, err = f.read(ctx, q, cert); err == nil && s.Credential == nil {
		err = taken
	}
	return s, created, err
}

// check checks the form of a request and returns its certificate, if any.
func check(req *events.CredentialsGet) (*x509.Certificate, error) {
	if _, byDevice := req.Context["device-id"]; byDevice {
		return nil, iot.Errorf(iot.ErrInvalid, "credentials cannot be looked up by device-id: want type and auth-id")
	}
	switch {
	case req.TenantID == "":
		return nil, iot.Errorf(iot.ErrInvalid, "tenant is missing")
	case !typeName.MatchString(req.Type):
		return nil, iot.Errorf(iot.ErrInvalid, "type %.60q does not match [a-z0-9-]+", req.Type)
	case req.AuthID == "":
		return nil, iot.Errorf(iot.ErrInvalid, "auth-id is missing")
	}
	for name, v := range req.Context {
		switch v.(type) {
		case map[string]any, []any:
			return nil, iot.Errorf(iot.ErrInvalid, "member %.60q of the client context is no scalar", name)
		}
	}
	if req.ClientCertificate == nil {
		return nil, nil
	}
	cert, err := x509.ParseCertificate(req.ClientCertificate)
	switch {
	case err != nil:
		return nil, iot.Errorf(iot.ErrInvalid, "client-certificate is no X.509 certificate in DER form")
	case req.Type != iot.X509Cert:
		return nil, iot.Errorf(iot.ErrInvalid, "client-certificate does not go with credentials of type %s", req.Type)
	}
	return cert, nil
}

// checkSubject checks that a certificate is one of the auth-id that is asked
// for: its subject, or what the template of an anchor that issued it makes of it.
func checkSubject(t *iot.Tenant, cert *x509.Certificate, authID string, now time.Time) error {
	dn, err := registry.SubjectDN(cert.RawSubject)
	if err != nil {
		return iot.Errorf(iot.ErrInvalid, "subject of client-certificate %v", err)
	}
	if asked, err := registry.CanonicalDN(authID); err == nil && asked == dn {
		return nil
	}
	issuer, err := registry.SubjectDN(cert.RawIssuer)
	for i := range t.TrustedCA {
		a := &t.TrustedCA[i]
		if err != nil || a.SubjectDN != issuer || a.AuthIDTemplate == "" || !registry.AnchorValid(a, now) {
			continue
		}
		if id, err := registry.CertificateAuthID(a, cert); err == nil && id == authID {
			return nil
		}
	}
	return iot.Errorf(iot.ErrInvalid, "subject of client-certificate is not the auth-id")
}
