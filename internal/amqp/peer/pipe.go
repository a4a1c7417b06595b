package peer

import (
	"io"
	"os"
	"sync"
	"time"
)

// NewPipe returns the two ends of an in-memory connection, for two parts of
// one process that speak AMQP to each other.
func NewPipe() (a, b *Pipe) {
	x, y := newHalf(), newHalf()
	return &Pipe{x, y}, &Pipe{y, x}
}

// Pipe is one end of an in-memory connection.
type Pipe struct{ in, out *half }

// half is one direction, with as much room as a socket buffer has.
type half struct {
	mu       sync.Mutex
	changed  *sync.Cond
	buf      []byte
	closed   bool
	deadline time.Time
	timer    *time.Timer
}

func newHalf() *half {
	h := &half{}
	h.changed = sync.NewCond(&h.mu)
	return h
}

// wake makes those who wait look at the clock. Without the lock it could come
// between somebody's look and his wait.
func (h *half) wake() {
	h.mu.Lock()
	h.changed.Broadcast()
	h.mu.Unlock()
}

// Read implements transport.
func (p *Pipe) Read(head []byte) ([]byte, error) {
	h := p.in
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.buf) == 0 && !h.closed {
		if !h.deadline.IsZero() && !time.Now().Before(h.deadline) {
			return nil, os.ErrDeadlineExceeded
		}
		h.changed.Wait()
	}
	if len(h.buf) == 0 {
		return nil, io.EOF
	}
	b := append(getBuffer(), head...)
	n := copy(b[len(b):cap(b)], h.buf)
	h.buf = h.buf[:copy(h.buf, h.buf[n:])]
	if len(h.buf) == 0 {
		putBuffer(h.buf)
		h.buf = nil
	}
	h.changed.Broadcast()
	return b[:len(b)+n], nil
}

func (h *half) put(b []byte) (int, error) {
	if h.closed {
		return 0, io.ErrClosedPipe
	}
	n := min(len(b), bufferSize-len(h.buf))
	if n > 0 {
		if h.buf == nil {
			h.buf = getBuffer()
		}
		h.buf = append(h.buf, b[:n]...)
		h.changed.Broadcast()
	}
	return n, nil
}

// TryWrite takes what fits into the buffer.
func (p *Pipe) TryWrite(b []byte) (int, error) {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	return p.out.put(b)
}

// Pending implements transport: a pipe keeps nothing back.
func (p *Pipe) Pending() bool { return false }

func (p *Pipe) Write(b []byte, stall time.Duration) (n int, err error) {
	h := p.out
	h.mu.Lock()
	defer h.mu.Unlock()
	last := time.Now()
	wake := time.AfterFunc(stall, h.wake)
	defer wake.Stop()
	for {
		k, err := h.put(b[n:])
		if n += k; err != nil || n == len(b) {
			return n, err
		}
		if k > 0 {
			last = time.Now()
			wake.Reset(stall)
		} else if time.Since(last) >= stall {
			return n, os.ErrDeadlineExceeded
		}
		h.changed.Wait()
	}
}

// SetReadDeadline bounds how long Read waits.
func (p *Pipe) SetReadDeadline(t time.Time) error {
	h := p.in
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deadline = t
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
	if !t.IsZero() {
		h.timer = time.AfterFunc(time.Until(t), h.wake)
	}
	h.changed.Broadcast()
	return nil
}

// CloseWrite tells the other end that no more will come.
func (p *Pipe) CloseWrite() error {
	p.out.close()
	return nil
}

// Close closes both directions.
func (p *Pipe) Close() error {
	p.in.close()
	p.out.close()
	return nil
}

func (h *half) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.timer != nil {
		h.timer.Stop()
	}
	h.changed.Broadcast()
}
