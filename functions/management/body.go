package management

import (
	"errors"
	"io"
	"mime"
	"net/http"

	"github.com/sluice-iot/sluice/internal/iot"
)

// bodyRule says whether an operation takes a body.
type bodyRule uint8

const (
	none bodyRule = iota
	optional
	required
)

// readBody reads and checks a body in the order of the contract (registry,
// section 1.4): its size first, then that it is there, then its media type.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request, rule bodyRule) ([]byte, error) {
	if rule == none {
		return nil, nil
	}
	limit := h.options.MaxBody
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close") // rather than read what is not wanted
		return nil, tooLarge(limit)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge(limit)
	case err != nil:
		return nil, iot.Errorf(iot.ErrInvalid, "the body could not be read")
	}
	if len(body) == 0 && rule == optional {
		return nil, nil
	}
	if err := checkMediaType(r.Header.Get("Content-Type")); err != nil {
		return nil, err
	}
	if len(body) == 0 {
		return nil, iot.Errorf(iot.ErrInvalid, "the body is empty, want JSON")
	}
	return body, nil
}

func tooLarge(limit int64) error {
	return iot.Errorf(iot.ErrTooLarge, "the body is larger than the limit of %d bytes", limit)
}

func checkMediaType(header string) error {
	if header == "" {
		return iot.Errorf(iot.ErrInvalid, "header Content-Type is missing, want application/json")
	}
	// A malformed parameter does not matter: the media type is returned with it.
	if t, _, err := mime.ParseMediaType(header); t != "application/json" || err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return iot.Errorf(iot.ErrInvalid, "Content-Type %.60q is not supported, want application/json", header)
	}
	return nil
}
