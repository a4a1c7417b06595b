package functions

import (
	"cmp"
	"errors"
	"log/slog"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/admission"
	"github.com/sluice-iot/sluice/functions/assertion"
	"github.com/sluice-iot/sluice/functions/changes"
	"github.com/sluice-iot/sluice/functions/credentials"
	"github.com/sluice-iot/sluice/functions/notification"
	"github.com/sluice-iot/sluice/functions/registration"
	"github.com/sluice-iot/sluice/functions/tenant"
	tokens "github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/registry"
)

// Deps is what the identity functions stand on. Registry, Passwords and Signer
// are required.
type Deps struct {
	Registry  *registry.Service
	Passwords *registry.Passwords // shared with the management API, so that both together stay in bounds
	Signer    *tokens.Signer
	Feed      registry.Feed // nil = registry.changes is not answered here

	Poster     events.Poster        // told of devices that are registered by themselves; nil = nobody listens
	MACKey     []byte               // at least [registry.MACKeySize] bytes, from outside the store; nil = no MACs of verified passwords
	Revocation admission.Revocation // nil = trust anchors that ask for OCSP let nobody in
	External   admission.External   // nil = tenants with an identity provider let nobody in by password

	Log *slog.Logger     // nil = discard
	Now func() time.Time // default time.Now
}

// Identity returns the function of every type of contract events, section 4.1, of
// notification.derive, and of registry.changes where there is a feed.
func Identity(d Deps) ([]events.Function, error) {
	if d.Registry == nil || d.Passwords == nil || d.Signer == nil {
		return nil, errors.New("functions: identity needs a registry, passwords and a signer")
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	d.Log = cmp.Or(d.Log, slog.New(slog.DiscardHandler))
	var macs *registry.MACs
	if d.MACKey != nil {
		var err error
		if macs, err = registry.NewMACs(d.MACKey); err != nil {
			return nil, err
		}
	}
	sign := assertion.New(d.Signer)
	list := []events.Function{
		events.NewFunction(tenant.New(d.Registry, d.Now).Handle),
		events.NewFunction(credentials.New(credentials.Config{
			Registry: d.Registry, Poster: d.Poster, Log: d.Log, Now: d.Now}).Handle),
		events.NewFunction(registration.New(registration.Config{
			Registry: d.Registry, Signer: d.Signer, Poster: d.Poster, Log: d.Log, Now: d.Now}).Handle),
		events.NewFunction(admission.New(admission.Config{
			Registry: d.Registry, Passwords: d.Passwords, Signer: d.Signer, Poster: d.Poster,
			MACs: macs, Revocation: d.Revocation, External: d.External, Log: d.Log, Now: d.Now}).Handle),
		events.NewFunction(sign.Sign),
		events.NewFunction(sign.Keys),
		events.NewFunction(sign.Rotate),
		events.NewFunction(notification.Derive),
	}
	if d.Feed != nil {
		list = append(list, events.NewFunction(changes.New(d.Feed, d.Now).Handle))
	}
	return list, nil
}
