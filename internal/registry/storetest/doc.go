// Package storetest is the conformance suite of registry.Backend and
// registry.Feed: every backend passes it, each in a test of a few lines.
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) registry.Backend { return open(t) })
//	}
package storetest
