package management

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/sluice-iot/sluice/functions/management/api"
	"github.com/sluice-iot/sluice/internal/iot"
)

// readBody reads and checks a body in the order of the contract (registry,
// section 1.4): its size first, then that it is there, then its media type,
// then that it is JSON. It returns nil for none.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request, op *api.Operation) (json.RawMessage, error) {
	if len(op.MediaTypes) == 0 {
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
	if len(body) == 0 && !op.Required {
		return nil, nil
	}
	if err := checkMediaType(r.Header.Get("Content-Type"), op.MediaTypes); err != nil {
		return nil, err
	}
	if len(body) == 0 {
		return nil, iot.Errorf(iot.ErrInvalid, "the body is empty, want JSON")
	}
	if !json.Valid(body) {
		return nil, iot.Errorf(iot.ErrInvalid, "the body is not valid JSON")
	}
	return body, nil
}

// checkStream checks what can be told of a body before it is read.
func (h *Handler) checkStream(w http.ResponseWriter, r *http.Request, op *api.Operation) error {
	if r.ContentLength > h.options.MaxBulk {
		w.Header().Set("Connection", "close")
		return tooLargeBulk(h.options.MaxBulk)
	}
	if err := checkMediaType(r.Header.Get("Content-Type"), op.MediaTypes); err != nil {
		return err
	}
	if r.ContentLength == 0 {
		return iot.Errorf(iot.ErrInvalid, "the body is empty")
	}
	return nil
}

func tooLarge(limit int64) error {
	return iot.Errorf(iot.ErrTooLarge, "the body is larger than the limit of %d bytes", limit)
}

func tooLargeBulk(limit int64) error {
	return iot.Errorf(iot.ErrTooLarge, "the body is larger than the limit of %d bytes; split it and send the parts one after the other", limit)
}

func checkMediaType(header string, want []string) error {
	if header == "" {
		return iot.Errorf(iot.ErrInvalid, "header Content-Type is missing, want %s", strings.Join(want, " or "))
	}
	// A malformed parameter does not matter: the media type is returned with it.
	t, _, err := mime.ParseMediaType(header)
	if !slices.Contains(want, t) || err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return iot.Errorf(iot.ErrInvalid, "Content-Type %.60q is not supported, want %s", header, strings.Join(want, " or "))
	}
	return nil
}
