package service

import (
	"strings"

	"github.com/sluice-iot/sluice/internal/amqp"
)

// The endpoints, first segments of the addresses.
const (
	Tenant       = "tenant"
	Registration = "registration"
	Credentials  = "credentials"
	Commands     = "cmd_router" // the Command Router API
)

// CondBadRequest is the condition of a request that cannot be answered.
const CondBadRequest amqp.Symbol = "hono:bad-request"

// MaxRequest is the largest request in bytes: one with a client certificate has a
// few thousand.
const MaxRequest = 64 * 1024

// Owns reports whether an address is that of a service, or one for its replies.
func Owns(address string) bool {
	endpoint, _, _ := strings.Cut(address, "/")
	return operations[endpoint] != nil
}

// CheckTarget returns the error that refuses requests to an address that
// [Owns] holds of: they go to tenant, or to registration/T and the like.
func CheckTarget(address string) *amqp.Error {
	endpoint, tenant, scoped := strings.Cut(address, "/")
	if endpoint == Tenant && !scoped || endpoint != Tenant && tenant != "" && !strings.Contains(tenant, "/") {
		return nil
	}
	want := Tenant
	if endpoint != Tenant {
		want = endpoint + "/TENANT"
	}
	return &amqp.Error{Condition: amqp.CondNotFound, Description: "requests go to " + want}
}

// CheckReply returns the error that refuses a receiver for replies on an address
// that [Owns] holds of: it needs a name of the client's choice behind the address of
// the requests (contract: messaging 2.1).
func CheckReply(address string) *amqp.Error {
	endpoint, rest, _ := strings.Cut(address, "/")
	want := Tenant + "/REPLY-ID"
	if endpoint != Tenant {
		want = endpoint + "/TENANT/REPLY-ID"
		var tenant string
		if tenant, rest, _ = strings.Cut(rest, "/"); tenant == "" {
			rest = ""
		}
	}
	if rest != "" {
		return nil
	}
	return &amqp.Error{Condition: amqp.CondInvalidField, Description: "source.address: replies come to " + want}
}

// tenantOf is the tenant of a request's address; the Tenant API has none.
func tenantOf(address string) string {
	_, tenant, _ := strings.Cut(address, "/")
	return tenant
}
