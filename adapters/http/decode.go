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
	qos, err := qosLevel(t.endpoint, r.Header.Get(headerQoS))
	if err != nil {
		return nil, err
	}
	up := newUpload(r, t.endpoint, qos)
	if t.endpoint == iot.Event {
		up.TTL = ttl(r)
	}
	up.Payload, err = a.body(w, r)
	return up, err
}

// newUpload is what all requests say about their bodies.
func newUpload(r *nethttp.Request, e iot.Endpoint, qos iot.QoS) *adapters.Upload {
	contentType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	up := &adapters.Upload{
		Endpoint:    e,
		QoS:         qos,
		Address:     r.RequestURI,
		ContentType: strings.TrimSpace(contentType),

		ContentEncoding: contentEncoding(r.Header["Content-Encoding"]),
	}
	if up.TraceParent = r.Header.Get("Traceparent"); up.TraceParent != "" {
		up.TraceState = strings.Join(r.Header["Tracestate"], ",")
	}
	return up
}

// The names of headers as net/http spells them.
const (
	headerQoS    = "Qos-Level"
	headerTTL    = "Hono-Ttl"
	headerTTD    = "Hono-Ttd"
	headerStatus = "Hono-Cmd-Status"
)

// parameter reads the header of this name or else the query's.
func parameter(r *nethttp.Request, header, query string) string {
	text := r.Header.Get(header)
	if text == "" && r.URL.RawQuery != "" {
		text = r.URL.Query().Get(query)
	}
	return text
}

// contentEncoding is what was done to the payload, which applications have to undo:
// it is not looked into here.
func contentEncoding(values []string) string {
	if s := strings.Join(values, ","); !strings.EqualFold(s, "identity") {
		return s
	}
	return ""
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
	n, err := strconv.ParseUint(parameter(r, headerTTL, "hono-ttl"), 10, 32)
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
	b, err := read(w, r, limit)
	if err != nil {
		return nil, bodyError(err, limit)
	}
	return b, nil
}

// read returns the body, whose length, where it is known, was checked. It
// grows with what arrives: what was announced only takes no memory.
func read(w nethttp.ResponseWriter, r *nethttp.Request, limit int64) ([]byte, error) {
	if n := r.ContentLength; n > 0 && n <= atOnce {
		b := make([]byte, n)
		_, err := io.ReadFull(r.Body, b)
		return b, err
	}
	b, err := io.ReadAll(nethttp.MaxBytesReader(w, r.Body, limit))
	if len(b) == 0 {
		b = nil
	}
	return b, err
}

// atOnce is the largest body that memory is taken for before it arrives.
const atOnce = 16 << 10

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
