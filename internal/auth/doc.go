// Package auth knows the identities of applications, components and operators and
// what each may do (contract: configuration 2 and 3, messaging 1.4 and 13).
//
// A [Directory] is read from identities.yaml, or from a permissions.json of Hono as
// it is, and replaced as a whole when the file changes. It checks secrets at a
// bounded rate and gives out an [Identity], whose May and MayOperate allocate
// nothing. Devices are not known here; their credentials live in the registry.
// It also believes the tokens of the OpenID Connect issuers that identities.yaml
// names; [Directory.Begin] serves the SASL mechanisms.
//
// It issues no tokens and speaks no SASL framing: callers hand over the mechanism's
// name and the client's responses.
//
//	dir, err := auth.Open("identities.yaml", auth.Options{Logger: log})
//	go dir.Watch(ctx, time.Second)
//	x := dir.Begin("SCRAM-SHA-256", certificate)
//	challenge, id, err := x.Step(ctx, response) // again while there is a challenge
//	if err != nil {
//		return err // wraps iot.ErrUnauthenticated or iot.ErrUnavailable
//	}
//	if !id.May("telemetry/DEMO", auth.Read) { ... }
package auth
