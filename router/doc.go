// Package router is the AMQP 1.0 router: it accepts applications and
// components, decides by their identities what they may attach to and send,
// verifies and drops registration assertions, and leaves the moving of deliveries to
// router/forward.
//
// Addresses are Hono's: telemetry/T, event/T, command/T, command_response/T/R
// and command_internal/A, and the service addresses of router/service and
// router/cbs where the options name what answers there (contract: messaging).
// With an invoker, which knows the devices, commands are routed: adapters announce
// at device_directory which devices they reach, or others' by cmd_router/T, and what is
// sent to command/T goes to the adapter of its device (router/command).
// A listener may be limited to either kind of service: see [Scope].
//
//	r := router.New(router.Options{Name: "router-0", Directory: dir, Verifier: v, Logger: log})
//	go r.Run(ctx)
//	err := r.Serve(ctx, router.Listener{Listener: ln, Components: false})
package router
