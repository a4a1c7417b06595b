package registry

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
)

// checkAnchors checks the trust anchors, takes from certificates what is kept
// of them, and gives ids to those without (contract: registry, section 3.6).
func checkAnchors(t *iot.Tenant) error {
	if len(t.TrustedCA) == 0 {
		t.TrustedCA = nil
		return nil
	}
	t.TrustedCA = slices.Clone(t.TrustedCA)
	seen := make(map[string]bool, len(t.TrustedCA))
	for i := range t.TrustedCA {
		a := &t.TrustedCA[i]
		if err := checkAnchor(a); err != nil {
			return invalid("trusted-ca[%d]: %v", i, err)
		}
		if a.ID == "" {
			a.ID = newUUID()
		}
		if seen[a.ID] {
			return invalid("trusted-ca[%d]: id %.60q comes twice, trust anchor ids must be unique within a tenant", i, a.ID)
		}
		seen[a.ID] = true
	}
	return nil
}

func checkAnchor(a *iot.TrustAnchor) error {
	if a.OCSPRevocationEnabled && len(a.OCSPResponderCert) == 0 {
		if len(a.Cert) == 0 {
			return errors.New("ocsp-revocation-enabled needs cert or ocsp-responder-cert")
		}
		a.OCSPResponderCert = a.Cert // so that what is read back is valid again
	}
	if len(a.OCSPResponderCert) > 0 {
		if _, err := x509.ParseCertificate(a.OCSPResponderCert); err != nil {
			return errors.New("ocsp-responder-cert is not an X.509 certificate")
		}
	}
	for _, template := range []string{a.AuthIDTemplate, a.AutoProvisioningDeviceIDTemplate} {
		if err := checkTemplate(template); err != nil {
			return err
		}
	}
	if len(a.Cert) > 0 {
		return anchorFromCert(a)
	}
	return checkExplicitAnchor(a)
}

func anchorFromCert(a *iot.TrustAnchor) error {
	cert, err := x509.ParseCertificate(a.Cert)
	if err != nil {
		return errors.New("cert is not an X.509 certificate")
	}
	if a.SubjectDN, err = SubjectDN(cert.RawSubject); err != nil {
		return fmt.Errorf("cert: subject %w", err)
	}
	if a.SubjectDN == "" {
		return errors.New("cert has no subject")
	}
	if a.Algorithm, err = algorithmOf(cert.PublicKey); err != nil {
		return fmt.Errorf("cert: %w", err)
	}
	a.SubjectDNBytes = cert.RawSubject
	a.PublicKey = cert.RawSubjectPublicKeyInfo
	a.NotBefore.Time, a.NotAfter.Time = cert.NotBefore.UTC(), cert.NotAfter.UTC()
	a.Cert = nil
	return nil
}

func checkExplicitAnchor(a *iot.TrustAnchor) (err error) {
	switch {
	case a.SubjectDN == "":
		return errors.New("member subject-dn or cert is missing")
	case len(a.PublicKey) == 0:
		return errors.New("member public-key or cert is missing")
	case a.NotBefore.IsZero() || a.NotAfter.IsZero():
		return errors.New("members not-before and not-after, or cert, are missing")
	}
	if a.SubjectDN, err = CanonicalDN(a.SubjectDN); err != nil {
		return fmt.Errorf("subject-dn %w", err)
	}
	if a.Algorithm == "" {
		a.Algorithm = "RSA"
	}
	return checkKey(a.PublicKey, a.Algorithm)
}

// checkKey checks that der is a public key of the named algorithm.
func checkKey(der []byte, algorithm string) error {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return errors.New("the public key is not a DER SubjectPublicKeyInfo")
	}
	got, err := algorithmOf(key)
	if err != nil {
		return err
	}
	if got != algorithm && !(got == "Ed25519" && algorithm == "EdDSA") {
		return fmt.Errorf("the public key is of algorithm %s, not %.20q", got, algorithm)
	}
	return nil
}

// algorithmOf names a key's algorithm as Java does.
func algorithmOf(key any) (string, error) {
	switch key.(type) {
	case *rsa.PublicKey:
		return "RSA", nil
	case *ecdsa.PublicKey:
		return "EC", nil
	case ed25519.PublicKey:
		return "Ed25519", nil
	}
	return "", errors.New("public keys of this algorithm are not supported")
}

var placeholder = regexp.MustCompile(`\{\{([^{}]*)\}\}`)

// checkTemplate checks an identity template (section 3.7).
func checkTemplate(template string) error {
	if template == "" {
		return nil
	}
	found := placeholder.FindAllStringSubmatch(template, -1)
	if len(found) == 0 {
		return fmt.Errorf("template %.60q has no placeholder such as {{subject-cn}}", template)
	}
	for _, m := range found {
		if !slices.Contains([]string{"subject-dn", "subject-cn", "subject-ou", "subject-o"}, m[1]) {
			return fmt.Errorf("template %.60q: unknown placeholder %.40q", template, m[0])
		}
	}
	return nil
}
