// Package amqp is the AMQP 1.0 wire format (OASIS AMQP 1.0, Parts 1 to 5): the
// type system, frames, performatives, SASL frames, termini, delivery states and
// message sections. It encodes by appending and decodes by slicing: nothing is
// reflected upon, nothing is allocated from a length that the peer claims
// without the bytes being there, and an error names offset and field.
//
// It holds no protocol state (that is internal/amqp/peer) and opens no socket.
//
//	b := amqp.AppendFrame(nil, amqp.FrameAMQP, 0, &amqp.Begin{IncomingWindow: 100, OutgoingWindow: 100})
//	f, n, err := amqp.ParseFrame(b, 512)
//	p, rest, err := amqp.DecodePerformative(f.Body)
//
// Byte slices inside decoded values point into the input. A caller that keeps
// one beyond the life of the input copies it.
package amqp
