package management

import (
	"context"
	"net/http"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Action is what an operator wants to do with a tenant and all that is in it.
type Action uint8

// Read and Write are separate: one does not include the other.
const (
	Read Action = iota + 1
	Write
)

// AllTenants stands for every tenant, where a request names none.
const AllTenants iot.TenantID = "*"

// Operator is a proven user of the API.
type Operator interface {
	// May reports whether the operator may do a with the tenant, or with every
	// tenant for [AllTenants].
	May(tenant iot.TenantID, a Action) bool
}

// Authenticator proves operators.
type Authenticator interface {
	// Operator returns the operator of that name. iot.ErrUnauthenticated for an
	// unknown name and for a wrong password alike; other errors mean that it
	// could not be decided. It compares in constant time and ends with ctx.
	Operator(ctx context.Context, name, password string) (Operator, error)
}

// Directory makes the operators of an identities file an [Authenticator].
func Directory(d *auth.Directory) Authenticator { return directory{d} }

type directory struct{ *auth.Directory }

func (d directory) Operator(ctx context.Context, name, password string) (Operator, error) {
	o, err := d.Directory.Operator(ctx, name, password)
	if err != nil {
		return nil, err
	}
	return operator{o}, nil
}

type operator struct{ *auth.Operator }

func (o operator) May(tenant iot.TenantID, a Action) bool {
	if a == Read {
		return o.Operator.May(string(tenant), auth.Read)
	}
	return a == Write && o.Operator.May(string(tenant), auth.Write)
}

// authenticate proves the request's operator.
func (h *Handler) authenticate(r *http.Request) (Operator, error) {
	name, password, ok := r.BasicAuth()
	if !ok {
		return nil, iot.Errorf(iot.ErrUnauthenticated, "HTTP Basic credentials of an operator are required")
	}
	return h.operators.Operator(r.Context(), name, password)
}
