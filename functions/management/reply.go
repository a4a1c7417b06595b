package management

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

const jsonType = "application/json; charset=utf-8"

func (h *Handler) reply(w http.ResponseWriter, c *call, a answer) {
	if a.version != "" {
		w.Header().Set("ETag", a.version) // verbatim, without quotes
	}
	if a.location != "" {
		w.Header().Set("Location", a.location)
	}
	if a.body == nil {
		w.WriteHeader(a.status)
		return
	}
	h.writeJSON(w, a.status, a.body)
}

// methodError is a method that a resource does not have.
type methodError struct{ allowed string }

func (e *methodError) Error() string { return "the resource allows only " + e.allowed }

// fail answers with an error body, and logs what is not the caller's fault.
func (h *Handler) fail(w http.ResponseWriter, c *call, err error) {
	code, text := status.HTTP(err), status.Text(err)
	var method *methodError
	if errors.As(err, &method) {
		code, text = http.StatusMethodNotAllowed, method.Error()
		w.Header().Set("Allow", method.allowed)
	}
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm=`+strconv.Quote(h.options.Realm))
	}
	if wait := iot.RetryAfter(err); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	}
	if code >= http.StatusInternalServerError {
		h.options.Log.Error("management request failed", "method", c.Method, "tenant", c.tenant, "device", c.device, "err", err)
	}
	h.writeJSON(w, code, failure{text})
}

// failure is the body of every error.
type failure struct {
	Error string `json:"error"`
}

func (h *Handler) writeJSON(w http.ResponseWriter, code int, body any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(body); err != nil {
		h.options.Log.Error("management reply not encoded", "err", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", jsonType)
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()-1))
	w.WriteHeader(code)
	w.Write(b.Bytes()[:b.Len()-1]) // without the encoder's line end; nobody is left to tell of an error
}
