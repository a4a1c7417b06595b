// Package downstream is the adapters' way to the applications: it implements
// adapters.Downstream over AMQP 1.0 connections to a set of routers.
//
// It connects to every router, and to every address behind a router's host
// name, and keeps these connections. For an address such as telemetry/T it
// attaches one sending link per router when the first message comes, and
// detaches it after idle minutes. A message goes to a router whose link has
// credit; without credit anywhere it waits for a moment, in order, and then
// fails with iot.ErrNoCredit. Nothing is stored and nothing is sent twice.
//
// Send waits for the outcome; Start calls a function with it, from whatever
// learnt of it. A message under way has neither goroutine nor timer of its own.
//
// Locks: that of a target (an address) first, then at most that of one
// connection; Set.waitMu is taken last and nothing is called under it.
// Connections call their handler without a lock. No lock is held while bytes
// are written, nor while the end of a message is told.
//
//	set, err := downstream.New(downstream.Options{
//		Routers:  []downstream.Router{{URL: "amqps://router:5673", TLS: clientTLS}},
//		Instance: "http-0",
//		Login:    peer.ExternalLogin(),
//	})
//	go set.Run(ctx)
//	err = set.Send(ctx, message)
//	set.Start(message, func(err error) { acknowledge(err) })
package downstream
