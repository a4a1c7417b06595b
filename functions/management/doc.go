// Package management is Hono's Device Registry Management HTTP API v1
// (contract: registry): an http.Handler below /v1 for tenants, devices and
// credentials, over the rules of internal/registry.
//
// It asks every caller but a CORS preflight for HTTP Basic credentials of an
// [Operator]. It holds no state and opens no listener.
//
//	api := management.New(service, operators, management.Options{Log: log})
//	http.Serve(listener, api)
package management
