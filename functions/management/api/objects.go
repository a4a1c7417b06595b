package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// TenantWithID is a tenant as searches show it.
type TenantWithID struct {
	ID iot.TenantID `json:"id"`
	iot.Tenant
}

// DeviceWithID is a device as searches show it.
type DeviceWithID struct {
	ID iot.DeviceID `json:"id"`
	iot.Device
}

// DeviceRead is a device with its status, as it is read.
type DeviceRead struct {
	iot.Device
	Status iot.DeviceStatus `json:"status"`
}

// EventsRead is a page of events as they lie in the store.
type EventsRead struct {
	Events []EventRead `json:"events"`
	Next   uint64      `json:"next,omitempty"` // where the next page begins
}

// EventRead is an event, or a dead letter. It has a payload, or the message where
// that has another body than data.
type EventRead struct {
	Position    uint64       `json:"position"`
	DeviceID    iot.DeviceID `json:"device-id"`
	At          time.Time    `json:"at"` // when it was stored, or given up
	Expires     time.Time    `json:"expires,omitzero"`
	Attempts    uint16       `json:"attempts"`
	Reason      string       `json:"reason,omitempty"` // of a dead letter
	ContentType string       `json:"content-type,omitempty"`
	Payload     []byte       `json:"payload,omitzero"` // empty is not nil
	Message     []byte       `json:"message,omitempty"`
}

// WriteJSON answers with a JSON body (contract: registry, section 1.5). An
// error says that body cannot be encoded, and nothing was written; nobody is
// left to tell of an error of the connection.
func WriteJSON(w http.ResponseWriter, status int, body any) error {
	b, err := Encode(body)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	w.Write(b)
	return nil
}

// Encode returns v as JSON without escapes for HTML.
func Encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return unescape(b.Bytes()[:b.Len()-1]), nil // without the encoder's line end
}

// unescape takes the escapes for HTML out of JSON, in place: stored members
// come with them, and who read an object would send more than it once was.
func unescape(b []byte) []byte {
	if !bytes.Contains(b, []byte(`\u00`)) {
		return b
	}
	out := b[:0]
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' || i+1 == len(b) {
			out = append(out, b[i])
			continue
		}
		if c, ok := forHTML[string(b[i:min(i+6, len(b))])]; ok {
			out = append(out, c)
			i += 5
			continue
		}
		out = append(out, b[i], b[i+1]) // a pair, so that the second backslash of two begins nothing
		i++
	}
	return out
}

var forHTML = map[string]byte{`\u0026`: '&', `\u003c`: '<', `\u003e`: '>'}
