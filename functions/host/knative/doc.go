// Package knative hosts functions behind HTTP, as Knative and every other
// platform that starts containers expects it: the endpoint of package host, the
// platform's probes, and an orderly stop in which the host first stops being
// ready, answers what still comes, and then ends.
//
//	h, err := knative.New(knative.Config{Name: "sluice.local", Functions: list, Caller: knative.CertificateCaller, Log: log})
//	err = knative.Serve(knative.Signals(), listener, h) // listener speaks TLS and asks for client certificates
package knative
