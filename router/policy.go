package router

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/cbs"
	"github.com/sluice-iot/sluice/router/forward"
	"github.com/sluice-iot/sluice/router/service"
)

// carriesAssertion tells the endpoints to which adapters send for devices.
var carriesAssertion = map[string]bool{"telemetry": true, "event": true, "command_response": true}

// Sender implements [forward.Policy].
func (r *Router) Sender(c *peer.Conn, address string) (forward.Access, *amqp.Error) {
	if err := scopeOf(c).check(address); err != nil {
		return forward.Access{}, err
	}
	switch {
	case isManagement(address):
		return r.manager(c, address, auth.Write)
	case r.tokens != nil && address == cbs.Address:
		return forward.Access{}, errTokensOnly
	case r.services != nil && service.Owns(address):
		return r.requester(c, address)
	case r.commands != nil && address == auth.DeviceDirectory:
		return r.announcer(c, address)
	}
	id, kind, endpoint, err := r.may(c, address, auth.Write)
	if err != nil {
		return forward.Access{}, err
	}
	if r.routes(endpoint, kind) {
		return r.commander(id, address)
	}
	a := forward.Access{Distribution: kind, MaxMessage: uint64(id.Limits.MessageSize)}
	if kind == forward.Stored {
		a.Shelf, a.Presettled, a.Second = r.events, errEventPresettled, errEventSecond
		if a.MaxMessage == 0 || a.MaxMessage > eventstore.MaxMessageBytes {
			a.MaxMessage = eventstore.MaxMessageBytes
		}
	}
	if carriesAssertion[endpoint] && r.verifier != nil {
		_, rest, _ := strings.Cut(address, "/")
		tenant, _, _ := strings.Cut(rest, "/")
		a.Gate = &gate{tenant: iot.TenantID(tenant), required: id.AssertionsRequired, property: id.AssertionProperty,
			verifier: r.verifier, now: time.Now}
		if id.AssertionProperty {
			a.Offered = []amqp.Symbol{capabilityAssertion}
		}
	}
	return a, nil
}

// Receiver implements [forward.Policy]. A dynamic address is everybody's who
// is somebody: only he knows it, and those whom he tells.
func (r *Router) Receiver(c *peer.Conn, address string) (forward.Access, *amqp.Error) {
	if err := scopeOf(c).check(address); err != nil {
		return forward.Access{}, err
	}
	if address == "" {
		if r.identity(c) == nil {
			return forward.Access{}, errNobody
		}
		return forward.Access{}, nil
	}
	switch {
	case isManagement(address):
		return r.manager(c, address, auth.Read)
	case r.tokens != nil && address == cbs.Address:
		return r.tokens.Access(), nil
	case r.services != nil && service.Owns(address):
		return r.replied(c, address)
	}
	_, kind, endpoint, err := r.may(c, address, auth.Read)
	if err == nil && r.routes(endpoint, kind) {
		return forward.Access{}, errCommandsRouted
	}
	a := forward.Access{Distribution: kind}
	if kind == forward.Stored {
		a.Shelf, a.Presettled, a.Second = r.events, errEventPresettled, errEventSecond
	}
	return a, err
}

// errEventPresettled refuses links on which events would be settled before they are sent (contract: messaging, Event API).
var errEventPresettled = &amqp.Error{Condition: amqp.CondPreconditionFailed, Description: "events are sent unsettled: they are kept until they are settled"}

// errEventSecond refuses links on which events would be settled in two steps (the same).
var errEventSecond = &amqp.Error{Condition: amqp.CondPreconditionFailed,
	Description: "events are settled by their receiver first: rcv-settle-mode second is not possible, only first"}

// Anonymous implements [forward.Policy]: each message's address is decided on
// its own.
func (r *Router) Anonymous(c *peer.Conn) *amqp.Error {
	if scopeOf(c) != ScopeAll {
		return &amqp.Error{Condition: amqp.CondNotAllowed, Description: "a link needs a target here"}
	}
	if r.identity(c) == nil {
		return errNobody
	}
	return nil
}

var errNobody = &amqp.Error{Condition: amqp.CondUnauthorizedAccess, Description: "the identity is gone"}

// may decides on one attach. Whoever may not is told so before he is told
// whether the address exists.
func (r *Router) may(c *peer.Conn, address string, what auth.Activity) (*auth.Identity, forward.Distribution, string, *amqp.Error) {
	id := r.identity(c)
	if id == nil || !id.May(address, what) {
		return nil, 0, "", &amqp.Error{Condition: amqp.CondUnauthorizedAccess,
			Description: what.String() + " on " + clip(address) + " is not granted"}
	}
	p := r.patterns.find(address)
	if p == nil {
		return nil, 0, "", &amqp.Error{Condition: amqp.CondNotFound,
			Description: "no address " + clip(address) + ": expected telemetry/TENANT or another of Hono's"}
	}
	endpoint, tenant, _ := strings.Cut(address, "/")
	if p.kind == forward.Stored && (tenant == "" || strings.Contains(tenant, "/") || strings.ContainsFunc(tenant, unicode.IsControl) || !utf8.ValidString(tenant)) {
		return nil, 0, "", &amqp.Error{Condition: amqp.CondNotFound,
			Description: "no address " + clip(address) + ": events are kept by tenant, at " + endpoint + "/TENANT"}
	}
	return id, p.kind, endpoint, nil
}

// clip keeps a peer's words short in an error.
func clip(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "..."
	}
	return s
}
