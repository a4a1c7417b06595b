package admission

import (
	"crypto/x509"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// visit is one device at the door.
type visit struct {
	req  *events.Admit
	cert *x509.Certificate // of a credential that is one
	jwt  *token            // of a credential that is one
	sni  string            // asked by, where the issuer of cert leads to no tenant

	q   registry.Query
	s   registry.Snapshot
	out *events.Admitted
	end time.Time // when what proved the device ends; zero = it does not

	proven       *proven   // by an identity provider; nil = not asked
	good         time.Time // until when the issuer's word holds that cert is not revoked
	triedCert    error     // what came of registering the device by cert
	created      bool      // by this visit
	triedGateway bool
	told         bool
}

// until notes an end of what proves the device; the earliest counts.
func (v *visit) until(end time.Time) {
	if !end.IsZero() && (v.end.IsZero() || end.Before(v.end)) {
		v.end = end
	}
}

// newVisit checks the form of a request and says what to read.
func newVisit(req *events.Admit) (*visit, error) {
	if req.Adapter == "" {
		return nil, iot.Errorf(iot.ErrInvalid, "adapter is missing")
	}
	v := &visit{req: req}
	v.q.Device = req.DeviceID
	c := req.Credential
	if c == nil {
		if req.DeviceID == "" {
			return nil, iot.Errorf(iot.ErrInvalid, "device-id or credential is required")
		}
		return v, v.tenant()
	}
	if err := checkForm(c); err != nil {
		return nil, err
	}
	v.q.Type, v.q.AuthID = c.Type, c.AuthID
	switch {
	case c.Type == iot.X509Cert && len(c.Certificate) > 0:
		return v, v.certificate()
	case c.Type == iot.RPK && c.JWT != "":
		return v, v.token()
	}
	if err := v.tenant(); err != nil {
		return nil, err
	}
	if c.AuthID == "" {
		return nil, errBadCredentials
	}
	return v, nil
}

// proofs says which member proves a credential of each type.
var proofs = map[string]func(*events.Credential) bool{
	iot.HashedPassword: func(c *events.Credential) bool { return len(c.Certificate) == 0 && c.JWT == "" },
	iot.PSK:            func(c *events.Credential) bool { return c.Password == "" && len(c.Certificate) == 0 && c.JWT == "" },
	iot.X509Cert: func(c *events.Credential) bool {
		return c.Password == "" && c.JWT == "" && (len(c.Certificate) > 0 || c.SecretID != "")
	},
	iot.RPK: func(c *events.Credential) bool {
		return c.Password == "" && len(c.Certificate) == 0 && (c.JWT != "" || c.SecretID != "")
	},
}

func checkForm(c *events.Credential) error {
	fits, known := proofs[c.Type]
	switch {
	case c.Type == "":
		return iot.Errorf(iot.ErrInvalid, "type of the credential is missing")
	case !known:
		return iot.Errorf(iot.ErrInvalid, "credential type not accepted: %.60q, want %s, %s, %s or %s", c.Type, iot.HashedPassword, iot.PSK, iot.X509Cert, iot.RPK)
	case !fits(c):
		return iot.Errorf(iot.ErrInvalid, "credential of type %s does not hold what proves it, or more than that", c.Type)
	case c.Password != "" && c.SecretID != "":
		return iot.Errorf(iot.ErrInvalid, "credential has both password and secret-id")
	}
	return nil
}

// tenant takes the tenant from the request, which names it in one way.
func (v *visit) tenant() (err error) {
	ref := &v.req.TenantRef
	given := 0
	for _, s := range []string{string(ref.ID), ref.SubjectDN, ref.SNI} {
		if s != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return iot.Errorf(iot.ErrInvalid, "tenant: want exactly one of id, subject-dn and sni")
	case ref.SNI != "":
		v.q.Tenant, err = sniKey(ref.SNI)
		return err
	}
	v.q.Tenant = registry.TenantKey{ID: ref.ID, SubjectDN: ref.SubjectDN}
	return nil
}

// certificate takes the tenant from a certificate's issuer, unless the request
// gives its id, and at first the auth-id from its subject.
func (v *visit) certificate() (err error) {
	ref := &v.req.TenantRef
	if v.cert, err = x509.ParseCertificate(v.req.Credential.Certificate); err != nil {
		return iot.Errorf(iot.ErrInvalid, "certificate is no X.509 certificate in DER form")
	}
	if v.q.AuthID, err = registry.SubjectDN(v.cert.RawSubject); err != nil {
		return iot.Errorf(iot.ErrInvalid, "subject of the certificate %v", err)
	}
	issuer, err := registry.SubjectDN(v.cert.RawIssuer)
	if err != nil || issuer == "" || v.q.AuthID == "" {
		return iot.Errorf(iot.ErrInvalid, "the certificate has no subject or no issuer")
	}
	switch {
	case ref.ID != "" && (ref.SubjectDN != "" || ref.SNI != ""):
		return iot.Errorf(iot.ErrInvalid, "tenant: want either id, or subject-dn and sni")
	case ref.ID != "":
		v.q.Tenant = registry.TenantKey{ID: ref.ID}
		return nil
	}
	v.q.Tenant, v.sni = registry.TenantKey{SubjectDN: issuer}, ref.SNI
	if ref.SubjectDN != "" {
		v.q.Tenant.SubjectDN = ref.SubjectDN
	}
	return nil
}

// sniKey names a tenant by the first label of a host name: its id or alias.
func sniKey(sni string) (registry.TenantKey, error) {
	label, _, dotted := strings.Cut(sni, ".")
	if !dotted || label == "" {
		return registry.TenantKey{}, iot.Errorf(iot.ErrInvalid, "sni %.60q has no first label that names a tenant", sni)
	}
	return registry.TenantKey{ID: iot.TenantID(label)}, nil
}
