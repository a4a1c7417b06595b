package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// transport moves bytes. Only the connection's reader calls Read, and only the
// one flusher at a time calls TryWrite and Write.
type transport interface {
	// Read waits for input and appends it to the buffer that it borrows; head is
	// put before it. The caller gives the result back with putBuffer.
	Read(head []byte) ([]byte, error)
	// TryWrite takes what it can of b without waiting.
	TryWrite(b []byte) (int, error)
	// Pending reports whether something that was taken still has to be written.
	Pending() bool
	// Write waits until all is written, or for stall without any progress.
	Write(b []byte, stall time.Duration) (int, error)
	// SetReadDeadline bounds how long Read waits; zero lifts the bound.
	SetReadDeadline(time.Time) error
	// CloseWrite tells the peer that no more will come.
	CloseWrite() error
	Close() error
}

// tcpTransport reads and writes a stream socket.
type tcpTransport struct {
	c  net.Conn
	rc syscall.RawConn
}

func newTCP(c net.Conn) (*tcpTransport, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, errors.New("peer: connection is not a socket")
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &tcpTransport{c, rc}, nil
}

// Read borrows the buffer only when there is something to be read.
func (t *tcpTransport) Read(head []byte) ([]byte, error) {
	var buf []byte
	var rerr error
	err := t.rc.Read(func(fd uintptr) bool {
		buf = append(getBuffer(), head...)
		n, e := ignoreEINTR(func() (int, error) { return syscall.Read(int(fd), buf[len(buf):cap(buf)]) })
		if e == syscall.EAGAIN {
			putBuffer(buf)
			buf = nil
			return false
		}
		switch {
		case e != nil:
			rerr = e
		case n == 0:
			rerr = io.EOF
		default:
			buf = buf[:len(buf)+n]
		}
		return true
	})
	if err == nil {
		err = rerr
	}
	if err != nil {
		putBuffer(buf)
		return nil, err
	}
	return buf, nil
}

func (t *tcpTransport) TryWrite(b []byte) (n int, err error) {
	werr := t.rc.Write(func(fd uintptr) bool {
		for n < len(b) {
			k, e := ignoreEINTR(func() (int, error) { return syscall.Write(int(fd), b[n:]) })
			if e != nil {
				if e != syscall.EAGAIN {
					err = e
				}
				return true
			}
			n += k
		}
		return true
	})
	if err == nil {
		err = werr
	}
	return n, err
}

func (t *tcpTransport) Write(b []byte, stall time.Duration) (n int, err error) {
	// A deadline that stayed would fail every TryWrite once it has passed.
	defer t.c.SetWriteDeadline(time.Time{})
	for n < len(b) {
		t.c.SetWriteDeadline(time.Now().Add(stall))
		k, err := t.c.Write(b[n:])
		n += k
		if err != nil && k == 0 {
			return n, err
		}
	}
	return n, nil
}

// Pending implements transport: a socket keeps nothing back.
func (t *tcpTransport) Pending() bool { return false }

func (t *tcpTransport) CloseWrite() error {
	if c, ok := t.c.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

func (t *tcpTransport) SetReadDeadline(d time.Time) error { return t.c.SetReadDeadline(d) }
func (t *tcpTransport) Close() error                      { return t.c.Close() }

func ignoreEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// tlsTransport is TLS over a socket. The TLS layer writes its ciphertext into
// a buffer: were it to write to the socket, a full one would block it, and a
// write deadline would break the connection for good.
type tlsTransport struct {
	tcp *tcpTransport
	tls *tls.Conn
	net *tlsBuffer

	told bool // Read has returned because of pending output
}

// tlsBuffer is the net.Conn beneath the TLS layer.
type tlsBuffer struct {
	net.Conn
	tcp    *tcpTransport
	mu     sync.Mutex
	direct bool // during the handshake
	out    []byte
}

func (b *tlsBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	direct := b.direct
	if !direct {
		if b.out == nil {
			b.out = getBuffer()
		}
		b.out = append(b.out, p...)
	}
	b.mu.Unlock()
	if direct {
		return b.Conn.Write(p)
	}
	return len(p), nil
}

// SetWriteDeadline is what the TLS layer calls around its goodbye; the socket's
// deadline is not its to set.
func (b *tlsBuffer) SetWriteDeadline(time.Time) error { return nil }

// newTLS makes the handshake, bounded by ctx.
func newTLS(ctx context.Context, c net.Conn, conf *tls.Config, server bool) (*tlsTransport, error) {
	tcp, err := newTCP(c)
	if err != nil {
		return nil, err
	}
	t := &tlsTransport{tcp: tcp, net: &tlsBuffer{Conn: c, tcp: tcp, direct: true}}
	if server {
		t.tls = tls.Server(t.net, conf)
	} else {
		t.tls = tls.Client(t.net, conf)
	}
	if err := t.tls.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	t.net.mu.Lock()
	t.net.direct = false
	t.net.mu.Unlock()
	return t, nil
}

// errWouldBlock is what the TLS layer takes for a passing time-out.
type errWouldBlock struct{}

func (errWouldBlock) Error() string   { return "no input yet" }
func (errWouldBlock) Timeout() bool   { return true }
func (errWouldBlock) Temporary() bool { return true }

// Read never waits once the handshake is over, so that the buffer it reads
// into is borrowed only while there is something to read.
func (b *tlsBuffer) Read(p []byte) (n int, err error) {
	b.mu.Lock()
	direct := b.direct
	b.mu.Unlock()
	if direct {
		return b.Conn.Read(p)
	}
	rerr := b.tcp.rc.Read(func(fd uintptr) bool {
		n, err = ignoreEINTR(func() (int, error) { return syscall.Read(int(fd), p) })
		return true
	})
	switch {
	case rerr != nil:
		return 0, rerr
	case err == syscall.EAGAIN:
		return 0, errWouldBlock{}
	case err != nil:
		return 0, err
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}

func (t *tlsTransport) Read(head []byte) ([]byte, error) {
	for {
		buf := append(getBuffer(), head...)
		n, err := t.tls.Read(buf[len(buf):cap(buf)])
		if n > 0 {
			return buf[:len(buf)+n], nil
		}
		putBuffer(buf)
		if _, wait := err.(errWouldBlock); err != nil && !wait {
			return nil, err
		}
		// The TLS layer may have an answer of its own to be written, which the
		// caller sees to; once, for it may take a while.
		if pending := t.Pending(); pending && !t.told {
			t.told = true
			return append(getBuffer(), head...), nil
		} else if !pending {
			t.told = false
		}
		if err := t.tcp.waitReadable(); err != nil {
			return nil, err
		}
	}
}

// waitReadable waits until the socket has input or is at its end.
func (t *tcpTransport) waitReadable() error {
	_, err := t.peek()
	return err
}

// peek is waitReadable that tells the first byte; 0 at the end of input.
func (t *tcpTransport) peek() (byte, error) {
	var first [1]byte
	var failed error
	err := t.rc.Read(func(fd uintptr) bool {
		_, failed = ignoreEINTR(func() (int, error) {
			n, _, err := syscall.Recvfrom(int(fd), first[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			return n, err
		})
		return failed != syscall.EAGAIN
	})
	if err == nil {
		err = failed
	}
	return first[0], err
}

func (t *tlsTransport) TryWrite(b []byte) (int, error) {
	if err := t.drain(); err != nil || t.Pending() {
		return 0, err
	}
	n, err := t.tls.Write(b)
	if err != nil {
		return n, err
	}
	return n, t.drain()
}

// Pending reports whether ciphertext awaits the socket: of a write, or of the
// TLS layer's own doing while it read.
func (t *tlsTransport) Pending() bool {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	return len(t.net.out) > 0
}

// drain writes as much ciphertext as the socket takes at once.
func (t *tlsTransport) drain() error {
	t.net.mu.Lock()
	out := t.net.out
	t.net.out = nil
	t.net.mu.Unlock()
	if len(out) == 0 {
		return nil
	}
	n, err := t.tcp.TryWrite(out)
	if n == len(out) {
		putBuffer(out)
	} else {
		t.net.mu.Lock()
		t.net.out = append(out[:copy(out, out[n:])], t.net.out...)
		t.net.mu.Unlock()
	}
	return err
}

func (t *tlsTransport) Write(b []byte, stall time.Duration) (int, error) {
	if len(b) > 0 {
		if n, err := t.tls.Write(b); err != nil {
			return n, err
		}
	}
	t.net.mu.Lock()
	out := t.net.out
	t.net.out = nil
	t.net.mu.Unlock()
	_, err := t.tcp.Write(out, stall)
	putBuffer(out)
	return len(b), err
}

func (t *tlsTransport) SetReadDeadline(d time.Time) error { return t.tcp.SetReadDeadline(d) }

// CloseWrite says goodbye in TLS too, or the peer would take it for an attack.
func (t *tlsTransport) CloseWrite() error {
	t.tls.CloseWrite()
	t.drain()
	return t.tcp.CloseWrite()
}

func (t *tlsTransport) Close() error { return t.tcp.Close() }
