package router

import (
	"strings"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/forward"
)

// distributions of the endpoints; an address begins with one of them.
var distributions = map[string]forward.Distribution{
	"telemetry":        forward.Anycast,
	"event":            forward.Closed, // until there is a store to accept them
	"command":          forward.Anycast,
	"command_response": forward.Anycast,
	"command_internal": forward.Anycast,
}

// carriesAssertion tells the endpoints to which adapters send for devices.
var carriesAssertion = map[string]bool{"telemetry": true, "event": true, "command_response": true}

// Sender implements [forward.Policy].
func (r *Router) Sender(c *peer.Conn, address string) (forward.Distribution, forward.Gate, *amqp.Error) {
	id, kind, endpoint, err := r.may(c, address, auth.Write)
	if err != nil {
		return 0, nil, err
	}
	if !carriesAssertion[endpoint] || r.verifier == nil {
		return kind, nil, nil
	}
	_, rest, _ := strings.Cut(address, "/")
	tenant, _, _ := strings.Cut(rest, "/")
	return kind, &gate{tenant: iot.TenantID(tenant), required: id.AssertionsRequired, verifier: r.verifier, now: time.Now}, nil
}

// Receiver implements [forward.Policy].
func (r *Router) Receiver(c *peer.Conn, address string) (forward.Distribution, *amqp.Error) {
	_, kind, _, err := r.may(c, address, auth.Read)
	return kind, err
}

// may decides on one attach. Whoever may not is told so before he is told
// whether the address exists.
func (r *Router) may(c *peer.Conn, address string, what auth.Activity) (*auth.Identity, forward.Distribution, string, *amqp.Error) {
	id := r.identity(c)
	if id == nil || !id.May(address, what) {
		return nil, 0, "", &amqp.Error{Condition: amqp.CondUnauthorizedAccess,
			Description: what.String() + " on " + clip(address) + " is not granted"}
	}
	endpoint, rest, _ := strings.Cut(address, "/")
	kind, ok := distributions[endpoint]
	if !ok || rest == "" || strings.HasPrefix(rest, "/") {
		return nil, 0, "", &amqp.Error{Condition: amqp.CondNotFound,
			Description: "no address " + clip(address) + ": expected telemetry/TENANT or another of Hono's"}
	}
	return id, kind, endpoint, nil
}

// clip keeps a peer's words short in an error.
func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "..."
	}
	return s
}
