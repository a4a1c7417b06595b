// Package wire is a client of AMQP 1.0 for tests that must see and choose single
// frames: one session on channel 0, no flow control of its own, nothing sent that
// the caller did not ask for. It is built on the codec of internal/amqp and on
// nothing of internal/amqp/peer, so that the engine is never tested by itself.
//
//	c, err := wire.Dial(wire.Options{Addr: addr, User: "user@TEST", Password: "secret"})
//	err = c.Write(wire.Receiver(0, "r", "telemetry/TEST"), nil)
//	attach, _, err := wire.Await[*amqp.Attach](c)
//
// It reads with one goroutine and writes with any number.
package wire
