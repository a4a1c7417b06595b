// Package http is the Invoker over HTTP: each call is one POST of a CloudEvent
// in binary mode to the host that serves its type (contract: events, sections 3
// and 5). Failed tries are repeated inside the caller's deadline.
//
//	inv, err := http.New(http.Config{URL: "https://identity.sluice.svc", Source: "//sluice.local/adapters/http-0.7f3a", TLS: tlsConfig})
//	defer inv.Close()
//	admitted, err := events.Call(ctx, inv, events.Admit{...})
package http
