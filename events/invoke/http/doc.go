// Package http is the Invoker over HTTP: each call is one POST of a CloudEvent
// in binary mode to the host that serves its type (contract: events, sections 3
// and 5). Tries, their number and the circuit breaker are those of package invoke.
//
//	inv, err := http.New(http.Config{URL: "https://identity.sluice.svc", Source: "//sluice.local/adapters/http-0.7f3a", TLS: tlsConfig})
//	defer inv.Close()
//	admitted, err := events.Call(ctx, inv, events.Admit{...})
package http
