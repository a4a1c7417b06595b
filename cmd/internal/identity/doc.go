// Package identity puts the identity functions together for the programs that
// run them: the store that the configuration names, the rules of the registry
// above it, the signer of assertions with its key-encryption key, and the list
// of functions. It listens nowhere.
//
//	id, err := identity.Open(ctx, cfg, data, log, identity.Deps{})
//	defer id.Close()
//	inv, err := inproc.New(log, id.Functions()...)
package identity
