package management

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-iot/sluice/functions/management/api"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// retryAfter is told to who could not be served now, where nobody knows better.
const retryAfter = 2 * time.Second

// methodError is a method that a resource does not have.
type methodError struct{ allowed string }

func (e *methodError) Error() string { return "the resource allows only " + e.allowed }

// fail answers with an error body, and logs what is not the caller's fault.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	code, text := status.HTTP(err), status.Text(err)
	var method *methodError
	if errors.As(err, &method) {
		code, text = http.StatusMethodNotAllowed, method.Error()
		w.Header().Set("Allow", method.allowed)
	}
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm=`+strconv.Quote(h.options.Realm))
	}
	wait := iot.RetryAfter(err)
	if code == http.StatusServiceUnavailable && wait <= 0 {
		wait = retryAfter
	}
	if wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	}
	if code >= http.StatusInternalServerError {
		h.options.Log.Error("management request failed", "method", r.Method,
			"tenant", r.PathValue("tenantId"), "device", r.PathValue("deviceId"), "err", err)
	}
	h.writeJSON(w, code, failure{text})
}

// failure is the body of every error.
type failure struct {
	Error string `json:"error"`
}

func (h *Handler) writeJSON(w http.ResponseWriter, code int, body any) {
	if err := api.WriteJSON(w, code, body); err != nil {
		h.options.Log.Error("management reply not encoded", "err", err)
		w.WriteHeader(http.StatusInternalServerError)
	}
}
