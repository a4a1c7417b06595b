// Package metrics is the registry of the program's figures and the handler that
// shows them, in the form of Prometheus. It is apart from package observe so that
// programs that publish none do not link the client.
//
//	reg := metrics.New()
//	mux := observe.NewHandler(health, metrics.Handler(reg))
package metrics
