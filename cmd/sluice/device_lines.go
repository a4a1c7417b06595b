package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// maxLine is how long a line of the input may be: no server takes a longer item.
const maxLine = 64<<20 + 64<<10

// inputLine is a line of the input without its end.
type inputLine struct {
	number int // from 1
	text   []byte
	long   bool // longer than maxLine; there is no text then
}

// lineReader reads lines that are not blank, and counts all.
type lineReader struct {
	r      *bufio.Reader
	number int
	bytes  int64
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 64<<10)}
}

// bytesRead is how far the input was read.
func (l *lineReader) bytesRead() int64 { return l.bytes }

// next returns the next line that is not blank; io.EOF after the last one.
func (l *lineReader) next() (inputLine, error) {
	for {
		line := inputLine{number: l.number + 1}
		var err error
		for {
			var part []byte
			part, err = l.r.ReadSlice('\n')
			l.bytes += int64(len(part))
			if line.long = line.long || len(line.text)+len(part) > maxLine; line.long {
				line.text = nil
			} else {
				line.text = append(line.text, part...)
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				break
			}
		}
		l.number++
		if err != nil && !errors.Is(err, io.EOF) {
			return line, fmt.Errorf("read line %d: %w", line.number, err)
		}
		if line.text = bytes.Trim(line.text, " \t\r\n"); line.long || len(line.text) > 0 {
			return line, nil // of an incomplete last line, too
		}
		if err != nil {
			return line, io.EOF
		}
	}
}

// interruptible reads what cannot be closed under a read, such as a terminal:
// a read ends with ctx.
type interruptible struct {
	ctx     context.Context
	r       io.Reader
	buffer  []byte
	result  chan readResult
	reading bool
	rest    []byte
}

type readResult struct {
	n   int
	err error
}

func newInterruptible(ctx context.Context, r io.Reader) *interruptible {
	return &interruptible{ctx: ctx, r: r, buffer: make([]byte, 64<<10), result: make(chan readResult, 1)}
}

// Read implements io.Reader. After ctx has ended a read of the other reader may
// go on until the process ends.
func (i *interruptible) Read(b []byte) (int, error) {
	if len(i.rest) > 0 {
		n := copy(b, i.rest)
		i.rest = i.rest[n:]
		return n, nil
	}
	if !i.reading {
		i.reading = true
		go func() {
			n, err := i.r.Read(i.buffer)
			i.result <- readResult{n, err}
		}()
	}
	select {
	case <-i.ctx.Done():
		return 0, errors.New("interrupted")
	case r := <-i.result:
		i.reading = false
		n := copy(b, i.buffer[:r.n])
		if i.rest = i.buffer[n:r.n]; len(i.rest) > 0 {
			return n, nil // the reader says its error again
		}
		return n, r.err
	}
}
