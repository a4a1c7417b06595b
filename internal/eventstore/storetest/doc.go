// Package storetest is the one suite that every backend of internal/eventstore
// passes: what the port promises, and the rules of the log on top of it, with a
// clock of their own. It also has [Memory], the smallest backend there can be,
// for tests of what stands on a log.
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) eventstore.Store { return open(t) })
//	}
package storetest
