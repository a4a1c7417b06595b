package credentials

import (
	"context"
	"crypto/x509"
	"regexp"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// MaxAge is how long hashed passwords and certificates may be kept; every
// other type not at all (contract: events, 4.1).
const MaxAge = 180 * time.Second

var typeName = regexp.MustCompile(`^[a-z0-9-]+$`)

// Reader reads the registry.
type Reader interface {
	Read(context.Context, registry.Query) (registry.Snapshot, error)
}

// Function answers credentials.get.
type Function struct{ registry Reader }

// New returns the function over r.
func New(r Reader) *Function { return &Function{r} }

var errNone = iot.Errorf(iot.ErrNotFound, "no matching credentials on record")

// Handle returns the whole credentials, disabled and expired secrets included.
// iot.ErrInvalid for a request that breaks the form; iot.ErrNotFound for an
// unknown tenant, no match, disabled credentials and another client context.
func (f *Function) Handle(ctx context.Context, req events.CredentialsGet) (*events.CredentialsGot, error) {
	if err := check(&req); err != nil {
		return nil, err
	}
	s, err := f.registry.Read(ctx, registry.Query{
		Tenant: registry.TenantKey{ID: req.TenantID}, Type: req.Type, AuthID: req.AuthID,
	})
	if err != nil {
		return nil, err
	}
	c := s.Credential
	if c == nil || s.Device == nil || !c.IsEnabled() || !registry.MatchesContext(c, req.Context) {
		return nil, errNone
	}
	got := &events.CredentialsGot{DeviceID: s.Owner, Credential: *c}
	if c.Type == iot.HashedPassword || c.Type == iot.X509Cert {
		got.CacheFor = MaxAge
	}
	return got, nil
}

func check(req *events.CredentialsGet) error {
	if _, byDevice := req.Context["device-id"]; byDevice {
		return iot.Errorf(iot.ErrInvalid, "credentials cannot be looked up by device-id: want type and auth-id")
	}
	switch {
	case req.TenantID == "":
		return iot.Errorf(iot.ErrInvalid, "tenant is missing")
	case !typeName.MatchString(req.Type):
		return iot.Errorf(iot.ErrInvalid, "type %.60q does not match [a-z0-9-]+", req.Type)
	case req.AuthID == "":
		return iot.Errorf(iot.ErrInvalid, "auth-id is missing")
	}
	for name, v := range req.Context {
		switch v.(type) {
		case map[string]any, []any:
			return iot.Errorf(iot.ErrInvalid, "member %.60q of the client context is no scalar", name)
		}
	}
	if req.ClientCertificate == nil {
		return nil
	}
	cert, err := x509.ParseCertificate(req.ClientCertificate)
	if err != nil {
		return iot.Errorf(iot.ErrInvalid, "client-certificate is no X.509 certificate in DER form")
	}
	dn, err := registry.SubjectDN(cert.RawSubject)
	if err != nil {
		return iot.Errorf(iot.ErrInvalid, "subject of client-certificate %v", err)
	}
	if asked, err := registry.CanonicalDN(req.AuthID); err != nil || asked != dn {
		return iot.Errorf(iot.ErrInvalid, "subject of client-certificate is not the auth-id")
	}
	return nil
}
