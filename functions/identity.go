package functions

import (
	"errors"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/admission"
	"github.com/sluice-iot/sluice/functions/assertion"
	"github.com/sluice-iot/sluice/functions/credentials"
	"github.com/sluice-iot/sluice/functions/registration"
	"github.com/sluice-iot/sluice/functions/tenant"
	tokens "github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/registry"
)

// Deps is what the identity functions stand on. All but Now are required.
type Deps struct {
	Registry  *registry.Service
	Passwords *registry.Passwords // shared with the management API, so that both together stay in bounds
	Signer    *tokens.Signer
	Now       func() time.Time // default time.Now
}

// Identity returns the function of every type of contract events, section 4.1.
func Identity(d Deps) ([]events.Function, error) {
	if d.Registry == nil || d.Passwords == nil || d.Signer == nil {
		return nil, errors.New("functions: identity needs a registry, passwords and a signer")
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	sign := assertion.New(d.Signer)
	return []events.Function{
		events.NewFunction(tenant.New(d.Registry, d.Now).Handle),
		events.NewFunction(credentials.New(d.Registry).Handle),
		events.NewFunction(registration.New(d.Registry, d.Signer, d.Now).Handle),
		events.NewFunction(admission.New(d.Registry, d.Passwords, d.Signer, d.Now).Handle),
		events.NewFunction(sign.Sign),
		events.NewFunction(sign.Keys),
		events.NewFunction(sign.Rotate),
	}, nil
}
