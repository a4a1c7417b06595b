package amqp

// Span is a range of bytes; an empty one stands for an absent section.
type Span struct{ Start, End int }

// Len is the number of bytes in the span.
func (s Span) Len() int { return s.End - s.Start }

// Of returns the bytes of b that the span covers.
func (s Span) Of(b []byte) []byte { return b[s.Start:s.End:s.End] }

// Sections are the places of the sections before the body of an encoded
// message (Part 3, section 3.2), each with its descriptor. Body is where the
// body starts: the length of the message when there is none.
type Sections struct {
	Header                Span
	DeliveryAnnotations   Span
	MessageAnnotations    Span
	Properties            Span
	ApplicationProperties Span
	Body                  int
}

// ScanSections finds the sections of an encoded message without decoding them
// and without touching the body. Sections out of order or twice are an error.
// Message may be the head of a longer one as long as the sections before the
// body are whole.
func ScanSections(message []byte) (Sections, error) {
	var s Sections
	r := reader{buf: message}
	last := DescHeader - 1
	for r.off < len(message) {
		at := r.off
		d := r.descriptor()
		if r.err != nil {
			return s, r.err
		}
		if d >= DescData && d <= DescFooter {
			s.Body = at
			return s, nil
		}
		if d < DescHeader || d > DescFooter || d <= last {
			r.misplaced(at, d, last)
			return s, r.err
		}
		last = d
		r.skip()
		if r.err != nil {
			return s, r.err
		}
		span := Span{at, r.off}
		switch d {
		case DescHeader:
			s.Header = span
		case DescDeliveryAnnotations:
			s.DeliveryAnnotations = span
		case DescMessageAnnotations:
			s.MessageAnnotations = span
		case DescProperties:
			s.Properties = span
		case DescApplicationProperties:
			s.ApplicationProperties = span
		}
	}
	s.Body = len(message)
	return s, nil
}

func (r *reader) misplaced(at int, d, last Descriptor) {
	if last < DescHeader {
		r.failAt(at, "%v is no message section", d)
		return
	}
	r.failAt(at, "section %v after %v", d, last)
}

// MapValue finds the entry with a string or symbol key in an encoded section
// that is a map, and returns its encoded value, nil when there is none. It
// allocates nothing.
func MapValue(section []byte, key string) (Raw, error) {
	if len(section) == 0 {
		return nil, nil
	}
	r := reader{buf: section}
	for left := r.openMap(); left > 0 && r.err == nil; left -= 2 {
		match := r.keyIs(key)
		v := r.raw()
		if match && r.err == nil {
			return v, nil
		}
	}
	return nil, r.closeMap()
}

// MapValueOnce is [MapValue] for a key on which a decision depends: an entry
// that is there twice, be it as string and as symbol, is an error, because others
// might read the other one.
func MapValueOnce(section []byte, key string) (Raw, error) {
	if len(section) == 0 {
		return nil, nil
	}
	var found Raw
	r := reader{buf: section}
	for left := r.openMap(); left > 0 && r.err == nil; left -= 2 {
		at := r.off
		match := r.keyIs(key)
		v := r.raw()
		switch {
		case !match || r.err != nil:
		case found != nil:
			r.failAt(at, "key %q is there twice", key)
		default:
			found = v
		}
	}
	if err := r.closeMap(); err != nil {
		return nil, err
	}
	return found, nil
}

// openMap reads up to the first key of a map section and returns the number of
// keys and values. It cuts what lies behind the map off.
func (r *reader) openMap() int {
	r.descriptor()
	n, end := r.mapHeader()
	r.buf = r.buf[:end]
	return n
}

func (r *reader) closeMap() error {
	r.closeAt(len(r.buf))
	return r.err
}

// keyIs reads a map key and reports whether it is the string or symbol key.
func (r *reader) keyIs(key string) bool {
	switch r.peek() {
	case codeString8, codeString32, codeSymbol8, codeSymbol32:
		return string(r.textBytes()) == key
	}
	r.skip()
	return false
}

// textBytes reads a string or symbol.
func (r *reader) textBytes() []byte {
	if c := r.peek(); c == codeSymbol8 || c == codeSymbol32 {
		return r.variable(codeSymbol8, codeSymbol32, "a symbol")
	}
	return r.variable(codeString8, codeString32, "a string")
}

// Text returns the bytes of an encoded string or symbol, nil for anything else.
func (r Raw) Text() []byte {
	rd := reader{buf: r}
	switch rd.peek() {
	case codeString8, codeString32, codeSymbol8, codeSymbol32:
		return rd.textBytes()
	}
	return nil
}

// AppendWithoutEntry appends section, a map section, without the entry key,
// however often it occurs. Nothing is appended when no other entry is left.
func AppendWithoutEntry(b, section []byte, key string) ([]byte, error) {
	if len(section) == 0 {
		return b, nil
	}
	r := reader{buf: section}
	r.descriptor()
	start := r.off
	n, end := r.mapHeader()
	r.buf = r.buf[:end]
	out := openCompound(append(b, section[:start]...), codeMap8)
	from, kept := r.off, 0 // where the bytes to keep begin; keys and values kept
	for left := n; left > 0 && r.err == nil; left -= 2 {
		at := r.off
		match := r.keyIs(key)
		r.skip()
		if match {
			out, from = append(out, section[from:at]...), r.off
		} else {
			kept += 2
		}
	}
	if err := r.closeMap(); err != nil {
		return b, err
	}
	switch kept {
	case n:
		return append(b, section[:end]...), nil
	case 0:
		return b, nil
	}
	return closeCompound(append(out, section[from:end]...), len(b)+start, kept), nil
}

// PropertiesTo returns the to field of an encoded properties section, nil when
// absent. Only the string form is an address here.
func PropertiesTo(section []byte) ([]byte, error) {
	if len(section) == 0 {
		return nil, nil
	}
	r := reader{buf: section}
	r.descriptor()
	f := openFields(&r)
	r.buf = r.buf[:f.end]
	for _, name := range [...]string{"properties.message-id", "properties.user-id"} {
		if f.next(name) {
			r.skip()
		}
	}
	if !f.next("properties.to") {
		return nil, r.err
	}
	return r.variable(codeString8, codeString32, "a string"), r.err
}

// HeaderPriority returns the priority that the header section at the start of
// an encoded message names, and whether it names one.
func HeaderPriority(message []byte) (uint8, bool) {
	r := reader{buf: message}
	if r.descriptor() != DescHeader {
		return 0, false
	}
	f := openFields(&r)
	f.boolField("header.durable")
	if !f.next("header.priority") {
		return 0, false
	}
	p := r.ubyte()
	return p, r.err == nil
}

// SplitHeader decodes the header section at the start of an encoded message,
// and returns what follows it; without one the header is empty, and the message the rest.
func SplitHeader(message []byte) (Header, []byte, error) {
	r := reader{buf: message}
	if r.descriptor() != DescHeader {
		return Header{}, message, nil
	}
	h := decodeHeader(&r)
	if r.err != nil {
		return Header{}, message, r.err
	}
	return *h, message[r.off:], nil
}
