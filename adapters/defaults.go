package adapters

import (
	"encoding/json"
	"maps"
	"math"

	"github.com/sluice-iot/sluice/internal/iot"
)

// skipped are the keys of defaults that never reach a message: fields of the
// AMQP header and properties that only the sender decides (contract: messaging
// 15.2), and the application properties that name the device and its proof.
var skipped = map[string]bool{
	"delivery-count": true, "durable": true, "first-acquirer": true, "priority": true,
	"absolute-expiry-time": true, "correlation-id": true, "creation-time": true, "group-id": true,
	"group-sequence": true, "message-id": true, "reply-to": true, "reply-to-group-id": true,
	"subject": true, "to": true, "user-id": true,

	"device_id": true, "qos": true, "orig_adapter": true, "orig_address": true, "reg_assertion": true,
}

// defaults is what a tenant and a device add to every message, merged once per
// admission. It is shared and never changed.
type defaults struct {
	contentType     string
	contentEncoding string
	retain          bool
	ttd             *int
	ttl             map[string]int64 // seconds, by key of the defaults
	properties      map[string]any   // nil = none
}

// mergeDefaults merges from general to special: the later one wins.
func mergeDefaults(levels ...map[string]any) defaults {
	var d defaults
	for _, level := range levels {
		for name, v := range level {
			d.set(name, v)
		}
	}
	return d
}

func (d *defaults) set(name string, v any) {
	switch name {
	case "content-type":
		setText(&d.contentType, v)
	case "content-encoding":
		setText(&d.contentEncoding, v)
	case "x-opt-retain":
		d.retain, _ = v.(bool)
	case "ttd":
		if n, ok := wholeNumber(v); ok && n >= math.MinInt32 && n <= math.MaxInt32 {
			seconds := int(n)
			d.ttd = &seconds
		}
	case keyTTL, keyTTLQoS0, keyTTLQoS1, keyTTLResponse:
		if d.ttl == nil {
			d.ttl = make(map[string]int64)
		}
		d.ttl[name] = -1
		if n, ok := wholeNumber(v); ok && n >= 0 {
			d.ttl[name] = n
		}
	default:
		setProperty(&d.properties, name, v)
	}
}

// setText takes strings that AMQP can carry as a symbol and ignores the rest.
func setText(dst *string, v any) {
	if s, ok := v.(string); ok && isSymbol(s) {
		*dst = s
	}
}

// isSymbol reports whether s is printable ASCII of a length that fits any
// reader of an AMQP symbol.
func isSymbol(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return len(s) <= 255
}

func setProperty(m *map[string]any, name string, v any) {
	if skipped[name] {
		return
	}
	p, ok := property(v)
	if !ok {
		return
	}
	if *m == nil {
		*m = make(map[string]any)
	}
	(*m)[name] = p
}

// property maps a JSON value to an application property: whole numbers to
// int32 or, where they do not fit, int64; false for what is no scalar.
func property(v any) (any, bool) {
	switch v := v.(type) {
	case string, bool, int32, int64:
		return v, true
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return narrow(n), true
		}
		f, err := v.Float64()
		return f, err == nil
	}
	if n, ok := wholeNumber(v); ok {
		return narrow(n), true
	}
	f, ok := v.(float64)
	return f, ok
}

func narrow(n int64) any {
	if n >= math.MinInt32 && n <= math.MaxInt32 {
		return int32(n)
	}
	return n
}

// wholeNumber reads an integer from any of the forms that JSON decoding and
// in-process calls leave it in.
func wholeNumber(v any) (int64, bool) {
	switch v := v.(type) {
	case int:
		return int64(v), true
	case int32:
		return int64(v), true
	case int64:
		return v, true
	case json.Number:
		n, err := v.Int64()
		return n, err == nil
	case float64:
		if v == math.Trunc(v) && math.Abs(v) <= 1<<53 {
			return int64(v), true
		}
	}
	return 0, false
}

// merged returns the application properties of one message: the defaults with
// own on top. Without own it is the shared map, which nobody changes.
func (d *defaults) merged(own map[string]any) map[string]any {
	if len(own) == 0 {
		return d.properties
	}
	all := maps.Clone(d.properties)
	for name, v := range own {
		setProperty(&all, name, v)
	}
	return all
}

// fill gives m what the device left open.
func (d *defaults) fill(m *iot.Message) {
	if m.ContentType == "" {
		m.ContentType = d.contentType
	}
	if m.ContentEncoding == "" {
		m.ContentEncoding = d.contentEncoding
	}
	if m.TTD == nil {
		m.TTD = d.ttd
	}
	m.Retain = m.Retain || d.retain
}
