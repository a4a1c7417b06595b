// Package http is the adapter for devices that speak HTTP/1.1 or HTTP/2
// (contract: adapters, section 7): a device posts telemetry and events for
// itself, a gateway puts them for its devices. With an upload it may wait for a
// command (hono-ttd), which is the answer then, and later send its response to
// /command/res.
//
// A device proves itself by the client certificate of its connection, by a bearer
// token, or by HTTP Basic, in this order; what of it is true the admission function
// finds out. MQTT over WebSocket comes in here, too, and is handed over to whoever
// speaks it.
//
// The package does not choose addresses or keep certificates: the caller brings
// listeners and TLS configurations, such as those of listen.DeviceTLS.
//
//	a := http.New(http.Options{Pipeline: pipeline, Logger: log})
//	go a.Serve(ctx, plain, nil)
//	go a.Serve(ctx, secure, tlsConfig)
//	...
//	err := a.Shutdown(ctx) // ends waiting, finishes the uploads in flight
package http
