package adapters

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"github.com/sluice-iot/sluice/internal/attempts"
)

// DefaultConnsPerAddress is how many connections one remote address may have
// open: many, because carriers put many devices behind one address.
const DefaultConnsPerAddress = 1000

// ConnLimit bounds the open connections of a remote address over all the
// listeners it wraps. One IPv6 network of 64 bits counts as one address. Safe
// for concurrent use; the zero value lets nobody in.
type ConnLimit struct {
	max int

	mu   sync.Mutex
	open map[netip.Addr]int
}

// NewConnLimit returns a limit; max 0 = DefaultConnsPerAddress, < 0 = none.
func NewConnLimit(max int) *ConnLimit {
	orDefault(&max, DefaultConnsPerAddress)
	return &ConnLimit{max: max, open: make(map[netip.Addr]int)}
}

// Acquire counts a connection of a; false when it has too many already.
func (l *ConnLimit) Acquire(a netip.Addr) bool {
	if l.max < 0 {
		return true
	}
	a = attempts.Address(a)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[a] >= l.max {
		return false
	}
	l.open[a]++
	return true
}

// Release gives back what Acquire counted.
func (l *ConnLimit) Release(a netip.Addr) {
	if l.max < 0 {
		return
	}
	a = attempts.Address(a)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[a]--; l.open[a] <= 0 {
		delete(l.open, a)
	}
}

// Listener returns ln with connections beyond the limit closed at once, before
// a byte is read from them. It belongs below TLS.
func (l *ConnLimit) Listener(ln net.Listener) net.Listener { return &limitedListener{ln, l} }

type limitedListener struct {
	net.Listener
	limit *ConnLimit
}

// Accept implements [net.Listener].
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		a := RemoteAddr(c.RemoteAddr().String())
		if l.limit.Acquire(a) {
			return &limitedConn{Conn: c, release: sync.OnceFunc(func() { l.limit.Release(a) })}, nil
		}
		c.Close()
	}
}

type limitedConn struct {
	net.Conn
	release func()
}

// Close implements [net.Conn].
func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// CloseWrite ends what is written, so that a client that is still writing gets to
// read why its connection ends.
func (c *limitedConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// RemoteAddr parses the "address:port" of a peer; the zero Addr where it is
// something else, such as the end of a pipe.
func RemoteAddr(s string) netip.Addr {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}
