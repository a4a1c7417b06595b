// Package http is the adapter for devices that speak HTTP/1.1 or HTTP/2
// (contract: adapters, section 7): a device posts telemetry and events for
// itself, a gateway puts them for its devices.
//
// A device proves itself by the client certificate of its connection, by a bearer
// token, or by HTTP Basic, in this order; what of it is true the admission function
// finds out. MQTT over WebSocket comes in here, too, and is handed over to whoever
// speaks it.
//
// The package does not choose addresses or keep certificates: the caller brings
// listeners and TLS configurations, such as those of listen.DeviceTLS. The answers
// of devices to commands would be routes beside telemetry and event in target.go;
// waiting for a command belongs in upload.go, around the sending.
//
//	a := http.New(http.Options{Pipeline: pipeline, Logger: log})
//	go a.Serve(ctx, plain, nil)
//	go a.Serve(ctx, secure, tlsConfig)
//	...
//	err := a.Shutdown(ctx) // finishes the uploads in flight
package http
