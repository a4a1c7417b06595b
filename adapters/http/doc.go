// Package http is the adapter for devices that speak HTTP/1.1 or HTTP/2
// (contract: adapters, section 7): a device posts telemetry and events for
// itself, a gateway puts them for its devices.
//
// It does not choose addresses or keep certificates: the caller brings
// listeners and TLS configurations. A device proves itself with HTTP Basic;
// other proofs belong in credentials.go, beside it.
//
//	a := http.New(http.Options{Pipeline: pipeline, Logger: log})
//	go a.Serve(ctx, plain, nil)
//	go a.Serve(ctx, secure, tlsConfig)
//	...
//	err := a.Shutdown(ctx) // finishes the uploads in flight
package http
