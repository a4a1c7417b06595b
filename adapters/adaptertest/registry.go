package adaptertest

import (
	"bytes"
	"slices"
	"strings"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// The population that a new [Invoker] knows, in Tenant and in OtherTenant. Every
// device logs in with its id as auth-id and [Password], Device also with
// [Certificate] and [Token]. Device2 and DisabledDevice may be acted for by
// Gateway, devices that are not known and begin with Provisioned by
// ProvisioningGateway; OtherDevice by none.
const (
	Tenant      iot.TenantID = "tenant-1"
	Alias       iot.TenantID = "alias-1" // of Tenant
	OtherTenant iot.TenantID = "tenant-2"
	OffTenant   iot.TenantID = "tenant-off" // the adapter is disabled for it

	Device              iot.DeviceID = "device-1"
	Device2             iot.DeviceID = "device:2"
	OtherDevice         iot.DeviceID = "device-3"
	DisabledDevice      iot.DeviceID = "device-off"
	Gateway             iot.DeviceID = "gateway-1"
	ProvisioningGateway iot.DeviceID = "gateway-2"
	Provisioned                      = "new-"

	Password = "se:cret@1"
)

// The ids of the secrets that the population has at first.
const (
	PasswordSecret    = "password-1"
	CertificateSecret = "certificate-1"
	TokenSecret       = "token-1"
)

var population = []iot.DeviceID{Device, Device2, OtherDevice, DisabledDevice, Gateway, ProvisioningGateway}

// changes are how the registry differs from how it was at first.
type changes struct {
	gone     map[iot.DeviceID]bool // disabled or deleted
	off      map[iot.TenantID]bool
	removed  map[string]bool   // secrets, by auth-id and id
	secrets  map[string]string // passwords that were added, by auth-id and id
	provided bool              // passwords are checked by an identity provider
}

func secretKey(authID, id string) string { return authID + "/" + id }

// Remove disables or deletes a device in every tenant.
func (i *Invoker) Remove(device iot.DeviceID) {
	i.mu.Lock()
	defer i.mu.Unlock()
	set(&i.gone, device, true)
}

// RemoveTenant disables or deletes a tenant.
func (i *Invoker) RemoveTenant(tenant iot.TenantID) {
	i.mu.Lock()
	defer i.mu.Unlock()
	set(&i.off, tenant, true)
}

// RemoveSecret removes a secret of a device.
func (i *Invoker) RemoveSecret(device iot.DeviceID, id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	set(&i.removed, secretKey(string(device), id), true)
}

// AddSecret gives a device one more password.
func (i *Invoker) AddSecret(device iot.DeviceID, id, password string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	set(&i.secrets, secretKey(string(device), id), password)
}

// IdentityProvider has passwords checked by somebody else from now on: answers
// name no secret, and none can be asked about.
func (i *Invoker) IdentityProvider() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.provided = true
}

func set[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = make(map[K]V)
	}
	(*m)[k] = v
}

var errBadCredentials = iot.Errorf(iot.ErrUnauthenticated, "bad credentials")

// identity is what a credential proves.
type identity struct {
	tenant iot.TenantID
	device iot.DeviceID
	secret string // id; "" = an identity provider checked it
}

// identify verifies a credential as the function does, with knowledge of the
// answer in place of cryptography. i.mu is held.
func (i *Invoker) identify(ref events.TenantRef, c *events.Credential) (id identity, err error) {
	switch {
	case len(c.Certificate) > 0:
		id, err = certificateIdentity(ref, c)
	case c.JWT != "":
		id, err = tokenIdentity(ref, c)
	default:
		id, err = i.passwordIdentity(ref, c)
	}
	switch {
	case err != nil:
		return identity{}, err
	case c.SecretID != "" && c.SecretID != id.secret, i.removed[secretKey(string(id.device), id.secret)],
		!slices.Contains([]iot.TenantID{Tenant, OtherTenant, OffTenant}, id.tenant), !slices.Contains(population, id.device):
		return identity{}, errBadCredentials
	}
	return id, nil
}

func (i *Invoker) passwordIdentity(ref events.TenantRef, c *events.Credential) (identity, error) {
	id := identity{tenant: known(ref.ID), device: iot.DeviceID(c.AuthID)}
	added, there := i.secrets[secretKey(c.AuthID, c.SecretID)]
	switch {
	case c.Type != iot.HashedPassword:
		return identity{}, errBadCredentials
	case c.SecretID != "" && c.Password != "":
		return identity{}, iot.Errorf(iot.ErrInvalid, "credential has both password and secret-id")
	case i.provided && c.Password == Password:
		return id, nil
	case i.provided:
		return identity{}, errBadCredentials
	case c.SecretID == PasswordSecret, c.Password == Password:
		id.secret = PasswordSecret
		return id, nil
	case c.SecretID != "" && there && added != "":
		id.secret = c.SecretID
		return id, nil
	}
	for key, password := range i.secrets {
		if owner, secret, _ := strings.Cut(key, "/"); owner == c.AuthID && password == c.Password {
			id.secret = secret
			return id, nil
		}
	}
	return identity{}, errBadCredentials
}

// certificateIdentity finds the tenant by the id, by the issuer, or where that
// leads nowhere, by the host name.
func certificateIdentity(ref events.TenantRef, c *events.Credential) (identity, error) {
	id := identity{tenant: known(ref.ID), device: Device, secret: CertificateSecret}
	switch {
	case c.Type != iot.X509Cert:
		return identity{}, errBadCredentials
	case bytes.Equal(c.Certificate, Certificate().Certificate[0]):
		if ref.ID == "" {
			id.tenant = Tenant
		}
		return id, nil
	case !bytes.Equal(c.Certificate, CertificateOfUnknownIssuer().Certificate[0]):
		return identity{}, errBadCredentials
	}
	if ref.ID == "" {
		label, _, dotted := strings.Cut(ref.SNI, ".")
		if ref.SNI != "" && !dotted {
			return identity{}, iot.Errorf(iot.ErrInvalid, "sni %q has no first label that names a tenant", ref.SNI)
		}
		id.tenant = known(iot.TenantID(label))
	}
	return id, nil
}

func tokenIdentity(ref events.TenantRef, c *events.Credential) (identity, error) {
	id := identity{tenant: Tenant, device: Device, secret: TokenSecret}
	switch {
	case c.Type == iot.RPK && c.JWT == Token():
		return id, nil
	case c.Type == iot.RPK && c.JWT == TokenWithoutClaims() && known(ref.ID) == Tenant && c.AuthID == string(Device):
		return id, nil
	}
	return identity{}, errBadCredentials
}

// known returns the id of a tenant that an alias may have named.
func known(tenant iot.TenantID) iot.TenantID {
	if tenant == Alias {
		return Tenant
	}
	return tenant
}
