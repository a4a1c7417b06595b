package http

import (
	"bytes"
	"encoding/json"
	"errors"
	nethttp "net/http"
	"strconv"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// retryAfter is what a device is told that came at a bad moment, in seconds
// (contract: adapters 7.5).
const retryAfter = 2

// accepted tells the device that all is well. Without a body the server says so by
// Content-Length: 0; headers that nobody sets cost nothing.
func accepted(w nethttp.ResponseWriter) { w.WriteHeader(nethttp.StatusAccepted) }

// fail answers err: a status, the headers that belong to it and a JSON body.
// It returns the status. Who uploads is told when to try again (contract: adapters 7.5).
func (a *Adapter) fail(w nethttp.ResponseWriter, op status.Op, err error) int {
	if errors.Is(err, errSlowBody) {
		w.Header().Set("Connection", "close")
		writeError(w, nethttp.StatusRequestTimeout, errSlowBody.Error())
		return nethttp.StatusRequestTimeout
	}
	code, text := status.For(op, err).HTTP, status.Text(err)
	switch {
	case code == nethttp.StatusUnauthorized:
		realm := "realm=" + strconv.Quote(a.o.Realm)
		w.Header()["Www-Authenticate"] = []string{"Basic " + realm, "Bearer " + realm}
	case code == nethttp.StatusTooManyRequests:
		setRetryAfter(w, max(iot.RetryAfter(err), time.Second))
	case code == nethttp.StatusInternalServerError:
		text = "Internal server error"
	case code > nethttp.StatusInternalServerError:
		if op == status.Upload {
			setRetryAfter(w, max(iot.RetryAfter(err), retryAfter*time.Second))
		}
		if !known(err) {
			text = adapters.TextUnavailable
		}
	}
	writeError(w, code, text)
	return code
}

// known reports whether err carries a text that is meant for devices.
func known(err error) bool {
	var e *iot.Error
	return errors.As(err, &e) && e.Text != "" && status.Sentinel(err) != status.ErrInternal
}

func setRetryAfter(w nethttp.ResponseWriter, d time.Duration) {
	seconds := (d + time.Second - 1) / time.Second
	w.Header().Set("Retry-After", strconv.Itoa(int(seconds)))
}

func writeError(w nethttp.ResponseWriter, code int, text string) {
	if text == "" {
		text = "N/A"
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(struct {
		Error string `json:"error"`
	}{text}) // a string always encodes
	body := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	_, _ = w.Write(body) // whoever hung up needs no answer
}
