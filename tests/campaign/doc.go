// Package campaign holds the tests that take long: a soak of connections that die
// and return, storms of first attaches and of devices that come back, changes of
// many devices at once, stores that are killed under registrations, everything that
// keeps events killed, broken, slowed down or left alone, and everything that commands
// go through killed under them.
// `make campaign` runs them in full, with SLUICE_CAMPAIGN=1, and every fuzz target
// beside them; `make test-all` runs twenty seconds or rounds of each, and `go test` a small one.
//
// What is tested runs as the built program, so that its memory, goroutines and death
// are its own; the AMQP clients are those of tests/interop/wire.
package campaign
