package admission

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// Revocation asks whether a certificate was revoked.
type Revocation interface {
	// Check returns until when the issuer's word that cert is good may be relied
	// on. Revoked, not known and not answered are errors (contract: adapters,
	// section 2.4).
	Check(ctx context.Context, cert *x509.Certificate, issuer *iot.TrustAnchor) (until time.Time, err error)
}

var errNoRevocation = errors.New("the trust anchor asks for OCSP, which is not set up here")

// certificate checks a client certificate and finds its credential. Devices
// that an anchor lets in by their certificate alone are registered.
func (f *Function) certificate(ctx context.Context, v *visit, c *iot.Credential) (again bool, err error) {
	anchor, err := registry.VerifyCertificate(&v.s.Tenant.Tenant, v.cert, f.Now())
	if err != nil {
		return false, f.distrust(ctx, v, err)
	}
	authID, err := registry.CertificateAuthID(anchor, v.cert)
	if err != nil {
		return false, f.distrust(ctx, v, err)
	}
	if authID != v.q.AuthID { // by a template
		v.q.AuthID = authID
		return true, nil
	}
	if anchor.OCSPRevocationEnabled {
		if err := f.revocation(ctx, v, anchor); err != nil {
			return false, f.distrust(ctx, v, err)
		}
	}
	proof := v.req.Credential
	if v.s.Credential == nil && anchor.AutoProvisioningEnabled && proof.SecretID == "" {
		return f.enrol(ctx, v, anchor)
	}
	id, ok := certificateSecret(c, proof.SecretID)
	if !ok {
		return false, errBadCredentials
	}
	v.out.SecretID = id
	v.until(v.cert.NotAfter)
	v.until(anchor.NotAfter.Time)
	return false, nil
}

// revocation asks about the certificate, once in a visit.
func (f *Function) revocation(ctx context.Context, v *visit, anchor *iot.TrustAnchor) (err error) {
	if f.Revocation == nil {
		return errNoRevocation
	}
	if v.good.IsZero() {
		if v.good, err = f.Revocation.Check(ctx, v.cert, anchor); err != nil {
			return err
		}
	}
	v.until(v.good)
	return nil
}

// enrol registers the device of a certificate, once.
func (f *Function) enrol(ctx context.Context, v *visit, anchor *iot.TrustAnchor) (again bool, err error) {
	if v.triedCert != nil { // and nothing that was there already is its own
		return false, v.triedCert
	}
	created, err := f.provisioner.ByCertificate(ctx, &v.s.Tenant, anchor, v.cert, v.q.AuthID)
	v.created = v.created || created
	switch {
	case err == nil || errors.Is(err, iot.ErrNotFound):
		v.triedCert = errBadCredentials // it, or its tenant, is gone again
	case errors.Is(err, iot.ErrExists):
		v.triedCert = err
	default:
		return false, err
	}
	return true, nil
}

// certificateSecret returns the secret of an x509-cert credential, which proves
// nothing by itself: it must not be disabled, and be the one named, if any. Its
// validity period is that of a certificate that may have been renewed since,
// so it does not count (contract: adapters, section 2.2).
func certificateSecret(c *iot.Credential, id string) (string, bool) {
	if c == nil {
		return "", false
	}
	for i := range c.Secrets {
		if s := &c.Secrets[i]; s.IsEnabled() && (id == "" || s.ID == id) {
			return s.ID, true
		}
	}
	return "", false
}

// distrust refuses a certificate. Only the log says why.
func (f *Function) distrust(ctx context.Context, v *visit, why error) error {
	if errors.Is(why, iot.ErrTimeout) || errors.Is(why, context.Canceled) {
		return why
	}
	f.Log.InfoContext(ctx, "client certificate refused", "tenant", string(v.s.Tenant.ID), "subject", v.q.AuthID, "err", why)
	return errBadCredentials
}
