// Package metrics shows to Prometheus what became of the facts that a poster
// posted. It is apart from the poster so that programs that publish no figures do
// not link the client.
//
//	registry.MustRegister(metrics.Of(poster))
package metrics
