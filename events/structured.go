package events

import (
	"encoding/json"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/internal/iot"
)

// ParseJSON reads a CloudEvent in the JSON format. The event may still be one that
// [event.Event.Validate] refuses. iot.ErrInvalid for what is none.
func ParseJSON(b []byte) (event.Event, error) {
	var head struct {
		SpecVersion string          `json:"specversion"`
		ID          string          `json:"id"`
		Data        json.RawMessage `json:"data"`
		Base64      json.RawMessage `json:"data_base64"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return event.Event{}, iot.Errorf(iot.ErrInvalid, "a structured CloudEvent is a JSON object")
	}
	if head.SpecVersion != SpecVersion {
		return event.Event{}, iot.Errorf(iot.ErrInvalid, "specversion is %.20q, want %s", head.SpecVersion, SpecVersion)
	}
	var binary []byte
	if head.Base64 != nil {
		if present(head.Data) && present(head.Base64) {
			return event.Event{}, iot.Errorf(iot.ErrInvalid, "CloudEvent %.80q holds both data and data_base64", head.ID)
		}
		if err := json.Unmarshal(head.Base64, &binary); err != nil {
			return event.Event{}, iot.Errorf(iot.ErrInvalid, "data_base64 of CloudEvent %.80q is no Base64 text", head.ID)
		}
		var err error
		if b, err = withoutBase64(b); err != nil {
			return event.Event{}, iot.Errorf(iot.ErrInvalid, "CloudEvent %.80q does not decode", head.ID)
		}
	}
	e := event.New()
	if err := e.UnmarshalJSON(b); err != nil {
		return event.Event{}, iot.Errorf(iot.ErrInvalid, "CloudEvent %.80q does not decode", head.ID)
	}
	if binary != nil {
		e.DataEncoded, e.DataBase64 = binary, true
	} else if present(head.Data) && e.DataContentType() == "" {
		e.SetDataContentType(jsonType) // CloudEvents JSON format 1.0.2, section 3.1.1
	}
	return e, CheckAttributes(&e)
}

func present(member json.RawMessage) bool { return len(member) > 0 && string(member) != "null" }

// withoutBase64 takes the member data_base64 out: the SDK counts on how it is
// written, and on its being a string.
func withoutBase64(b []byte) ([]byte, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return nil, err
	}
	delete(members, "data_base64")
	return json.Marshal(members)
}

// CheckAttributes returns iot.ErrInvalid where an attribute holds what none may:
// control characters or invalid UTF-8 (contract: events, section 1).
func CheckAttributes(e *event.Event) error {
	for _, a := range [...][2]string{{"id", e.ID()}, {"source", e.Source()}, {"type", e.Type()}, {"subject", e.Subject()}} {
		if !isText(a[1]) {
			return badText(a[0])
		}
	}
	for name, value := range e.Extensions() {
		if text, ok := value.(string); ok && !isText(text) {
			return badText(name)
		}
	}
	return nil
}

func badText(attribute string) error {
	return iot.Errorf(iot.ErrInvalid, "%s holds control characters or invalid UTF-8", attribute)
}
