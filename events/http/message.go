package http

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// Mode is one of the forms of CloudEvents over HTTP.
type Mode uint8

// The modes. None is a message that is no CloudEvent.
const (
	None Mode = iota
	Binary
	Structured
	Batched
)

// Media types of the structured and the batched mode.
const (
	StructuredType = "application/cloudevents+json"
	BatchType      = "application/cloudevents-batch+json"
)

// ModeOf looks at the headers of a request or response.
func ModeOf(h http.Header) Mode {
	media, _, _ := strings.Cut(h.Get(contentType), ";")
	switch media = strings.ToLower(strings.TrimSpace(media)); {
	case media == BatchType: // first: the structured type is its prefix
		return Batched
	case media == StructuredType:
		return Structured
	case len(h[prefix+"Specversion"]) > 0:
		return Binary
	}
	return None
}

// Read returns the CloudEvent of a binary or structured message. The event may
// still be one that [event.Event.Validate] refuses. status.ErrNotCloudEvent for
// a message in neither mode, iot.ErrInvalid for a malformed one.
func Read(h http.Header, body []byte) (event.Event, error) {
	switch ModeOf(h) {
	case Binary:
		if v := h.Get(prefix + "Specversion"); v != event.CloudEventsVersionV1 {
			return event.Event{}, iot.Errorf(iot.ErrInvalid, "specversion is %.20q, want 1.0", v)
		}
		e, err := readBinary(h, body)
		if err != nil {
			return event.Event{}, iot.Errorf(iot.ErrInvalid, "CloudEvent headers: %s", err)
		}
		return e, events.CheckAttributes(&e)
	case Structured:
		return events.ParseJSON(body)
	}
	return event.Event{}, iot.Errorf(status.ErrNotCloudEvent, "want a CloudEvent: ce-specversion or %s", StructuredType)
}

// ReadBatch returns the CloudEvents of a batch of at most limit. An element
// that cannot be read is told of in its place in errs.
func ReadBatch(body []byte, limit int) (list []event.Event, errs []error, err error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, nil, iot.Errorf(iot.ErrInvalid, "a batch is a JSON array of CloudEvents")
	}
	if len(raw) > limit {
		return nil, nil, iot.Errorf(iot.ErrTooLarge, "batch holds %d CloudEvents, at most %d are accepted", len(raw), limit)
	}
	list, errs = make([]event.Event, len(raw)), make([]error, len(raw))
	for i, r := range raw {
		list[i], errs[i] = events.ParseJSON(r)
	}
	return list, errs, nil
}

// WriteRequest puts e in binary mode into h and returns the body.
func WriteRequest(h http.Header, e *event.Event) (body []byte, err error) {
	if err := header(h, e); err != nil {
		return nil, err
	}
	return e.Data(), nil
}

// WriteResponse answers with e in binary or structured mode.
func WriteResponse(w http.ResponseWriter, mode Mode, code int, e *event.Event) error {
	if mode == Structured {
		b, err := e.MarshalJSON()
		if err != nil {
			return fmt.Errorf("encode reply: %w", err)
		}
		return write(w, StructuredType, code, b)
	}
	if err := header(w.Header(), e); err != nil {
		return err
	}
	return write(w, "", code, e.Data())
}

// WriteBatch answers 200 with a batch.
func WriteBatch(w http.ResponseWriter, list []event.Event) error {
	b, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("encode batch: %w", err)
	}
	return write(w, BatchType, http.StatusOK, b)
}

func write(w http.ResponseWriter, media string, code int, body []byte) error {
	if media != "" {
		w.Header().Set(contentType, media)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Header().Set("Cache-Control", "no-store") // maxage speaks to the caller, not to proxies
	w.WriteHeader(code)
	_, err := w.Write(body)
	return err
}

// ReadBody reads at most limit bytes of a body whose length the peer states as
// contentLength (-1 = not at all). iot.ErrTooLarge, before reading on, when
// there are more; iot.ErrInvalid for a body that breaks off or is badly chunked;
// iot.ErrTimeout for one that does not come before the connection's deadline.
func ReadBody(r io.Reader, contentLength, limit int64) ([]byte, error) {
	if contentLength > limit {
		return nil, tooLarge(limit)
	}
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("read body: %w (%w)", iot.Errorf(iot.ErrTimeout, "body did not arrive in time"), err)
	case err != nil:
		return nil, fmt.Errorf("read body: %w (%w)", iot.Errorf(iot.ErrInvalid, "body breaks off or is badly encoded"), err)
	}
	if int64(len(b)) > limit {
		return nil, tooLarge(limit)
	}
	return b, nil
}

func tooLarge(limit int64) error {
	return iot.Errorf(iot.ErrTooLarge, "body is longer than %d bytes", limit)
}
