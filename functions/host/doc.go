// Package host is what every platform's host of functions shares: who may ask
// what, and the HTTP endpoint that takes CloudEvents in binary, structured or
// batched form and answers with the reply's (contract: events, sections 3 and
// 5). The folders below it bring the platforms: knative listens, probes and
// drains, lambda takes apart what Lambda delivers.
//
//	e, err := host.New(host.Config{Name: "sluice.local", Functions: list, Caller: host.CertificateCaller, Log: log})
//	http.Serve(listener, e) // listener speaks TLS and asks for client certificates
package host
