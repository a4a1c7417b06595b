package http

import (
	nethttp "net/http"
	"time"
)

// webSocketPath is where MQTT over WebSocket is spoken.
const webSocketPath = "/mqtt"

// webSocket hands a connection over. The server lifts its deadlines when that
// happens, so that what is spoken on it may take as long as it likes. A browser
// does not ask before it connects, so the origin is all that tells whose page it is.
func (a *Adapter) webSocket(w nethttp.ResponseWriter, r *nethttp.Request) {
	h := w.Header()
	switch {
	case r.Method != nethttp.MethodGet:
		h.Set("Allow", nethttp.MethodGet)
		writeError(w, nethttp.StatusMethodNotAllowed, "method is not allowed: want GET")
	case r.Header.Get("Upgrade") == "":
		if r.ProtoMajor == 1 {
			h.Set("Connection", "Upgrade")
			h.Set("Upgrade", "websocket")
		}
		writeError(w, nethttp.StatusUpgradeRequired, "want an upgrade to WebSocket over HTTP/1.1")
	case a.leaving.Load():
		setRetryAfter(w, retryAfter*time.Second)
		writeError(w, nethttp.StatusServiceUnavailable, "the adapter is stopping: connect anew")
	default:
		a.o.WebSocket.ServeHTTP(w, r)
	}
}
