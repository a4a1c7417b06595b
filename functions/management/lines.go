package management

import (
	"bufio"
	"errors"
	"io"

	"github.com/sluice-iot/sluice/internal/iot"
)

// readAhead is how many bytes of a body are read at once.
const readAhead = 64 << 10

// splitter takes a body apart into items.
type splitter interface {
	// next returns the next item's text, valid until the next call, and its
	// number from 1. bad says what is wrong with this item alone; err ends the
	// body, io.EOF when all was read.
	next() (number int, text []byte, bad, err error)
}

func tooLong(limit int) error {
	return iot.Errorf(iot.ErrTooLarge, "the item is longer than the limit of %d bytes", limit)
}

// lines are items of one line each (NDJSON). Blank lines are counted and passed over.
type lines struct {
	r      *bufio.Reader
	max    int // bytes of a line
	number int
	text   []byte
}

func newLines(r io.Reader, max int) *lines {
	return &lines{r: bufio.NewReaderSize(r, readAhead), max: max}
}

func (l *lines) next() (int, []byte, error, error) {
	for {
		l.number++
		l.text = l.text[:0]
		long := false
		var err error
		for {
			var part []byte
			part, err = l.r.ReadSlice('\n')
			if long = long || len(l.text)+len(part) > l.max; !long {
				l.text = append(l.text, part...)
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				break
			}
		}
		text := trimSpace(l.text)
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return l.number, nil, nil, err
		case long:
			return l.number, nil, tooLong(l.max), nil
		case len(text) > 0:
			return l.number, text, nil, nil // of an incomplete last line, too
		case err != nil:
			return l.number, nil, nil, err
		}
	}
}

// trimSpace removes the white space of JSON at both ends.
func trimSpace(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// elements are the elements of one JSON array. It looks at brackets and
// strings only: what is between two commas is for the decoder to judge.
type elements struct {
	r      *bufio.Reader
	max    int // bytes of an element
	number int
	begun  bool
	ended  bool
	text   []byte
}

func newElements(r io.Reader, max int) *elements {
	return &elements{r: bufio.NewReaderSize(r, readAhead), max: max}
}

func (e *elements) next() (int, []byte, error, error) {
	if !e.begun {
		e.begun = true
		if c, err := e.skipSpace(); err != nil || c != '[' {
			return 0, nil, nil, notArray(err, "it does not begin with [")
		}
	}
	if e.ended {
		return 0, nil, nil, e.rest()
	}
	e.number++
	end, long, err := e.element()
	if err != nil {
		return e.number, nil, nil, notArray(err, "it ends within an element or before the closing ]")
	}
	e.ended = end == ']'
	text := trimSpace(e.text)
	switch {
	case long:
		return e.number, nil, tooLong(e.max), nil
	case len(text) == 0 && e.ended && e.number == 1:
		return 0, nil, nil, e.rest() // an empty array
	}
	return e.number, text, nil, nil
}

// element reads up to the comma or bracket that ends an element.
func (e *elements) element() (end byte, long bool, err error) {
	e.text = e.text[:0]
	depth, inString, escaped := 0, false, false
	for {
		c, err := e.r.ReadByte()
		if err != nil {
			return 0, false, err
		}
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped, inString = c == '\\', c != '"'
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			depth++
		case depth == 0 && (c == ',' || c == ']'):
			return c, long, nil
		case c == '}' || c == ']':
			depth = max(depth-1, 0)
		}
		if long = long || len(e.text) >= e.max; !long {
			e.text = append(e.text, c)
		}
	}
}

// rest expects nothing but white space after the array.
func (e *elements) rest() error {
	_, err := e.skipSpace()
	if err == nil {
		return notArray(nil, "there is something after it")
	}
	return err
}

func (e *elements) skipSpace() (byte, error) {
	for {
		c, err := e.r.ReadByte()
		if err != nil || !isSpace(c) {
			return c, err
		}
	}
}

func notArray(err error, text string) error {
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return iot.Errorf(iot.ErrInvalid, "the body is not a JSON array of items: %s", text)
}
