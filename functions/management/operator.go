package management

import (
	"context"
	"crypto/x509"

	"github.com/sluice-iot/sluice/functions/management/api"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Action is what an operator wants to do with a tenant and all that is in it.
type Action uint8

// Read, Write and Export are separate: none includes another. Export is to read
// what devices prove themselves with, and goes together with Read.
const (
	Read Action = iota + 1
	Write
	Export
)

// AllTenants stands for every tenant, where a request names none.
const AllTenants iot.TenantID = "*"

// Operator is a proven user of the API.
type Operator interface {
	// May reports whether the operator may do a with the tenant, or with every
	// tenant for [AllTenants].
	May(tenant iot.TenantID, a Action) bool
	// Tenants returns the tenants that the operator may do a with; all means
	// every tenant there is.
	Tenants(a Action) (tenants []iot.TenantID, all bool)
}

// Authenticator proves operators. Its errors are iot.ErrUnauthenticated for a
// name that is unknown and for what proves it wrongly alike; others mean that
// it could not be decided. It compares in constant time and ends with ctx.
type Authenticator interface {
	// Password returns the operator of that name.
	Password(ctx context.Context, name, password string) (Operator, error)
	// Token returns the operator that a bearer token stands for.
	Token(ctx context.Context, token string) (Operator, error)
	// Certificate returns the operator of a client certificate, which was verified.
	Certificate(cert *x509.Certificate) (Operator, error)
}

// Directory makes the operators of an identities file an [Authenticator].
func Directory(d *auth.Directory) Authenticator { return directory{d} }

type directory struct{ d *auth.Directory }

func (d directory) Password(ctx context.Context, name, password string) (Operator, error) {
	return proven(d.d.Operator(ctx, name, password))
}

func (d directory) Token(ctx context.Context, token string) (Operator, error) {
	return proven(d.d.OperatorToken(ctx, token))
}

func (d directory) Certificate(cert *x509.Certificate) (Operator, error) {
	return proven(d.d.OperatorCertificate(cert))
}

func proven(o *auth.Operator, err error) (Operator, error) {
	if err != nil {
		return nil, err
	}
	return operator{o}, nil
}

type operator struct{ o *auth.Operator }

var activities = map[Action]auth.Activity{Read: auth.Read, Write: auth.Write, Export: auth.Export}

func (o operator) May(tenant iot.TenantID, a Action) bool {
	return o.o.May(string(tenant), activities[a])
}

func (o operator) Tenants(a Action) (tenants []iot.TenantID, all bool) {
	names, all := o.o.Tenants(activities[a])
	for _, n := range names {
		tenants = append(tenants, iot.TenantID(n))
	}
	return tenants, all
}

// anyone is who asks an API that is open.
type anyone struct{}

func (anyone) May(iot.TenantID, Action) bool         { return true }
func (anyone) Tenants(Action) ([]iot.TenantID, bool) { return nil, true }

// mayExport is the x-may of operations that tell secrets.
const mayExport = "export"

// needs says what x-may of the document stands for.
var needs = map[string][]Action{"read": {Read}, "write": {Write}, mayExport: {Read, Export}}

// allowed reports whether the operator may have an operation done.
func allowed(who Operator, op *api.Operation, tenant iot.TenantID) bool {
	if op.ID == "searchTenants" { // which finds only what may be read
		tenants, all := who.Tenants(Read)
		return all || len(tenants) > 0
	}
	if tenant == "" {
		tenant = AllTenants
	}
	actions := needs[op.May]
	for _, a := range actions {
		if !who.May(tenant, a) {
			return false
		}
	}
	return len(actions) > 0
}

type operatorKey struct{}

// operatorOf returns who asks.
func operatorOf(ctx context.Context) Operator {
	who, _ := ctx.Value(operatorKey{}).(Operator)
	return who
}
