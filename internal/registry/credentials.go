package registry

import (
	"context"
	"errors"
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
)

// mergeTries bounds how often a merge is done again because the stored set
// changed meanwhile.
const mergeTries = 5

// Credentials returns a device's credentials as they may be shown: without
// password hashes and pre-shared keys ([Stripped]).
func (s *Service) Credentials(ctx context.Context, tenant iot.TenantID, device iot.DeviceID) (CredentialsRecord, error) {
	if err := s.checkIDs(tenant, device); err != nil {
		return CredentialsRecord{}, err
	}
	r, err := s.store.Credentials(ctx, tenant, device)
	for i := range r.Set {
		r.Set[i] = Stripped(r.Set[i])
	}
	return r, err
}

// PutCredentials replaces a device's credentials (contract: registry, section
// 5.6). A secret that has the id of a stored one and no content of its own
// keeps the stored content. Plain passwords are hashed.
func (s *Service) PutCredentials(ctx context.Context, tenant iot.TenantID, device iot.DeviceID, set []iot.Credential, ifVersion string) (version string, err error) {
	if err := s.checkIDs(tenant, device); err != nil {
		return "", err
	}
	t, err := s.store.Tenant(ctx, tenant)
	if err != nil {
		return "", err
	}
	if err := checkCredentialsLimit(&t.Tenant, len(set)); err != nil {
		return "", err
	}
	set = cloneSet(set)
	if err := s.checkSet(set); err != nil {
		return "", err
	}
	for range mergeTries {
		version, err = s.putMerged(ctx, tenant, device, set, ifVersion)
		if ifVersion != "" || !errors.Is(err, iot.ErrVersion) {
			return version, err
		}
	}
	return "", iot.Errorf(iot.ErrUnavailable, "the credentials are being changed by others")
}

func (s *Service) putMerged(ctx context.Context, tenant iot.TenantID, device iot.DeviceID, set []iot.Credential, ifVersion string) (string, error) {
	stored, err := s.store.Credentials(ctx, tenant, device)
	if err != nil {
		return "", err
	}
	r := CredentialsRecord{Tenant: tenant, Device: device, Set: cloneSet(set), Version: newUUID()}
	merges, err := mergeSet(r.Set, stored.Set)
	if err != nil {
		return "", err
	}
	if ifVersion == "" && merges {
		ifVersion = stored.Version // what was merged must still be there
	} else if ifVersion != "" && ifVersion != stored.Version {
		return "", iot.Errorf(iot.ErrVersion, "resource version mismatch")
	}
	if err := s.hashPlain(ctx, set, r.Set); err != nil {
		return "", err
	}
	return r.Version, s.store.PutCredentials(ctx, r, ifVersion, s.now())
}

// hashPlain hashes plain passwords, late, so that a request that fails anyway
// costs nothing. It changes set too, so that another try does not hash again.
func (s *Service) hashPlain(ctx context.Context, set, merged []iot.Credential) error {
	for i := range set {
		for j := range set[i].Secrets {
			secret := &set[i].Secrets[j]
			if secret.PwdPlain != "" {
				hash, err := s.options.Passwords.Hash(ctx, secret.PwdPlain)
				if err != nil {
					return err
				}
				secret.PwdPlain, secret.Salt = "", nil
				secret.HashFunction, secret.PwdHash = Bcrypt, hash
				to := &merged[i].Secrets[j]
				to.PwdPlain, to.Salt = "", nil
				to.HashFunction, to.PwdHash = Bcrypt, hash
			}
		}
	}
	return nil
}

// Stripped returns a copy of a credential without what must not be shown: the
// password hashes of hashed-password and the keys of psk.
func Stripped(c iot.Credential) iot.Credential {
	c.Secrets = slices.Clone(c.Secrets)
	for i := range c.Secrets {
		s := &c.Secrets[i]
		s.PwdPlain = ""
		switch c.Type {
		case iot.HashedPassword:
			s.HashFunction, s.PwdHash, s.Salt = "", "", nil
		case iot.PSK:
			s.Key = nil
		}
	}
	return c
}

func cloneSet(set []iot.Credential) []iot.Credential {
	set = slices.Clone(set)
	for i := range set {
		set[i].Secrets = slices.Clone(set[i].Secrets)
	}
	return set
}

func checkCredentialsLimit(t *iot.Tenant, n int) error {
	l := t.RegistrationLimits
	if n > 0 && l != nil && l.MaxCredentialsPerDevice > -1 && int64(n) > l.MaxCredentialsPerDevice {
		return iot.Errorf(iot.ErrForbidden, "configured credentials limit exceeded [max credentials per device: %d]", l.MaxCredentialsPerDevice)
	}
	return nil
}
