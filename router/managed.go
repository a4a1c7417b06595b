package router

import (
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/observe"
	"github.com/sluice-iot/sluice/router/forward"
	"github.com/sluice-iot/sluice/router/manage"
)

// maxManagementRequest is the largest request in bytes.
const maxManagementRequest = 32 * 1024

func (r *Router) newNode() *manage.Node {
	return manage.New(manage.Options{
		Name: r.name, Version: observe.Version(), Started: time.Now(),
		Router: r.forward, Listeners: r.listening, May: r.mayManage, Logger: r.log,
	})
}

func isManagement(address string) bool {
	return address == manage.Address || strings.HasPrefix(address, manage.ReplyPrefix)
}

// manager decides on a link to the management node or for its replies.
func (r *Router) manager(c *peer.Conn, address string, what auth.Activity) (forward.Access, *amqp.Error) {
	if id := r.identity(c); id == nil || !grantsManagement(id, what) {
		return forward.Access{}, &amqp.Error{Condition: amqp.CondUnauthorizedAccess,
			Description: what.String() + " on " + clip(address) + " is not granted"}
	}
	request := address == manage.Address
	switch {
	case request && what == auth.Write:
		return forward.Access{Distribution: forward.Local, Service: r.node, MaxMessage: maxManagementRequest}, nil
	case !request && what == auth.Read:
		return forward.Access{Distribution: forward.Balanced}, nil
	case request:
		return forward.Access{}, &amqp.Error{Condition: amqp.CondInvalidField,
			Description: "replies come to a dynamic address, or to " + manage.ReplyPrefix + " and a name of your choice"}
	}
	return forward.Access{}, &amqp.Error{Condition: amqp.CondNotAllowed, Description: "only the router sends to " + clip(address)}
}

// mayManage reports whether the peer of c, as its identity is now, may have an
// operation done.
func (r *Router) mayManage(c *peer.Conn, operation string) bool {
	id := r.identity(c)
	if id == nil || !grantsManagement(id, auth.Write) {
		return false
	}
	if operation != manage.Delete {
		return true
	}
	return slices.ContainsFunc(id.Authorities(), func(a auth.Authority) bool {
		return a.Operation == manage.Address+":"+operation || a.Operation == manage.Address+":*"
	})
}

// grantsManagement asks for an authority that names the management node: one
// for every address is meant for tenants' addresses, and does not include it.
func grantsManagement(id *auth.Identity, what auth.Activity) bool {
	return slices.ContainsFunc(id.Authorities(), func(a auth.Authority) bool {
		return a.Address == manage.Address && a.May&what == what
	})
}

// listener is a [Listener] that is served.
type listener struct {
	manage.Listener
	open, accepted atomic.Int64
}

func (l *listener) accept() (end func()) {
	l.accepted.Add(1)
	l.open.Add(1)
	return func() { l.open.Add(-1) }
}

func (r *Router) listen(l Listener) *listener {
	role := "northbound"
	switch {
	case l.Scope == ScopeServices:
		role = "registry"
	case l.Scope == ScopeTokens:
		role = "auth"
	case l.Components:
		role = "internal"
	}
	x := &listener{Listener: manage.Listener{Address: addressOf(l.Listener), Role: role, TLS: l.TLS != nil, Mechanisms: l.Mechanisms}}
	r.mu.Lock()
	r.listeners = append(r.listeners, x)
	r.mu.Unlock()
	return x
}

func addressOf(l net.Listener) string {
	if a := l.Addr(); a != nil {
		return a.String()
	}
	return ""
}

func (r *Router) unlisten(x *listener) {
	r.mu.Lock()
	r.acceptedPast[x.Role] += x.accepted.Load()
	r.listeners = slices.DeleteFunc(r.listeners, func(l *listener) bool { return l == x })
	r.mu.Unlock()
}

// accepted counts connections by the role of their listener.
func (r *Router) accepted() map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	sum := maps.Clone(r.acceptedPast)
	for _, l := range r.listeners {
		sum[l.Role] += l.accepted.Load()
	}
	return sum
}

func (r *Router) listening() []manage.Listener {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]manage.Listener, 0, len(r.listeners))
	for _, l := range r.listeners {
		m := l.Listener
		m.Open, m.Accepted = l.open.Load(), l.accepted.Load()
		out = append(out, m)
	}
	return out
}
