package downstream

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Keys of the message (contract: messaging 1.7, 7.1; events 4.1).
const (
	keyAssertion    = "x-opt-reg-assertion"
	keyRetain       = "x-opt-retain"
	keyTraceContext = "x-opt-trace-context"
	keyDevice       = "device_id"
	keyTenant       = "tenant_id"
	keyResource     = "resource"
	keyQoS          = "qos"
	keyAdapter      = "orig_adapter"
	keyAddress      = "orig_address"
	keyTTD          = "ttd"
	keyStatus       = "status"
)

// ours are the application properties that only this package sets, and the
// one in which old clients carry an assertion.
func ours(endpoint iot.Endpoint, name string) bool {
	switch name {
	case keyDevice, keyQoS, keyAdapter, keyAddress, keyTTD, "reg_assertion":
		return true
	case keyStatus, keyTenant:
		return endpoint == iot.CommandResponse
	}
	return false
}

// encode writes the whole message into x.buf (contract: messaging 7.1, 9.4). It
// fails with iot.ErrInvalid on what AMQP cannot carry.
func (x *scratch) encode(m *iot.Message) error {
	if !isASCII(m.ContentType) || !isASCII(m.ContentEncoding) {
		return iot.Errorf(iot.ErrInvalid, "content type and encoding: want ASCII characters only")
	}
	b := appendHeader(x.buf[:0], m)
	if m.Assertion != "" {
		b = openMap(amqp.AppendDescriptor(b, amqp.DescDeliveryAnnotations))
		at := len(b)
		b = appendText(amqp.AppendSymbol(b, keyAssertion), m.Assertion)
		b = closeMap(b, at, 1)
	}
	b = appendAnnotations(b, m)
	b = appendProperties(b, m)
	b, err := x.appendApplication(b, m)
	x.buf = b
	if err != nil {
		return err
	}
	if m.Payload != nil {
		x.buf = amqp.AppendBinary(amqp.AppendDescriptor(b, amqp.DescData), m.Payload)
	}
	return nil
}

func appendHeader(b []byte, m *iot.Message) []byte {
	h := amqp.Header{Durable: m.Endpoint == iot.Event}
	if m.TTL > 0 {
		// Less than a millisecond must not become none.
		ms := (m.TTL + time.Millisecond - 1) / time.Millisecond
		h.TTL, h.HasTTL = uint32(min(ms, math.MaxUint32)), true
	}
	if !h.Durable && !h.HasTTL {
		return b
	}
	return h.Append(b)
}

func appendAnnotations(b []byte, m *iot.Message) []byte {
	b = openMap(amqp.AppendDescriptor(b, amqp.DescMessageAnnotations))
	at, n := len(b), 3
	b = appendText(amqp.AppendSymbol(b, keyDevice), string(m.Device))
	b = appendText(amqp.AppendSymbol(b, keyTenant), string(m.Tenant))
	b = appendJoined(amqp.AppendSymbol(b, keyResource), string(m.Endpoint), string(m.Tenant), string(m.Device))
	if m.Retain {
		b = amqp.AppendBool(amqp.AppendSymbol(b, keyRetain), true)
		n++
	}
	if m.TraceParent != "" {
		b = appendTrace(amqp.AppendSymbol(b, keyTraceContext), m)
		n++
	}
	return closeMap(b, at, n)
}

func appendTrace(b []byte, m *iot.Message) []byte {
	b = openMap(b)
	at, n := len(b), 1
	b = appendText(amqp.AppendSymbol(b, "traceparent"), m.TraceParent)
	if m.TraceState != "" {
		b = appendText(amqp.AppendSymbol(b, "tracestate"), m.TraceState)
		n++
	}
	return closeMap(b, at, n)
}

// appendProperties writes the ten fields up to creation-time (Part 3, section 3.2.4).
func appendProperties(b []byte, m *iot.Message) []byte {
	b = openList(amqp.AppendDescriptor(b, amqp.DescProperties))
	at := len(b)
	if m.ID != "" {
		b = appendText(b, m.ID)
	} else {
		b = amqp.AppendNull(b)
	}
	b = amqp.AppendNull(b) // user-id
	if m.Endpoint == iot.CommandResponse {
		b = appendJoined(b, string(m.Endpoint), string(m.Tenant), m.ReplyID)
		b = appendText(amqp.AppendNull(amqp.AppendNull(b)), m.CorrelationID) // subject, reply-to
	} else {
		b = appendJoined(b, string(m.Endpoint), string(m.Tenant))
		b = amqp.AppendNull(amqp.AppendNull(amqp.AppendNull(b))) // and correlation-id
	}
	b = appendSymbolOrNull(b, m.ContentType)
	b = appendSymbolOrNull(b, m.ContentEncoding)
	b = amqp.AppendNull(b) // absolute-expiry-time
	if !m.Created.IsZero() {
		b = amqp.AppendTimestamp(b, amqp.TimestampOf(m.Created))
	} else {
		b = amqp.AppendNull(b)
	}
	return closeCompound(b, at, 10)
}

func (x *scratch) appendApplication(b []byte, m *iot.Message) ([]byte, error) {
	b = openMap(amqp.AppendDescriptor(b, amqp.DescApplicationProperties))
	at := len(b)
	b = appendText(amqp.AppendString(b, keyDevice), string(m.Device))
	n := 1
	if m.Endpoint == iot.CommandResponse {
		b = appendText(amqp.AppendString(b, keyTenant), string(m.Tenant))
		b = amqp.AppendInt(amqp.AppendString(b, keyStatus), int32(m.Status))
		n += 2
	} else {
		b, n = appendOrigin(b, m, n)
	}
	x.keys = x.keys[:0]
	for name := range m.Properties {
		if !ours(m.Endpoint, name) {
			x.keys = append(x.keys, name)
		}
	}
	slices.Sort(x.keys)
	for _, name := range x.keys {
		var err error
		if b, err = appendProperty(b, name, m.Properties[name]); err != nil {
			return b, err
		}
	}
	return closeMap(b, at, n+len(x.keys)), nil
}

// appendOrigin appends what an upload tells of its origin, and counts it.
func appendOrigin(b []byte, m *iot.Message, n int) ([]byte, int) {
	b = amqp.AppendInt(amqp.AppendString(b, keyQoS), int32(m.QoS))
	n++
	if m.Adapter != "" {
		b = appendText(amqp.AppendString(b, keyAdapter), m.Adapter)
		n++
	}
	if m.Address != "" {
		b = appendText(amqp.AppendString(b, keyAddress), m.Address)
		n++
	}
	if m.TTD != nil {
		ttd := min(max(*m.TTD, math.MinInt32), math.MaxInt32)
		b = amqp.AppendInt(amqp.AppendString(b, keyTTD), int32(ttd))
		n++
	}
	return b, n
}

func appendProperty(b []byte, name string, v any) ([]byte, error) {
	b = appendText(b, name)
	switch v := v.(type) {
	case string:
		return appendText(b, v), nil
	case bool:
		return amqp.AppendBool(b, v), nil
	case int32:
		return amqp.AppendInt(b, v), nil
	case int64:
		return amqp.AppendLong(b, v), nil
	case float64:
		return amqp.AppendValue(b, v)
	}
	return b, iot.Errorf(iot.ErrInvalid, "property %.40q has a value of type %T: want string, bool, int32, int64 or float64", name, v)
}

// appendText appends s as a string, with what is no UTF-8 replaced.
func appendText(b []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	return amqp.AppendString(b, s)
}

// appendJoined appends the segments of an address as one string.
func appendJoined(b []byte, segments ...string) []byte {
	n := len(segments) - 1
	for _, s := range segments {
		n += len(s)
	}
	if n < 256 {
		b = append(b, 0xa1, byte(n))
	} else {
		b = binary.BigEndian.AppendUint32(append(b, 0xb1), uint32(n))
	}
	for i, s := range segments {
		if i > 0 {
			b = append(b, '/')
		}
		b = append(b, s...)
	}
	return b
}

func appendSymbolOrNull(b []byte, s string) []byte {
	if s == "" {
		return amqp.AppendNull(b)
	}
	return amqp.AppendSymbol(b, amqp.Symbol(s))
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// openMap and openList begin a compound in its 8-bit form; closeMap and
// closeCompound, given where its content begins, fill in size and count and
// widen it when it grew past what 8 bits hold (Part 1, section 1.6.22).
func openMap(b []byte) []byte  { return append(b, 0xc1, 0, 0) }
func openList(b []byte) []byte { return append(b, 0xc0, 0, 0) }

func closeMap(b []byte, at, pairs int) []byte { return closeCompound(b, at, 2*pairs) }

func closeCompound(b []byte, at, count int) []byte {
	size := len(b) - at
	if size+1 < 256 && count < 256 {
		b[at-2], b[at-1] = byte(size+1), byte(count)
		return b
	}
	b = append(b, 0, 0, 0, 0, 0, 0)
	copy(b[at+6:], b[at:at+size])
	b[at-3] += 0x10
	binary.BigEndian.PutUint32(b[at-2:], uint32(size+4))
	binary.BigEndian.PutUint32(b[at+2:], uint32(count))
	return b
}
