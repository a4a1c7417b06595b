package http

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	nethttp "net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/adapters"
)

// conn is a connection below TLS.
type conn struct {
	net.Conn
	used   atomic.Bool  // it has had a request
	paused atomic.Int64 // nothing is read before; Unix time in ns
	closed chan struct{}
	close  func() // closes it
}

// pause has nothing be read from c before until; the connection may be closed before.
// A nil c is one that no server of ours took in.
func (c *conn) pause(until time.Time) {
	if c != nil {
		c.paused.Store(until.UnixNano())
	}
}

// Read implements [net.Conn].
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if until := c.paused.Load(); until != 0 {
		c.wait(time.Until(time.Unix(0, until)))
	}
	return n, err
}

func (c *conn) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.closed:
	}
}

// Close implements [net.Conn].
func (c *conn) Close() error {
	c.close()
	return c.Conn.Close()
}

// CloseWrite is what the server asks for after an answer to a request that it did
// not read to its end.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

type listener struct{ net.Listener }

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	closed := make(chan struct{})
	return &conn{Conn: c, closed: closed, close: sync.OnceFunc(func() { close(closed) })}, nil
}

// ourConn is what nc, with or without TLS, goes over; nil where it is none of ours.
func ourConn(nc net.Conn) *conn {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	c, _ := nc.(*conn)
	return c
}

// connState follows connections, for [Adapter.Shutdown].
func (a *Adapter) connState(nc net.Conn, s nethttp.ConnState) {
	c := ourConn(nc)
	if c == nil {
		return
	}
	switch s {
	case nethttp.StateNew:
		a.mu.Lock()
		a.conns[c] = struct{}{}
		a.mu.Unlock()
	case nethttp.StateActive, nethttp.StateIdle:
		c.used.Store(true)
	case nethttp.StateClosed, nethttp.StateHijacked:
		a.mu.Lock()
		delete(a.conns, c)
		a.mu.Unlock()
	}
}

// used reports whether a connection has had a request.
func (a *Adapter) used() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.conns {
		if c.used.Load() {
			return true
		}
	}
	return false
}

// peer is what is known of the client of a connection. Requests of HTTP/2 use it
// at the same time.
type peer struct {
	remote netip.Addr
	conn   *conn // nil = none of ours

	once  sync.Once // for the members below
	login adapters.Login
	ok    bool // it has a certificate
	err   error

	token atomic.Pointer[tokenRead] // the latest; nil = none

	first  atomic.Pointer[resetter] // who sent the first request of HTTP/2; nil = none did
	shared atomic.Bool              // others sent some, too
}

type peerKey struct{}

func withPeer(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, &peer{remote: adapters.RemoteAddr(c.RemoteAddr().String()), conn: ourConn(c)})
}

// peerOf returns who sent r, also where no server of ours took it in.
func peerOf(r *nethttp.Request) *peer {
	if p, ok := r.Context().Value(peerKey{}).(*peer); ok {
		return p
	}
	return &peer{remote: adapters.RemoteAddr(r.RemoteAddr)}
}
