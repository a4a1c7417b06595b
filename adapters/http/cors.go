package http

import (
	nethttp "net/http"

	"github.com/sluice-iot/sluice/internal/iot"
)

// allowedHeaders are those a browser may send, by endpoint, in the spelling
// that clients look for (contract: adapters 7.8).
var allowedHeaders = map[iot.Endpoint]string{
	iot.Telemetry: "QoS-Level, hono-ttd, authorization, content-type",
	iot.Event:     "hono-ttd, authorization, content-type",

	iot.CommandResponse: "hono-cmd-status, authorization, content-type",
}

// exposedHeaders are those a browser's script may read.
const exposedHeaders = "hono-command, hono-cmd-req-id"

// cors adds what a cross-origin request needs to its response. It returns
// ErrForbidden for an origin that is not the configured one.
func (a *Adapter) cors(w nethttp.ResponseWriter, r *nethttp.Request) error {
	if a.o.AllowedOrigin != "*" {
		w.Header().Add("Vary", "Origin")
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	h := w.Header()
	if a.o.AllowedOrigin != "*" && origin != a.o.AllowedOrigin {
		return iot.Errorf(iot.ErrForbidden, "origin is not allowed")
	}
	h.Set("Access-Control-Allow-Origin", a.o.AllowedOrigin)
	return nil
}

// expose tells a browser what a script may read of an answer that may hold a command.
func expose(w nethttp.ResponseWriter, r *nethttp.Request) {
	if r.Header.Get("Origin") != "" && !isPreflight(r) {
		w.Header().Set("Access-Control-Expose-Headers", exposedHeaders)
	}
}

// foreignPage reports whether a page makes the request that came from elsewhere
// and that nobody named. Devices send no Origin.
func (a *Adapter) foreignPage(r *nethttp.Request) bool {
	origin := r.Header.Get("Origin")
	return origin != "" && a.o.AllowedOrigin == "*" && origin != "https://"+r.Host
}

func isPreflight(r *nethttp.Request) bool {
	return r.Method == nethttp.MethodOptions && r.Header.Get("Origin") != "" &&
		r.Header.Get("Access-Control-Request-Method") != ""
}

// options answers what may be done with an endpoint; no credentials are asked for.
func options(w nethttp.ResponseWriter, r *nethttp.Request, methods string, e iot.Endpoint) {
	h := w.Header()
	if isPreflight(r) {
		h.Set("Access-Control-Allow-Methods", methods)
		h.Set("Access-Control-Allow-Headers", allowedHeaders[e])
	}
	h.Set("Allow", methods+", OPTIONS")
	w.WriteHeader(nethttp.StatusNoContent)
}
