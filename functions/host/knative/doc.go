// Package knative hosts functions behind HTTP, as Knative and every other
// platform that starts containers expects it: POST / takes a CloudEvent in
// binary, structured or batched form and answers with the reply's (contract:
// events, sections 3 and 5). It checks who calls, bounds what it reads and
// drains before it stops; what a call means is the function's.
//
//	h, err := knative.New(knative.Config{Name: "sluice.local", Functions: list, Caller: knative.CertificateCaller, Log: log})
//	err = knative.Serve(ctx, listener, h) // listener speaks TLS and asks for client certificates
package knative
