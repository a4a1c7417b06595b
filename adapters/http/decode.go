package http

import (
	"errors"
	"io"
	nethttp "net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

// errSlowBody: the body did not come within BodyTimeout.
var errSlowBody = errors.New("request body did not arrive in time")

// decode makes the upload of a request, whose body it reads last (contract:
// adapters 7.4).
func (a *Adapter) decode(w nethttp.ResponseWriter, r *nethttp.Request, t target) (*adapters.Upload, error) {
	qos, err := qosLevel(t.endpoint, r.Header.Get("QoS-Level"))
	if err != nil {
		return nil, err
	}
	contentType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	up := &adapters.Upload{
		Endpoint:    t.endpoint,
		QoS:         qos,
		Address:     r.RequestURI,
		ContentType: strings.TrimSpace(contentType),
		TraceParent: r.Header.Get("Traceparent"),
		TraceState:  strings.Join(r.Header.Values("Tracestate"), ","),
	}
	if t.endpoint == iot.Event {
		up.TTL = ttl(r)
	}
	up.Payload, err = a.body(w, r)
	return up, err
}

// qosLevel reads the header of this name; events are always sent at least once.
func qosLevel(e iot.Endpoint, header string) (iot.QoS, error) {
	switch {
	case header == "1", header == "" && e == iot.Event:
		return iot.AtLeastOnce, nil
	case header == "" || header == "0" && e != iot.Event:
		return iot.AtMostOnce, nil
	case e == iot.Event:
		return 0, iot.Errorf(iot.ErrInvalid, "header QoS-Level: events are sent with 1 only")
	}
	return 0, iot.Errorf(iot.ErrInvalid, "header QoS-Level: want 0 or 1")
}

// ttl reads hono-ttl, in seconds, from the header or else the query; nil where
// it is missing or no number from 0 up.
func ttl(r *nethttp.Request) *time.Duration {
	text := r.Header.Get("hono-ttl")
	if text == "" && r.URL.RawQuery != "" {
		text = r.URL.Query().Get("hono-ttl")
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return nil
	}
	d := time.Duration(n) * time.Second
	return &d
}

// body reads the payload: nil when there is none, ErrTooLarge above the limit,
// before anything is read where the length says so.
func (a *Adapter) body(w nethttp.ResponseWriter, r *nethttp.Request) ([]byte, error) {
	limit := int64(a.o.Pipeline.MaxPayload())
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	if r.ContentLength == 0 {
		return nil, nil
	}
	a.limitReading(w) // anew: admission may have taken its time
	b, err := read(nethttp.MaxBytesReader(w, r.Body, limit), r.ContentLength)
	if err != nil {
		return nil, bodyError(err, limit)
	}
	_ = nethttp.NewResponseController(w).SetReadDeadline(time.Time{})
	return b, nil
}

// limitReading gives the client BodyTimeout from now on to send its body. It
// is not supported only where there is no connection.
func (a *Adapter) limitReading(w nethttp.ResponseWriter) {
	_ = nethttp.NewResponseController(w).SetReadDeadline(time.Now().Add(a.o.BodyTimeout))
}

// read returns what src holds; n is its checked length, < 0 = unknown.
func read(src io.Reader, n int64) ([]byte, error) {
	if n > 0 {
		b := make([]byte, n)
		_, err := io.ReadFull(src, b)
		return b, err
	}
	b, err := io.ReadAll(src)
	if len(b) == 0 {
		b = nil
	}
	return b, err
}

func bodyError(err error, limit int64) error {
	var large *nethttp.MaxBytesError
	switch {
	case errors.As(err, &large):
		return tooLarge(limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSlowBody
	}
	return iot.Errorf(iot.ErrInvalid, "request body cannot be read")
}

func tooLarge(limit int64) error {
	return iot.Errorf(iot.ErrTooLarge, "request body is larger than %d bytes", limit)
}
