package management

import "io"

// Lines and Elements take a body apart.
func Lines(r io.Reader, max int) func() (int, []byte, error, error) { return newLines(r, max).next }

func Elements(r io.Reader, max int) func() (int, []byte, error, error) {
	return newElements(r, max).next
}

// Payload reads an encoded message.
func Payload(message []byte) (data []byte, contentType string, ok bool) { return payload(message) }
