package peer

import "sync"

// bufferSize is what is read at once and what a borrowed reader writes at once.
const bufferSize = 64 * 1024

// Buffers are lent to a connection only while it has something to read or
// write, so that an idle one holds none.
var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

func getBuffer() []byte { return buffers.Get().(*[bufferSize]byte)[:0] }

// putBuffer takes back a buffer that getBuffer gave; one that grew is left to
// the garbage collector.
func putBuffer(b []byte) {
	if cap(b) == bufferSize {
		buffers.Put((*[bufferSize]byte)(b[:bufferSize]))
	}
}
