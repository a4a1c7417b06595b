package registry

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// absent is what a member without a value that can be compared counts as:
// missing, null, an object, or text that is no JSON.
type absent struct{}

// each calls f with the values at a path of a JSON object, the elements of an
// array one by one, until f returns false. A value is a bool, a float64 or a
// string; others are left out. It reads only as much of the document as it
// needs, since a search does this for every document that it looks at. Text that is
// no JSON object yields nothing, or nothing more. each reports whether f was never false.
func each(doc []byte, path []string, f func(v any) bool) bool {
	w := walker{doc: doc}
	return w.next() != '{' || w.value(path, true, f)
}

// walker stands at a position of a JSON text. Past a broken place it stands at the end.
type walker struct {
	doc []byte
	at  int
}

// value walks over one value and yields what is at the path below it.
func (w *walker) value(path []string, elements bool, f func(any) bool) bool {
	switch c := w.next(); {
	case c == '{' && len(path) > 0:
		return w.object(path, f)
	case c == '[' && elements: // arrays in arrays are not looked into
		return w.array(path, f)
	case c == '{' || c == '[':
		w.skip()
		return true
	case len(path) > 0:
		w.skip()
		return true
	}
	v := scalar(w.skip())
	if v == (absent{}) {
		return true
	}
	return f(v)
}

func (w *walker) object(path []string, f func(any) bool) bool {
	w.at++
	for {
		switch w.next() {
		case ',':
			w.at++
			continue
		case '"':
		default: // the end, or no JSON
			w.at++
			return true
		}
		name := w.skip()
		if w.next() != ':' {
			w.at = len(w.doc)
			return true
		}
		w.at++
		if !isName(name, path[0]) {
			w.skip()
		} else if !w.value(path[1:], true, f) {
			return false
		}
	}
}

func (w *walker) array(path []string, f func(any) bool) bool {
	w.at++
	for {
		switch w.next() {
		case ',':
			w.at++
			continue
		case ']', 0:
			w.at++
			return true
		}
		before := w.at
		if !w.value(path, false, f) {
			return false
		}
		if w.at == before { // no JSON
			w.at = len(w.doc)
		}
	}
}

// next passes white space and returns the byte that follows; 0 at the end.
func (w *walker) next() byte {
	for w.at < len(w.doc) {
		switch c := w.doc[w.at]; c {
		case ' ', '\t', '\n', '\r':
			w.at++
		default:
			return c
		}
	}
	return 0
}

// skip passes one value and returns its text.
func (w *walker) skip() []byte {
	w.next()
	start, depth := w.at, 0
	for w.at < len(w.doc) {
		switch w.doc[w.at] {
		case '"':
			w.text()
		case '{', '[':
			depth++
			w.at++
		case '}', ']':
			if depth == 0 { // of the object around
				return w.doc[start:w.at]
			}
			depth--
			w.at++
		case ',', ':', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return w.doc[start:w.at]
			}
			w.at++
			continue
		default:
			w.at++
			continue
		}
		if depth == 0 {
			return w.doc[start:w.at]
		}
	}
	return w.doc[start:]
}

// text passes a string, its quotes included.
func (w *walker) text() {
	for w.at++; w.at < len(w.doc); w.at++ {
		switch w.doc[w.at] {
		case '\\':
			w.at++
		case '"':
			w.at++
			return
		}
	}
	w.at = len(w.doc)
}

// isName compares a quoted name with a member's.
func isName(quoted []byte, name string) bool {
	if len(quoted) < 2 {
		return false
	}
	for _, c := range quoted {
		if c == '\\' {
			s, ok := unquote(quoted)
			return ok && s == name
		}
	}
	return string(quoted[1:len(quoted)-1]) == name
}

// scalar returns the value of a JSON literal.
func scalar(raw []byte) any {
	if len(raw) == 0 {
		return absent{}
	}
	switch raw[0] {
	case '"':
		if s, ok := unquote(raw); ok {
			return s
		}
	case 't':
		return true
	case 'f':
		return false
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		// Beyond the range is infinity, which no filter asks for.
		if n, err := strconv.ParseFloat(string(raw), 64); err == nil || math.IsInf(n, 0) {
			return n + 0 // -0 is 0
		}
	}
	return absent{}
}

func unquote(raw []byte) (string, bool) {
	if len(raw) < 2 || raw[len(raw)-1] != '"' {
		return "", false
	}
	plain := true
	for _, c := range raw {
		if c == '\\' || c < ' ' {
			plain = false
			break
		}
	}
	if s := raw[1 : len(raw)-1]; plain && utf8.Valid(s) {
		return string(s), true
	}
	var s string
	return s, json.Unmarshal([]byte(strings.ToValidUTF8(string(raw), "\uFFFD")), &s) == nil
}
