// Package peer is the AMQP 1.0 connection, session and link engine for both
// roles, server and client (OASIS AMQP 1.0, Part 2 and Part 5.3).
//
// [Engine] holds the protocol state of one connection and nothing else: bytes
// and the time come in, [Event] values and output bytes come out. It has no
// socket, no clock, no goroutine and no lock.
//
// [Conn] puts an engine on a socket, on TLS or on an in-memory pipe. It has one
// reading goroutine, one mutex, and neither a channel nor a permanent writing
// goroutine: a reader that brought a batch of frames appends into the output of
// whatever connections they lead to and flushes each once per batch ([Batch]).
//
// Rules for whoever calls this package:
//
//   - Everything of an Engine, Session or Link is called with the lock of its
//     Conn held, and nobody holds the locks of two connections.
//   - A [Handler] is called without any lock held.
//   - Byte slices of an Event live until the Handler returns.
//   - Whoever made a connection produce output calls [Batch.Touch] under its
//     lock and [Batch.Flush] after releasing it.
package peer
