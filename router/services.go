package router

import (
	"context"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/router/cbs"
	"github.com/sluice-iot/sluice/router/forward"
	"github.com/sluice-iot/sluice/router/service"
)

// Scope says which addresses a listener serves.
type Scope uint8

// The scopes.
const (
	ScopeAll      Scope = iota // every address
	ScopeServices              // tenant, registration/T, credentials/T and cmd_router/T only
	ScopeTokens                // cbs only; connections are closed after five seconds
)

// tokenWait is how long a connection of [ScopeTokens] may stay.
const tokenWait = 5 * time.Second

// condInactivity ends a connection that has not fetched its token in time.
const condInactivity amqp.Symbol = "hono:inactivity"

var errTokenWait = &amqp.Error{Condition: condInactivity, Description: "the token was not fetched within 5 seconds"}

// scopeOf is that of the listener through which the peer of c came.
func scopeOf(c *peer.Conn) Scope {
	s, _ := c.Data.(Scope)
	return s
}

// capabilities are offered to the peers of a listener.
func (s Scope) capabilities() []amqp.Symbol {
	if s != ScopeAll {
		return nil
	}
	return []amqp.Symbol{"ANONYMOUS-RELAY"}
}

// check refuses an address, empty for a dynamic one, that is not served in the scope.
func (s Scope) check(address string) *amqp.Error {
	switch {
	case s == ScopeServices && !service.Owns(address):
		return &amqp.Error{Condition: amqp.CondNotFound,
			Description: "no address " + clip(address) + " here: expected tenant, registration/TENANT, credentials/TENANT or cmd_router/TENANT"}
	case s == ScopeTokens && address != cbs.Address:
		return &amqp.Error{Condition: amqp.CondNotFound, Description: "no address " + clip(address) + " here: expected " + cbs.Address}
	}
	return nil
}

var errTokensOnly = &amqp.Error{Condition: amqp.CondNotAllowed, Description: cbs.Address + " gives tokens and takes nothing"}

var errPresettled = &amqp.Error{Condition: amqp.CondPreconditionFailed,
	Description: "requests need an outcome: expected a link that is not of sender settle mode settled"}

// callerOf is the name of who is behind a connection, however many he has.
func callerOf(c *peer.Conn) string {
	if id, ok := c.Identity().(*auth.Identity); ok && id != nil {
		return id.Name
	}
	return ""
}

// requester decides on a link for requests to a service.
func (r *Router) requester(c *peer.Conn, address string) (forward.Access, *amqp.Error) {
	if err := r.granted(c, address, auth.Write); err != nil {
		return forward.Access{}, err
	}
	if err := service.CheckTarget(address); err != nil {
		return forward.Access{}, err
	}
	return forward.Access{Distribution: forward.Local, Service: r.services, MaxMessage: service.MaxRequest, Presettled: errPresettled}, nil
}

// replied decides on a link for the replies of a service.
func (r *Router) replied(c *peer.Conn, address string) (forward.Access, *amqp.Error) {
	if err := r.granted(c, address, auth.Read); err != nil {
		return forward.Access{}, err
	}
	return forward.Access{Distribution: forward.Balanced, Exclusive: true}, service.CheckReply(address)
}

func (r *Router) granted(c *peer.Conn, address string, what auth.Activity) *amqp.Error {
	if id := r.identity(c); id == nil || !id.May(address, what) {
		return unauthorized(what.String() + " on " + clip(address) + " is not granted")
	}
	return nil
}

// answerLast lets requests to services end within half of the time that ctx has
// left: their replies are forwarded in the other half.
func (r *Router) answerLast(ctx context.Context) {
	if r.services == nil {
		return
	}
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)/2)
		defer cancel()
	}
	r.services.Shutdown(ctx)
}

// mayOperate asks for the authority EXECUTE of whoever the peer of c is now.
func (r *Router) mayOperate(c *peer.Conn, address, operation string) bool {
	id := r.identity(c)
	return id != nil && id.MayOperate(address, operation)
}

// wantsAssertion reports whether the peer sends assertions as Hono's adapters did
// in 2018, and so must be given them.
func (r *Router) wantsAssertion(c *peer.Conn) bool {
	id := r.identity(c)
	return id != nil && id.AssertionProperty
}
