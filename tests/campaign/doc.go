// Package campaign holds the tests that take long: a soak of connections that die
// and return, and a storm of first attaches. `make campaign` runs them in full,
// with SLUICE_CAMPAIGN=1, and every fuzz target beside them; `make test-all` runs
// twenty seconds of each, and `go test` a small one.
//
// The router runs as the built program, so that its memory and goroutines are its
// own; the clients are those of tests/interop/wire.
package campaign
