package registry

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// refusedSignatures rest on hash functions for which collisions are made.
var refusedSignatures = []x509.SignatureAlgorithm{
	x509.UnknownSignatureAlgorithm, x509.MD2WithRSA, x509.MD5WithRSA,
	x509.SHA1WithRSA, x509.DSAWithSHA1, x509.DSAWithSHA256, x509.ECDSAWithSHA1,
}

// VerifyCertificate checks a client certificate against the trust anchors of a
// tenant and returns the one that issued it (contract: adapters, section 2.4).
//
// The chain is the certificate alone: its issuer must itself be an anchor that
// is valid now, and every such anchor of that DN is tried. An anchor is no more
// than DN and key, so nothing is asked of it but the signature; a self-signed
// certificate whose own key is the anchor is as good. The certificate must be
// valid now, be signed with a hash function that still holds, hold no critical
// extension that is not understood, and be meant for client authentication as
// far as it says what it is meant for. Whether it was revoked is not looked at.
//
// The error says why, for the log; a device should not learn it.
func VerifyCertificate(t *iot.Tenant, cert *x509.Certificate, now time.Time) (*iot.TrustAnchor, error) {
	if err := checkLeaf(cert, now); err != nil {
		return nil, err
	}
	issuer, err := SubjectDN(cert.RawIssuer)
	if err != nil {
		return nil, fmt.Errorf("issuer %w", err)
	}
	reason := errors.New("no trust anchor that is valid now has the certificate's issuer as its subject")
	for i := range t.TrustedCA {
		a := &t.TrustedCA[i]
		if a.SubjectDN != issuer || !AnchorValid(a, now) {
			continue
		}
		if reason = signedBy(cert, a); reason == nil {
			return a, nil
		}
	}
	return nil, reason
}

// AnchorValid reports whether a trust anchor is in its validity period, both
// ends included.
func AnchorValid(a *iot.TrustAnchor, now time.Time) bool {
	return !now.Before(a.NotBefore.Time) && (a.NotAfter.IsZero() || !now.After(a.NotAfter.Time))
}

func signedBy(cert *x509.Certificate, a *iot.TrustAnchor) error {
	key, err := x509.ParsePKIXPublicKey(a.PublicKey)
	if err != nil {
		return fmt.Errorf("public key of trust anchor %s does not decode", a.ID)
	}
	issuer := &x509.Certificate{PublicKey: key}
	if err := issuer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return fmt.Errorf("signature is not that of trust anchor %s: %w", a.ID, err)
	}
	return nil
}

func checkLeaf(cert *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(cert.NotBefore):
		return errors.New("certificate is not valid yet")
	case now.After(cert.NotAfter):
		return errors.New("certificate has expired")
	case slices.Contains(refusedSignatures, cert.SignatureAlgorithm):
		return fmt.Errorf("certificate is signed with %s, which is not accepted", cert.SignatureAlgorithm)
	case len(cert.UnhandledCriticalExtensions) > 0:
		return fmt.Errorf("certificate has the unknown critical extension %s", cert.UnhandledCriticalExtensions[0])
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("certificate's key usage does not include digitalSignature")
	case !forClients(cert):
		return errors.New("certificate's extended key usage does not include clientAuth")
	}
	return nil
}

// forClients reports whether the certificate may authenticate a client; one
// without extended key usage may be used for anything.
func forClients(cert *x509.Certificate) bool {
	if len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) == 0 {
		return true
	}
	return slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth) || slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// CertificateAuthID returns the auth-id of a client certificate that an anchor
// issued: the anchor's template applied to the subject, or the subject in
// canonical form. iot.ErrInvalid when the subject lacks what the template
// needs, or is empty.
func CertificateAuthID(a *iot.TrustAnchor, cert *x509.Certificate) (string, error) {
	if a.AuthIDTemplate != "" {
		return ApplyTemplate(a.AuthIDTemplate, cert.RawSubject)
	}
	dn, err := SubjectDN(cert.RawSubject)
	if err != nil {
		return "", invalid("subject %v", err)
	}
	if dn == "" {
		return "", invalid("the certificate has no subject")
	}
	return dn, nil
}
