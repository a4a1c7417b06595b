// Package functions assembles the functions that identity is made of: tenant,
// credentials, registration, assertion, admission and the registry's changes.
// Each is a pure handler in a folder of its own that knows neither how it was
// called nor which store is behind it; a host or an in-process invoker runs the
// list made here. Nothing goes on after a reply: a host may freeze the process.
//
//	list, err := functions.Identity(functions.Deps{Registry: service, Passwords: service.Passwords(), Signer: signer, Feed: store})
//	inv, err := inproc.New(log, list...)
//	store.Observe(notices.New(poster, log).Observe)
package functions
