// Package downstream is the adapters' way to the applications and back: it
// implements adapters.Downstream and adapters.Announcer over AMQP 1.0 connections
// to a set of routers.
//
// It connects to every router, and to every address behind a router's host
// name, and keeps these connections. For an address such as telemetry/T it
// attaches one sending link per router when the first message comes, and
// detaches it after idle minutes; addresses of command responses, of which there
// may be any number, have theirs for seconds, and the longest unused gives way. A
// message goes to a router whose link has credit; without credit anywhere it
// waits for a moment, in order, and then fails with iot.ErrNoCredit. Nothing is
// stored and nothing is sent twice.
//
// Send waits for the outcome; Start calls a function with it, from whatever
// learnt of it. A message under way has neither goroutine nor timer of its own.
//
// Commands come from every router by command_internal/<Options.Address> and are
// handed to Options.Commands; what that makes of one is its outcome (contract:
// messaging 9.5). For this each router is told, on device_directory, which devices
// this process has subscriptions for: everything when it connects, then changes,
// of which one message at a time is under way. What gathers meanwhile goes in the
// next, the last word on each device. A router that does not settle is not waited for by
// those who announce, nor by other routers. It is told everything anew on another
// link after a while, as it is when more gathers than is kept for it.
//
// Locks: that of the response targets first, then that of a target (an address) or
// of the directory, which are never held together, then at most that of one
// connection; Set.waitMu is taken last and nothing is called under it. Connections
// call their handler without a lock. No lock is held while bytes are written, nor
// while the end of a message or of an announcement is told, nor while
// Options.Commands is called.
//
//	set, err := downstream.New(downstream.Options{
//		Routers:  []downstream.Router{{URL: "amqps://router:5673", TLS: clientTLS}},
//		Instance: "http-0",
//		Login:    peer.ExternalLogin(),
//		Commands: commands, Address: "http-0/0123456789ab",
//	})
//	commands.AnnounceTo(set)
//	go set.Run(ctx)
//	err = set.Send(ctx, message)
//	set.Start(message, func(err error) { acknowledge(err) })
package downstream
