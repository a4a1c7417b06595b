// Package adaptertest holds what every protocol adapter has to pass, and the
// fakes it is run with: an [Invoker] that admits a small known population, a
// [Downstream] that records what it is sent, and an [Announcer] that knows which
// devices listen for commands.
//
// An adapter's test brings a [Harness] that starts it and speaks its protocol:
//
//	func TestConformance(t *testing.T) {
//		adaptertest.Run(t, adaptertest.Harness{Type: "hono-http", Start: start})
//	}
//
// What not every client can do is asked for by the Harness's members, and by the
// [Client] that is [Connected] or [Commanded].
package adaptertest
