package management

import "encoding/binary"

// What is read of an encoded AMQP message (AMQP 1.0, sections 1.6 and 3.2). The
// events of adapters have one data section, or none; every other body is left to who
// asks for the message.
const (
	sectionProperties = 0x73
	sectionData       = 0x75
	sectionSequence   = 0x76
	sectionValue      = 0x77

	// contentTypeAt is where the content-type stands among the properties.
	contentTypeAt = 6
	// maxNesting bounds descriptors of descriptors.
	maxNesting = 4
)

// payload returns the data of an encoded message and its content-type; false for a message
// that has another body, or does not decode.
func payload(message []byte) (data []byte, contentType string, ok bool) {
	data = []byte{}
	for len(message) > 0 {
		section, rest, ok := descriptor(message)
		if !ok {
			return nil, "", false
		}
		body, rest, ok := value(rest, 0)
		if !ok {
			return nil, "", false
		}
		switch message = rest; section {
		case sectionProperties:
			if contentType, ok = contentTypeOf(body); !ok {
				return nil, "", false
			}
		case sectionData:
			b, ok := content(body, 0xa0, 0xb0)
			if !ok {
				return nil, "", false
			}
			data = append(data, b...)
		case sectionSequence, sectionValue:
			return nil, "", false
		}
	}
	return data, contentType, true
}

// descriptor reads the number of a section.
func descriptor(b []byte) (section uint64, rest []byte, ok bool) {
	switch {
	case len(b) >= 3 && b[0] == 0 && b[1] == 0x53:
		return uint64(b[2]), b[3:], true
	case len(b) >= 10 && b[0] == 0 && b[1] == 0x80:
		return binary.BigEndian.Uint64(b[2:]), b[10:], true
	}
	return 0, nil, false
}

// value splits b behind its first value.
func value(b []byte, nesting int) (first, rest []byte, ok bool) {
	if len(b) == 0 || nesting > maxNesting {
		return nil, nil, false
	}
	if b[0] == 0 { // a descriptor, and what it describes
		_, behind, ok := value(b[1:], nesting+1)
		if !ok {
			return nil, nil, false
		}
		_, rest, ok := value(behind, nesting+1)
		return b[:len(b)-len(rest)], rest, ok
	}
	head, size := 1, uint64(0)
	switch b[0] >> 4 {
	case 0x4:
	case 0x5, 0x6, 0x7, 0x8, 0x9:
		size = 1 << (b[0]>>4 - 5)
	case 0xa, 0xc, 0xe:
		if len(b) < 2 {
			return nil, nil, false
		}
		head, size = 2, uint64(b[1])
	case 0xb, 0xd, 0xf:
		if len(b) < 5 {
			return nil, nil, false
		}
		head, size = 5, uint64(binary.BigEndian.Uint32(b[1:]))
	default:
		return nil, nil, false
	}
	if size > uint64(len(b)-head) {
		return nil, nil, false
	}
	n := head + int(size)
	return b[:n], b[n:], true
}

// content returns what a value of one of two types, with a short or a long length, holds.
func content(v []byte, short, long byte) ([]byte, bool) {
	switch v[0] {
	case short:
		return v[2:], true
	case long:
		return v[5:], true
	}
	return nil, false
}

// contentTypeOf reads it from the list of properties, "" where it is not there.
func contentTypeOf(list []byte) (string, bool) {
	if list[0] == 0x45 { // the empty list
		return "", true
	}
	width := 1
	if list[0] == 0xd0 {
		width = 4
	}
	b, ok := content(list, 0xc0, 0xd0)
	if !ok || len(b) < width {
		return "", false
	}
	b = b[width:] // the count: the elements end where the list does
	for range contentTypeAt {
		if len(b) == 0 {
			return "", true
		}
		if _, b, ok = value(b, 0); !ok {
			return "", false
		}
	}
	if len(b) == 0 || b[0] == 0x40 { // null
		return "", true
	}
	symbol, _, ok := value(b, 0)
	if !ok {
		return "", false
	}
	text, ok := content(symbol, 0xa3, 0xb3)
	return string(text), ok
}
