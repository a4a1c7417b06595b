package auth

import (
	"slices"
	"time"

	"github.com/sluice-iot/sluice/internal/config"
)

// Kind says what an identity is.
type Kind string

// The kinds. The values of components are those of OU in their certificates.
const (
	Application Kind = "application"
	Adapter     Kind = "adapter"
	Router      Kind = "router"
	Function    Kind = "function"
)

// ComponentKinds lists the kinds that have certificates of the installation.
var ComponentKinds = []Kind{Adapter, Router, Function}

// Component reports whether it is a part of this installation.
func (k Kind) Component() bool { return slices.Contains(ComponentKinds, k) }

// Limits bound what one identity may hold open.
type Limits struct {
	Connections int         `yaml:"connections"`  // at one time
	Sessions    int         `yaml:"sessions"`     // per connection
	Links       int         `yaml:"links"`        // per connection
	MessageSize config.Size `yaml:"message-size"` // 0 = unlimited
}

// DefaultLimits are those of an identity that states none.
func DefaultLimits() Limits {
	return Limits{Connections: 100, Sessions: 1024, Links: 20000}
}

// componentLimits leave room for adapters with tens of thousands of tenants, each
// with links of its own.
func componentLimits() Limits {
	return Limits{Connections: 1000, Sessions: 1024, Links: 200000}
}

// Identity is a proven application or component. It does not change; after a
// reload of the directory it may be stale, see [Directory.Refresh].
type Identity struct {
	Name string
	Kind Kind
	// AssertionsRequired means that its messages must carry a registration assertion.
	AssertionsRequired bool
	// AssertionProperty means that they carry it as Hono's adapters did in 2018:
	// in the application property reg_assertion (contract: messaging 18).
	AssertionProperty bool
	Limits            Limits
	// Expires is when a token ends that stands for the identity; zero = never.
	Expires       time.Time
	authorities   *Authorities
	actsForOthers bool    // honours the authorization identity of SASL
	issuer        *issuer // of a token
}

// May reports whether the identity may do what at the address (messaging 1.4).
func (i *Identity) May(address string, what Activity) bool {
	return i.authorities.May(address, what)
}

// MayOperate reports whether the identity may have the operation done at the
// address, which for the Tenant API is tenant/ and the tenant asked for.
func (i *Identity) MayOperate(address, operation string) bool {
	return i.authorities.MayOperate(address, operation)
}

// MayInvoke reports whether the identity may call functions. A function calls none,
// and applications reach them through the router and the management API.
func (i *Identity) MayInvoke() bool { return i.Kind == Adapter || i.Kind == Router }

// MayPost reports whether the identity may post facts to a router's ingress without
// an authority for each address.
func (i *Identity) MayPost() bool { return i.Kind == Function }

// Authorities lists what was granted; the caller must not change it.
func (i *Identity) Authorities() []Authority { return i.authorities.List() }
