// Package hosttest is the suite that every host of functions passes together with
// the invoker that reaches it: what a function answers comes back the same,
// whichever way it went. A test hosts [Functions] in its own way and gives [Run]
// an invoker. [Runtime] stands for AWS Lambda: it serves the Runtime API to a
// process and the Invoke API to callers.
//
//	func TestHost(t *testing.T) {
//		hosttest.Run(t, hosttest.Limits{}, func(t *testing.T) events.Invoker { ... })
//	}
package hosttest
