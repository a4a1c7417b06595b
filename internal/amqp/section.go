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
			r.off = at
			r.fail("section %v after %v", d, last)
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

// MapValue finds the entry with a string or symbol key in an encoded section
// that is a map, and returns its encoded value, nil when there is none. It
// allocates nothing.
func MapValue(section []byte, key string) (Raw, error) {
	v, _, err := mapEntry(section, key)
	return v, err
}

func mapEntry(section []byte, key string) (value Raw, entry Span, err error) {
	if len(section) == 0 {
		return nil, Span{}, nil
	}
	r := reader{buf: section}
	r.descriptor()
	n, end := r.mapHeader()
	for i := 0; i < n/2 && r.err == nil; i++ {
		at := r.off
		match := string(r.keyBytes()) == key
		v := r.raw()
		if match && r.err == nil {
			return v, Span{at, r.off}, nil
		}
	}
	r.closeAt(end)
	return nil, Span{}, r.err
}

// keyBytes reads a map key and returns the bytes of a string or symbol, nil
// for any other type.
func (r *reader) keyBytes() []byte {
	switch r.peek() {
	case codeString8, codeString32:
		return r.variable(codeString8, codeString32, "a string")
	case codeSymbol8, codeSymbol32:
		return r.variable(codeSymbol8, codeSymbol32, "a symbol")
	}
	r.skip()
	return nil
}

// Text returns the bytes of an encoded string or symbol, nil for anything else.
func (r Raw) Text() []byte {
	rd := reader{buf: r}
	switch rd.peek() {
	case codeString8, codeString32, codeSymbol8, codeSymbol32:
		b := rd.keyBytes()
		if rd.err == nil && b == nil {
			b = []byte{}
		}
		return b
	}
	return nil
}

// AppendWithoutEntry appends section, a map section, without the entry key.
// Nothing is appended when no other entry is left.
func AppendWithoutEntry(b, section []byte, key string) ([]byte, error) {
	_, entry, err := mapEntry(section, key)
	if err != nil || entry.Len() == 0 {
		return append(b, section...), err
	}
	r := reader{buf: section}
	r.descriptor()
	at := r.off
	n, end := r.mapHeader()
	if r.err != nil || n <= 2 {
		return b, r.err
	}
	first := r.off
	b = append(b, section[:at]...)
	start := len(b)
	b = openCompound(b, codeMap8)
	b = append(b, section[first:entry.Start]...)
	b = append(b, section[entry.End:end]...)
	return closeCompound(b, start, n-2), nil
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
