// Package management is the device registry's management API: an http.Handler
// below /v1 for tenants, devices and credentials, over the rules of
// internal/registry (contract: registry). Beyond Hono's Device Registry
// Management HTTP API v1 it has JSON merge patches, bulk requests, export
// and import of a tenant, and operators' view of stored events.
//
// openapi.yaml describes it, and is served. The types and the interface in api
// are made from it ("make generate"), and requests are routed by it.
//
// Every caller but a CORS preflight and a reader of the document has to be an
// [Operator]: by HTTP Basic credentials, a bearer token, or a client certificate
// that the listener has verified. Each has scopes per tenant. Failed attempts
// are limited. The package opens no listener and keeps nothing but those counts.
//
//	api := management.New(service, management.Directory(directory), management.Options{Log: log})
//	http.Serve(listener, api)
package management
