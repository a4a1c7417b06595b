package host

import (
	"errors"
	"net/http"
	"slices"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Kind is what part of an installation a caller is.
type Kind string

// The kinds of components (contract: configuration, section 3). Operator is a
// schedule or a person, by whatever means the caller port knows them.
const (
	Adapter  Kind = "adapter"
	Router   Kind = "router"
	Function Kind = "function"
	Operator Kind = "operator"
)

// Kinds are those of components.
var Kinds = []Kind{Adapter, Router, Function}

// Caller is who sent a request.
type Caller struct {
	Kind     Kind
	Instance string
}

// CallerFunc finds out who sent a request. Errors wrap iot.ErrUnauthenticated,
// or iot.ErrUnavailable where whom to believe is not known for now.
type CallerFunc func(*http.Request) (Caller, error)

// CertificateCaller identifies a component by its client certificate, which
// the listener must have verified against the installation's CA: CN is the
// instance, OU the kind.
func CertificateCaller(r *http.Request) (Caller, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return Caller{}, iot.Errorf(iot.ErrUnauthenticated, "a client certificate of the installation's CA is required")
	}
	subject := r.TLS.VerifiedChains[0][0].Subject
	for _, kind := range Kinds {
		if slices.Contains(subject.OrganizationalUnit, string(kind)) && subject.CommonName != "" {
			return Caller{Kind: kind, Instance: subject.CommonName}, nil
		}
	}
	return Caller{}, iot.Errorf(iot.ErrUnauthenticated, "the client certificate names no component: want CN = instance, OU = adapter, router or function")
}

// FirstOf believes the first of several ways to know a caller that does not
// answer iot.ErrUnauthenticated, and otherwise refuses as the last one does.
func FirstOf(ways ...CallerFunc) CallerFunc {
	return func(r *http.Request) (c Caller, err error) {
		err = iot.Errorf(iot.ErrUnauthenticated, "nobody is admitted here")
		for _, way := range ways {
			if c, err = way(r); !errors.Is(err, iot.ErrUnauthenticated) {
				return c, err
			}
		}
		return Caller{}, err
	}
}

// allowed says which kinds may ask what. A type that is not here is reachable
// by nobody from outside: assertion.sign and assertion.rotate are meant.
var allowed = map[string][]Kind{
	events.TypeAdmit:              {Adapter},
	events.TypeTenantGet:          {Adapter, Router},
	events.TypeRegistrationAssert: {Adapter, Router},
	events.TypeRegistryChanges:    {Router},
	events.TypeCredentialsGet:     {Router},
	events.TypeNotificationDerive: {Adapter, Router},
	events.TypeAssertionKeys:      {Adapter, Router, Function, Operator},

	events.TypeEventAppend:  {Router},
	events.TypeEventClaim:   {Router},
	events.TypeEventRead:    {Router},
	events.TypeEventSettle:  {Router},
	events.TypeEventRelease: {Router},
	// A function is the one that serves the management API, which knows its
	// operators and what each may do with which tenant, or a schedule.
	events.TypeEventStats:   {Router, Function, Operator},
	events.TypeEventExpire:  {Function, Operator},
	events.TypeEventBrowse:  {Function, Operator},
	events.TypeEventRequeue: {Function, Operator},
	events.TypeEventPurge:   {Function, Operator},
}

// Permit returns iot.ErrForbidden unless one of the kinds may ask typ.
func Permit(typ string, kinds ...Kind) error {
	for _, k := range kinds {
		if slices.Contains(allowed[typ], k) {
			return nil
		}
	}
	return iot.Errorf(iot.ErrForbidden, "a component of kind %v may not ask %.80q", kinds, typ)
}

func (c Caller) permit(typ string) error { return Permit(typ, c.Kind) }
