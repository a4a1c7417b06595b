package service

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/forward"
)

// request is a message to a service.
type request struct {
	address     string // of the link
	operation   string // subject
	replyTo     string
	correlation any // string, uint64, amqp.UUID or []byte
	properties  amqp.Map
	body        []byte // nil = none
	unsupported bool   // the body is of a form that no API has
}

// parse reads a request. The error is what it is rejected with (contract:
// messaging 2.3).
func parse(address string, message []byte) (*request, *amqp.Error) {
	m, err := amqp.DecodeMessage(message)
	if err != nil {
		return nil, malformed(err.Error())
	}
	p := m.Properties
	if p == nil {
		p = &amqp.Properties{}
	}
	q := &request{address: address, operation: p.Subject, replyTo: p.ReplyTo, correlation: p.CorrelationID, properties: m.ApplicationProperties}
	if q.correlation == nil {
		q.correlation = p.MessageID
	}
	switch {
	case q.correlation == nil:
		return nil, malformed("message-id and correlation-id are missing")
	case q.operation == "":
		return nil, malformed("subject is missing")
	case q.replyTo == "":
		return nil, malformed("reply-to is missing")
	}
	q.body, q.unsupported = payload(m)
	return q, nil
}

func malformed(why string) *amqp.Error {
	return &amqp.Error{Condition: CondBadRequest, Description: "malformed request message: " + why}
}

// payload is the body of a message in any of the forms of messaging 1.5.
func payload(m *amqp.Message) (body []byte, unsupported bool) {
	switch {
	case len(m.Data) == 1:
		return m.Data[0], false
	case len(m.Data) > 1:
		return bytes.Join(m.Data, nil), false
	case len(m.Sequence) > 0:
		return nil, true
	}
	switch v := m.Value.(type) {
	case nil:
		return nil, false
	case string:
		return []byte(v), false
	case []byte:
		return v, false
	}
	return nil, true
}

// text is an application property of type string; whatever has another type is
// not there (contract: messaging 1.6).
func (q *request) text(name string) string {
	s, _ := q.properties.Get(name).(string)
	return s
}

// bare reports whether there is no body.
func (q *request) bare() bool { return len(q.body) == 0 && !q.unsupported }

// object is the body of an operation that needs one.
func (q *request) object() ([]byte, error) {
	switch {
	case q.unsupported:
		return nil, iot.Errorf(iot.ErrInvalid, "the body is neither a data section nor an amqp-value of string or binary")
	case len(q.body) == 0:
		return nil, iot.Errorf(iot.ErrInvalid, "the body is missing: expected a JSON object")
	case !utf8.Valid(q.body) || !bytes.HasPrefix(bytes.TrimLeft(q.body, " \t\r\n"), []byte("{")):
		return nil, iot.Errorf(iot.ErrInvalid, "the body is no JSON object")
	}
	return q.body, nil
}

// repliable reports whether replies of a service may go to the address at all:
// the reply address of one, or a dynamic one.
func (q *request) repliable() bool {
	return forward.IsDynamic(q.replyTo) || Owns(q.replyTo) && CheckReply(q.replyTo) == nil
}

// correlationText is the correlation-id of a reply, which clients compare as text.
func correlationText(id any) string {
	switch id := id.(type) {
	case string:
		return id
	case uint64:
		return strconv.FormatUint(id, 10)
	case amqp.UUID:
		return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	case []byte:
		if utf8.Valid(id) && !strings.ContainsRune(string(id), 0) {
			return string(id)
		}
		return hex.EncodeToString(id)
	}
	return ""
}
