package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// Extension attributes of calls and replies (contract: events, section 1).
const (
	AttrTenantID    = "tenantid"
	AttrAdapter     = "adapter"
	AttrCausationID = "causationid"
	AttrStatusCode  = "statuscode"
	AttrMaxAge      = "maxage"
	AttrTimeoutMS   = "timeoutms"
)

const (
	// SpecVersion is the only version of CloudEvents that is spoken.
	SpecVersion = "1.0"

	jsonType     = "application/json"
	schemaPrefix = "https://sluice.io/schemas/"
)

// Envelope is what a caller adds to its request.
type Envelope struct {
	Source  string        // //I/<component>/<instance>
	ID      string        // made once per call by NewID and kept over its retries
	Time    time.Time     // when the call was made
	Timeout time.Duration // what is left of the caller's budget, > 0
}

// EncodeRequest makes the CloudEvent of a call. iot.ErrInvalid where an
// identifier cannot be an attribute or the time is used up.
func EncodeRequest(req Request, env Envelope) (event.Event, error) {
	if env.Timeout < time.Millisecond {
		return event.Event{}, iot.Errorf(iot.ErrTimeout, "%s: no time left for the call", req.EventType())
	}
	e := newEvent(req.EventType(), env.Source, env.ID, env.Time)
	if t, ok := req.(timed); ok && !t.eventTime().IsZero() {
		e.SetTime(wireTime(t.eventTime()))
	}
	e.SetExtension(AttrTimeoutMS, int32(min(env.Timeout.Milliseconds(), 1<<31-1)))
	if _, ref := req.(referring); !ref && req.Tenant() != "" {
		if err := setText(&e, AttrTenantID, string(req.Tenant())); err != nil {
			return event.Event{}, err
		}
	}
	if s, ok := req.(subjected); ok && s.subject() != "" {
		if err := setText(&e, "subject", string(s.subject())); err != nil {
			return event.Event{}, err
		}
	}
	if a, ok := req.(adapted); ok && a.adapterType() != "" {
		if err := setText(&e, AttrAdapter, a.adapterType()); err != nil {
			return event.Event{}, err
		}
	}
	if _, none := req.(dataless); none {
		return e, nil
	}
	if r, ok := req.(recordsRequest); ok {
		return e, r.encodeTo(&e)
	}
	return e, setJSON(&e, req)
}

// DecodeRequest is the inverse of [EncodeRequest]. status.ErrUnknownType for a
// type that is no call, iot.ErrInvalid for data that is not the type's.
func DecodeRequest(e *event.Event) (Request, error) {
	k, ok := Lookup(e.Type())
	if !ok {
		return nil, iot.Errorf(status.ErrUnknownType, "no call has the type %.80q", e.Type())
	}
	if len(e.Data()) > 0 && !isMedia(e.DataContentType(), k.media) {
		return nil, iot.Errorf(iot.ErrInvalid, "datacontenttype is %.80q, want %s", e.DataContentType(), k.media)
	}
	req, err := k.decodeRequest(e)
	if err != nil {
		if errors.Is(err, iot.ErrTooLarge) {
			return nil, iot.Errorf(iot.ErrTooLarge, "%s: %s", e.Type(), err)
		}
		return nil, iot.Errorf(iot.ErrInvalid, "%s: %s", e.Type(), plainJSONError(err))
	}
	if _, none := req.(dataless); !none && len(e.Data()) == 0 {
		return nil, iot.Errorf(iot.ErrInvalid, "%s: data is missing", e.Type())
	}
	if t, ok := req.(tenanted); ok {
		tenant, err := extension(e, AttrTenantID)
		if err != nil || tenant == "" {
			return nil, iot.Errorf(iot.ErrInvalid, "%s: attribute tenantid is missing", e.Type())
		}
		req = t.withTenant(iot.TenantID(tenant))
	}
	if _, ok := req.(confined); ok {
		tenant, err := extension(e, AttrTenantID)
		if err != nil || tenant == "" || tenant != string(req.Tenant()) {
			return nil, iot.Errorf(iot.ErrInvalid, "%s: attribute tenantid is %.80q, but the data say %.80q", e.Type(), tenant, string(req.Tenant()))
		}
	}
	if t, ok := req.(timed); ok {
		req = t.withTime(e.Time())
	}
	return req, nil
}

// EncodeReply makes the reply to the call in request. source is the
// answering function's.
func EncodeReply(request *event.Event, source string, rep Reply, now time.Time) (event.Event, error) {
	k, ok := Lookup(request.Type())
	if !ok {
		return event.Event{}, iot.Errorf(status.ErrUnknownType, "no call has the type %.80q", request.Type())
	}
	e := answer(request, k.ReplyType(), source, now)
	code := k.Status
	if c, ok := rep.(coded); ok {
		code = c.statusCode()
	}
	e.SetExtension(AttrStatusCode, int32(code))
	if age := rep.MaxAge(); age >= time.Second {
		e.SetExtension(AttrMaxAge, int32(min(age/time.Second, 1<<31-1)))
	}
	if t, ok := rep.(ofTenant); ok && t.tenantID() != "" {
		if err := setText(&e, AttrTenantID, string(t.tenantID())); err != nil {
			return event.Event{}, err
		}
	}
	if a, ok := rep.(attributed); ok {
		a.setAttributes(&e)
	}
	if r, ok := rep.(recordsReply); ok {
		return e, r.encodeTo(&e)
	}
	var data any = rep
	if s, ok := rep.(sourced); ok {
		var err error
		if data, err = s.dataFrom(source); err != nil {
			return event.Event{}, err
		}
	}
	return e, setJSON(&e, data)
}

// DecodeReply returns the reply to req that e carries, or the error that it
// stands for as an *iot.Error.
func DecodeReply(req Request, e *event.Event) (Reply, error) {
	if e.Type() == TypeError {
		return nil, decodeError(e)
	}
	k, ok := Lookup(req.EventType())
	if !ok || e.Type() != k.ReplyType() {
		return nil, iot.Errorf(iot.ErrUnavailable, "%s was answered by a CloudEvent of type %.80q", req.EventType(), e.Type())
	}
	rep := k.newReply()
	if err := decodeData(e, rep); err != nil {
		return nil, iot.Errorf(iot.ErrUnavailable, "%s: reply does not decode: %s", req.EventType(), plainJSONError(err))
	}
	if c, ok := rep.(coded); ok {
		if code, ok := e.Extensions()[AttrStatusCode]; ok {
			n, _ := types.ToInteger(code)
			c.setStatusCode(int(n))
		}
	}
	if a, ok := rep.(aging); ok {
		if age, ok := e.Extensions()[AttrMaxAge]; ok {
			if n, err := types.ToInteger(age); err == nil && n > 0 {
				a.setMaxAge(time.Duration(n) * time.Second)
			}
		}
	}
	return rep, nil
}

func decodeData(e *event.Event, rep Reply) error {
	if a, ok := rep.(attributed); ok {
		if err := a.readAttributes(e); err != nil {
			return err
		}
	}
	if r, ok := rep.(recordsReply); ok {
		return r.decodeFrom(e)
	}
	return json.Unmarshal(e.Data(), rep)
}

// newEvent sets the attributes that every CloudEvent of ours has.
func newEvent(typ, source, id string, at time.Time) event.Event {
	e := event.New(SpecVersion)
	e.SetType(typ)
	e.SetSource(source)
	e.SetID(id)
	e.SetTime(wireTime(at))
	return e
}

// answer starts a reply or error: its id follows from the request's, so that
// a repeated request is answered by the same CloudEvent.
func answer(request *event.Event, typ, source string, now time.Time) event.Event {
	e := newEvent(typ, source, DerivedID(typ, request.ID()), now)
	e.SetExtension(AttrCausationID, request.ID())
	if t, err := extension(request, AttrTenantID); err == nil && t != "" {
		e.SetExtension(AttrTenantID, t)
	}
	if s := request.Subject(); s != "" {
		e.SetSubject(s)
	}
	return e
}

// wireTime is UTC with milliseconds.
func wireTime(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

func setJSON(e *event.Event, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: encode data: %w", e.Type(), err)
	}
	e.SetDataSchema(schemaPrefix + e.Type() + ".json")
	e.SetDataContentType(jsonType)
	e.DataEncoded, e.DataBase64 = data, false // SetData would choose data_base64 for bytes
	return nil
}

// setText sets subject or an extension to an identifier of the caller.
func setText(e *event.Event, name, value string) error {
	if !isText(value) {
		return badText(name)
	}
	if name == "subject" {
		e.SetSubject(value)
	} else {
		e.SetExtension(name, value)
	}
	return nil
}

// isText reports whether value can be that of an attribute.
func isText(value string) bool {
	return utf8.ValidString(value) && !strings.ContainsFunc(value, unicode.IsControl)
}

func extension(e *event.Event, name string) (string, error) {
	v, ok := e.Extensions()[name]
	if !ok {
		return "", nil
	}
	return types.ToString(v)
}

func isJSON(contentType string) bool { return isMedia(contentType, jsonType) }

func isMedia(contentType, want string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(media), want)
}

// plainJSONError names what was wrong with JSON without quoting Go types.
func plainJSONError(err error) string {
	var te *json.UnmarshalTypeError
	if asType(err, &te) {
		return fmt.Sprintf("member %q holds a %s", te.Field, te.Value)
	}
	return err.Error()
}
