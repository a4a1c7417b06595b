// Package mqtt is the adapter for devices that speak MQTT 3.1.1 or 5, over TCP,
// TLS and WebSocket (contract: adapters 8). It is no broker: what a device
// publishes goes to the applications, and a device gets only what is addressed
// to itself. Sessions end with their connections, retained messages are marked
// and not kept, and the highest quality of service is 1.
//
// Each connection has a goroutine that reads, with a small buffer while the
// client is silent. Messages are sent on in the order in which they come, many
// at a time, and acknowledged in this order once their outcome is known. What is
// sent to a client is bounded; a goroutine that writes exists only while there
// is something to write.
//
// Commands are sent by whoever brings them, and wait for nothing else: what is not
// written, or not acknowledged in time, is given back. An idle subscription costs
// less than a tenth of its connection.
//
//	sessions := adapters.NewSessions(pipeline, adapters.SessionOptions{})
//	a := mqtt.New(mqtt.Options{Pipeline: pipeline, Sessions: sessions})
//	go a.Serve(ctx, listener, tlsConfig)
//	...
//	err := a.Shutdown(ctx)
package mqtt
