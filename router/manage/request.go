package manage

import (
	"fmt"
	"strconv"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/router/forward"
	"strings"
)

// The operations.
const (
	Query         = "QUERY"
	Read          = "READ"
	Delete        = "DELETE"
	GetTypes      = "GET-TYPES"
	GetAttributes = "GET-ATTRIBUTES"
	GetOperations = "GET-OPERATIONS"
	GetNodes      = "GET-MGMT-NODES"
)

// nodeType is the type of the node itself: requests that are about no one
// entity name it.
const nodeType = "org.amqp.management"

const (
	// maxCount is how many entities a reply holds.
	maxCount = 1000
	// maxNames bounds the list of attribute names in a request.
	maxNames = 100
)

// request is a message to the node.
type request struct {
	operation   string
	kind        string // "" = all types
	id          string
	offset      int
	count       int
	attributes  []string // of QUERY; empty = all
	replyTo     string
	correlation any // nil, or one of the types of a message-id
}

// status is how an operation ended; zero means with success.
type status struct {
	code int32
	text string
}

func failed(code int32, format string, args ...any) status {
	return status{code, fmt.Sprintf(format, args...)}
}

// parse reads a request. The error says that no reply can be made, and is the
// outcome; a status that the reply says what is wrong.
func parse(message []byte) (*request, status, *amqp.Error) {
	m, err := amqp.DecodeMessage(message)
	if err != nil {
		return nil, status{}, &amqp.Error{Condition: amqp.CondDecodeError, Description: err.Error()}
	}
	q := &request{count: maxCount}
	if p := m.Properties; p != nil {
		q.replyTo, q.correlation = p.ReplyTo, p.CorrelationID
		if q.correlation == nil {
			q.correlation = p.MessageID
		}
	}
	switch {
	case q.correlation == nil:
		return nil, status{}, &amqp.Error{Condition: amqp.CondInvalidField, Description: "properties.message-id is missing"}
	case !forward.IsDynamic(q.replyTo) && !strings.HasPrefix(q.replyTo, ReplyPrefix):
		return nil, status{}, &amqp.Error{Condition: amqp.CondInvalidField,
			Description: "properties.reply-to: expected a dynamic address of this connection, or one that begins with " + ReplyPrefix}
	}
	return q, q.read(m), nil
}

// read takes what the application properties and the body say.
func (q *request) read(m *amqp.Message) status {
	p := fields{m: m.ApplicationProperties}
	q.operation = p.text("operation")
	kind := p.text("entityType")
	if t := p.text("type"); kind == "" && t != nodeType {
		kind = t
	}
	q.kind = kind
	if q.id = p.text("identity"); q.id == "" {
		q.id = p.text("name")
	}
	q.offset = p.number("offset", 0)
	q.count = min(p.number("count", maxCount), maxCount)
	if p.bad.code == 0 && q.operation == "" {
		return failed(400, "application property operation is missing")
	}
	if p.bad.code == 0 && q.operation == Query {
		p.bad = q.readNames(m)
	}
	return p.bad
}

// readNames takes the attribute names from the body of a QUERY.
func (q *request) readNames(m *amqp.Message) status {
	body, ok := m.Value.(amqp.Map)
	if !ok {
		return status{}
	}
	var names []any
	switch v := body.Get("attributeNames").(type) {
	case nil:
	case amqp.List:
		names = v
	case amqp.Array:
		names = v.Values
	default:
		return failed(400, "attributeNames is not a list")
	}
	if len(names) > maxNames {
		return failed(400, "%d attributeNames, at most %d are taken", len(names), maxNames)
	}
	for _, n := range names {
		name, ok := asText(n)
		if !ok || name == "" {
			return failed(400, "attributeNames: expected names")
		}
		q.attributes = append(q.attributes, name)
	}
	return status{}
}

// fields reads application properties and keeps the first thing that is wrong.
type fields struct {
	m   amqp.Map
	bad status
}

func (f *fields) text(name string) string {
	v := f.m.Get(name)
	if v == nil {
		return ""
	}
	s, ok := asText(v)
	if !ok {
		f.fail("application property %s is a %T; expected a string", name, v)
	}
	return s
}

func (f *fields) number(name string, or int) int {
	v := f.m.Get(name)
	if v == nil {
		return or
	}
	n, ok := asNumber(v)
	if !ok {
		f.fail("application property %s: expected a number from 0 on", name)
		return or
	}
	return n
}

func (f *fields) fail(format string, args ...any) {
	if f.bad.code == 0 {
		f.bad = failed(400, format, args...)
	}
}

// asText takes numbers too, because clients send an identity as they like.
func asText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case amqp.Symbol:
		return string(v), true
	}
	if n, ok := asNumber(v); ok {
		return strconv.Itoa(n), true
	}
	return "", false
}

// asNumber returns any integer that is not negative and fits an int32.
func asNumber(v any) (int, bool) {
	var n int64
	switch v := v.(type) {
	case int8:
		n = int64(v)
	case int16:
		n = int64(v)
	case int32:
		n = int64(v)
	case int64:
		n = v
	case uint8:
		n = int64(v)
	case uint16:
		n = int64(v)
	case uint32:
		n = int64(v)
	case uint64:
		n = int64(min(v, 1<<32))
	default:
		return 0, false
	}
	return int(n), n >= 0 && n <= 1<<31-1
}
