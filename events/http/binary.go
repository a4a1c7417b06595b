package http

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
)

const (
	prefix      = "Ce-" // in the canonical form of net/http
	contentType = "Content-Type"
)

// header writes the attributes of e, without its data, into h.
func header(h http.Header, e *event.Event) error {
	h[prefix+"Specversion"] = []string{e.SpecVersion()}
	set(h, "Type", e.Type())
	set(h, "Source", e.Source())
	set(h, "Id", e.ID())
	if t := e.Time(); !t.IsZero() {
		set(h, "Time", t.UTC().Format("2006-01-02T15:04:05.000Z"))
	}
	set(h, "Subject", e.Subject())
	set(h, "Dataschema", e.DataSchema())
	if ct := e.DataContentType(); ct != "" {
		h.Set(contentType, ct)
	}
	for name, v := range e.Extensions() {
		s, err := types.Format(v)
		if err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
		set(h, strings.ToUpper(name[:1])+name[1:], s)
	}
	return nil
}

func set(h http.Header, name, value string) {
	if value != "" {
		h[prefix+name] = []string{percentEncode(value)}
	}
}

// percentEncode encodes space, '"', '%' and everything outside U+0021 to
// U+007E (CloudEvents HTTP binding, 3.1.3.2).
func percentEncode(s string) string {
	plain := func(c byte) bool { return c > 0x20 && c < 0x7f && c != '"' && c != '%' }
	i := 0
	for i < len(s) && plain(s[i]) {
		i++
	}
	if i == len(s) {
		return s
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+16)
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

// percentDecode decodes once; what is no %XX stays as it is. It fails where
// the result is not UTF-8.
func percentDecode(s string) (string, error) {
	if strings.IndexByte(s, '%') >= 0 {
		b := make([]byte, 0, len(s))
		for i := 0; i < len(s); i++ {
			if s[i] == '%' && i+2 < len(s) {
				hi, lo := unhex(s[i+1]), unhex(s[i+2])
				if hi >= 0 && lo >= 0 {
					b = append(b, byte(hi<<4|lo))
					i += 2
					continue
				}
			}
			b = append(b, s[i])
		}
		s = string(b)
	}
	if !utf8.ValidString(s) {
		return "", errors.New("value is not UTF-8")
	}
	return s, nil
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// readBinary is the inverse of header.
func readBinary(h http.Header, body []byte) (event.Event, error) {
	e := event.New()
	for key, values := range h {
		if len(key) <= len(prefix) || !strings.HasPrefix(key, prefix) {
			continue
		}
		name := strings.ToLower(key[len(prefix):])
		if len(values) != 1 {
			return e, fmt.Errorf("header %s appears %d times", key, len(values))
		}
		value, err := percentDecode(values[0])
		if err != nil {
			return e, fmt.Errorf("attribute %.20s: %w", name, err)
		}
		if err := assign(&e, name, value); err != nil {
			return e, fmt.Errorf("attribute %.20s: %w", name, err)
		}
	}
	if ct := h.Get(contentType); ct != "" {
		e.SetDataContentType(ct)
	}
	if len(body) > 0 {
		e.DataEncoded = body
	}
	return e, nil
}

func assign(e *event.Event, name, value string) error {
	switch name {
	case "specversion":
		e.SetSpecVersion(value)
	case "type":
		e.SetType(value)
	case "source":
		e.SetSource(value)
	case "id":
		e.SetID(value)
	case "subject":
		e.SetSubject(value)
	case "dataschema":
		e.SetDataSchema(value)
	case "datacontenttype":
		return errors.New("belongs into the header Content-Type")
	case "time":
		t, err := types.ParseTime(value)
		if err != nil {
			return errors.New("not an RFC 3339 time")
		}
		e.SetTime(t)
	default:
		if !validName(name) {
			return errors.New("names hold lower-case letters and digits only")
		}
		e.SetExtension(name, value)
	}
	return nil
}

func validName(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
