// Package functions assembles the functions that identity is made of: tenant,
// credentials, registration, assertion and admission. Each is a pure handler
// in a folder of its own that knows neither how it was called nor which store
// is behind it; a host or an in-process invoker runs the list made here.
//
//	list, err := functions.Identity(functions.Deps{Registry: service, Passwords: service.Passwords(), Signer: signer})
//	inv, err := inproc.New(log, list...)
package functions
