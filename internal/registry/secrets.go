package registry

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
)

// checkSet checks credentials of a request and brings them into the form that
// is kept, except that plain passwords and secrets with only an id remain.
func (s *Service) checkSet(set []iot.Credential) error {
	type key struct{ credentialType, authID string }
	seen := make(map[key]bool, len(set))
	for i := range set {
		c := &set[i]
		if err := s.checkCredential(c); err != nil {
			return invalid("[%d]: %v", i, err)
		}
		k := key{c.Type, c.AuthID}
		if seen[k] {
			return invalid("[%d]: (type, auth-id) comes twice, it must be unique", i)
		}
		seen[k] = true
	}
	return nil
}

func (s *Service) checkCredential(c *iot.Credential) error {
	if !typeName.MatchString(c.Type) {
		return fmt.Errorf("type %.40q does not match the pattern [a-z0-9-]+", c.Type)
	}
	if _, ok := c.Extra["device-id"]; ok {
		return errors.New("device-id is not a member of credentials")
	}
	if err := freeForm("ext", &c.Ext); err != nil {
		return err
	}
	if c.Type == iot.X509Cert {
		if err := checkX509(c); err != nil {
			return err
		}
	}
	switch {
	case c.AuthID == "":
		return errors.New("member auth-id is missing or empty")
	case len(c.AuthID) > maxID:
		return fmt.Errorf("auth-id has %d bytes, at most %d are allowed", len(c.AuthID), maxID)
	case hasControl(c.AuthID):
		return errors.New("auth-id holds control characters")
	case c.Type == iot.HashedPassword && !passwordAuthID.MatchString(c.AuthID):
		return fmt.Errorf("auth-id %.60q does not match the pattern %s", c.AuthID, passwordAuthID)
	case len(c.Secrets) == 0:
		return errors.New("member secrets is missing or empty")
	}
	return s.checkSecrets(c)
}

func (s *Service) checkSecrets(c *iot.Credential) error {
	ids := make(map[string]bool, len(c.Secrets))
	for i := range c.Secrets {
		secret := &c.Secrets[i]
		if secret.ID != "" && ids[secret.ID] {
			return fmt.Errorf("secrets[%d]: id %.60q comes twice, secret ids must be unique within a credential", i, secret.ID)
		}
		ids[secret.ID] = true
		if err := s.checkSecret(c.Type, secret); err != nil {
			return fmt.Errorf("secrets[%d]: %w", i, err)
		}
	}
	return nil
}

func (s *Service) checkSecret(credentialType string, secret *iot.Secret) (err error) {
	switch credentialType {
	case iot.HashedPassword:
		err = s.checkPassword(secret)
	case iot.RPK:
		err = checkRPK(secret)
	}
	if err != nil {
		return err
	}
	if !secret.NotBefore.IsZero() && !secret.NotAfter.IsZero() && secret.NotBefore.After(secret.NotAfter.Time) {
		return errors.New("not-before is after not-after")
	}
	if secret.ID == "" && !hasContent(credentialType, secret) {
		return errNoContent(credentialType)
	}
	return nil
}

func (s *Service) checkPassword(secret *iot.Secret) error {
	if secret.PwdPlain != "" {
		secret.HashFunction, secret.PwdHash, secret.Salt = "", "", nil
		return nil
	}
	if (secret.HashFunction == "") != (secret.PwdHash == "") {
		return errors.New("hash-function and pwd-hash must be given together")
	}
	if secret.PwdHash == "" {
		return nil
	}
	if allowed := s.options.HashFunctions; len(allowed) > 0 && !slices.Contains(allowed, secret.HashFunction) {
		return fmt.Errorf("hash-function %.40q is not one of %v", secret.HashFunction, allowed)
	}
	if secret.HashFunction == Bcrypt {
		return checkBcrypt(secret.PwdHash, s.options.MaxBcryptCost)
	}
	return nil
}

// checkRPK takes key, algorithm and validity from a certificate, or checks
// the key that is given.
func checkRPK(secret *iot.Secret) error {
	if len(secret.Cert) > 0 {
		cert, err := x509.ParseCertificate(secret.Cert)
		if err != nil {
			return errors.New("cert is not an X.509 certificate")
		}
		if secret.Algorithm, err = algorithmOf(cert.PublicKey); err != nil {
			return fmt.Errorf("cert: %w", err)
		}
		secret.Key, secret.Cert = cert.RawSubjectPublicKeyInfo, nil
		secret.NotBefore.Time, secret.NotAfter.Time = cert.NotBefore.UTC(), cert.NotAfter.UTC()
		return nil
	}
	if (len(secret.Key) == 0) != (secret.Algorithm == "") {
		return errors.New("key and algorithm must be given together")
	}
	if len(secret.Key) == 0 {
		return nil
	}
	return checkKey(secret.Key, secret.Algorithm)
}

// checkX509 gives an x509-cert credential its auth-id in canonical form.
func checkX509(c *iot.Credential) error {
	if len(c.Cert) > 0 {
		cert, err := x509.ParseCertificate(c.Cert)
		if err != nil {
			return errors.New("cert is not an X.509 certificate")
		}
		if c.AuthID, err = SubjectDN(cert.RawSubject); err != nil {
			return fmt.Errorf("cert: subject %w", err)
		}
		c.Cert = nil
		c.Secrets = []iot.Secret{{NotBefore: iot.Timestamp{Time: cert.NotBefore.UTC()}, NotAfter: iot.Timestamp{Time: cert.NotAfter.UTC()}}}
		return nil
	}
	if len(c.Secrets) != 1 {
		return fmt.Errorf("secrets: has %d elements, an x509-cert credential has exactly one", len(c.Secrets))
	}
	c.AuthID = canonicalOrSame(c.AuthID)
	return nil
}

// canonicalOrSame is the form in which auth-ids of x509-cert are stored and
// looked up: a text that is no DN, such as a template yields, stays as it is.
func canonicalOrSame(authID string) string {
	if dn, err := CanonicalDN(authID); err == nil {
		return dn
	}
	return authID
}

// hasContent reports whether a secret proves something by itself.
func hasContent(credentialType string, s *iot.Secret) bool {
	switch credentialType {
	case iot.HashedPassword:
		return s.PwdPlain != "" || s.PwdHash != ""
	case iot.PSK, iot.RPK:
		return len(s.Key) > 0
	}
	return true // x509-cert has none, custom types decide for themselves
}

func errNoContent(credentialType string) error {
	switch credentialType {
	case iot.HashedPassword:
		return errors.New("want pwd-plain, or hash-function and pwd-hash, or the id of a stored secret")
	case iot.RPK:
		return errors.New("want key and algorithm, or cert, or the id of a stored secret")
	}
	return errors.New("want key, or the id of a stored secret")
}

// mergeSet completes the secrets of set that name a stored secret by its id,
// and gives ids to those without (contract: registry, section 5.6). It reports
// whether any named one.
func mergeSet(set, stored []iot.Credential) (merges bool, err error) {
	merges = slices.ContainsFunc(set, func(c iot.Credential) bool {
		return slices.ContainsFunc(c.Secrets, func(s iot.Secret) bool { return s.ID != "" })
	})
	if merges && len(stored) == 0 {
		return true, invalid("secrets refer to stored ones by id, but there are no credentials on record for the device")
	}
	for i := range set {
		c := &set[i]
		e := slices.IndexFunc(stored, func(e iot.Credential) bool { return e.Type == c.Type && e.AuthID == c.AuthID })
		for j := range c.Secrets {
			s := &c.Secrets[j]
			if s.ID == "" {
				s.ID = newUUID()
				continue
			}
			if e >= 0 && !mergeSecret(c.Type, s, stored[e].Secrets) {
				return merges, invalid("[%d]: secrets[%d]: no stored secret has the id %.60q", i, j, s.ID)
			}
			if !hasContent(c.Type, s) {
				return merges, invalid("[%d]: secrets[%d]: %v", i, j, errNoContent(c.Type))
			}
		}
	}
	return merges, nil
}

// mergeSecret copies what s keeps secret from the stored one of the same id,
// unless s has content of its own; false when there is none of that id.
func mergeSecret(credentialType string, s *iot.Secret, stored []iot.Secret) bool {
	k := slices.IndexFunc(stored, func(e iot.Secret) bool { return e.ID == s.ID })
	if k < 0 {
		return false
	}
	old := &stored[k]
	switch {
	case credentialType == iot.X509Cert:
	case credentialType == iot.HashedPassword && !hasContent(credentialType, s):
		s.HashFunction, s.PwdHash, s.Salt = old.HashFunction, old.PwdHash, old.Salt
	case credentialType == iot.PSK && !hasContent(credentialType, s):
		s.Key = old.Key
	case credentialType == iot.RPK && !hasContent(credentialType, s):
		s.Key, s.Algorithm = old.Key, old.Algorithm
	case len(s.Extra) == 0: // custom
		s.Extra = old.Extra
	}
	return true
}
