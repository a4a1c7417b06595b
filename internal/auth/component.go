package auth

import (
	"crypto/x509"
	"fmt"
	"strings"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Component returns the identity of a component from its certificate: CN is the
// instance, OU the kind, and the authorities follow from the kind (contract:
// configuration 3). The caller has verified the certificate against the
// installation's CA, and no other, for client authentication.
func Component(cert *x509.Certificate) (*Identity, error) {
	if cert == nil {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "no client certificate")
	}
	name := cert.Subject.CommonName
	if len(cert.Subject.OrganizationalUnit) != 1 {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "certificate of %q names %d kinds (OU); expected one", name, len(cert.Subject.OrganizationalUnit))
	}
	id, err := NewComponent(Kind(cert.Subject.OrganizationalUnit[0]), name)
	if err != nil {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "certificate: %v", err)
	}
	return id, nil
}

// NewComponent returns the identity of a component that is known without a
// certificate because it runs in this very process.
func NewComponent(kind Kind, name string) (*Identity, error) {
	if err := CheckInstance(kind, name); err != nil {
		return nil, err
	}
	authorities, err := Compile(componentAuthorities(kind, name))
	if err != nil {
		return nil, fmt.Errorf("component %q: %w", name, err)
	}
	return &Identity{
		Name: name, Kind: kind, AssertionsRequired: kind == Adapter,
		Limits: componentLimits(), authorities: authorities,
	}, nil
}

// CheckInstance reports whether kind is a component's and instance a name that can
// stand in an address: letters, digits and . _ - only.
func CheckInstance(kind Kind, instance string) error {
	if !kind.Component() {
		return fmt.Errorf("kind %q is none of adapter, router, function", kind)
	}
	ok := instance != "" && len(instance) <= 64 && strings.Trim(instance, ".") != ""
	for _, r := range instance {
		ok = ok && (r == '.' || r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	}
	if !ok {
		return fmt.Errorf("instance %q: expected 1 to 64 letters, digits and . _ -", instance)
	}
	return nil
}

// DeviceDirectory is the address at which adapters announce device subscriptions
// to a router.
const DeviceDirectory = "device_directory"

func componentAuthorities(kind Kind, instance string) []Authority {
	if kind != Adapter {
		return nil
	}
	return []Authority{
		{Address: "telemetry/*", May: Write},
		{Address: "event/*", May: Write},
		{Address: "command_response/*", May: Write},
		{Address: DeviceDirectory, May: Write},
		{Address: "command_internal/" + instance, May: Read},
		{Address: "notification/*", May: Read},
	}
}
