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

	"github.com/sluice-iot/sluice/adapters"
)

// conn is a connection below TLS.
type conn struct {
	net.Conn
	used atomic.Bool // it has had a request
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
	return &conn{Conn: c}, nil
}

// connState follows connections, for [Adapter.Shutdown].
func (a *Adapter) connState(nc net.Conn, s nethttp.ConnState) {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	c, ok := nc.(*conn)
	if !ok {
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

	once  sync.Once // for the members below
	login adapters.Login
	ok    bool // it has a certificate
	err   error

	token atomic.Pointer[tokenRead] // the latest; nil = none
}

type peerKey struct{}

func withPeer(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, &peer{remote: adapters.RemoteAddr(c.RemoteAddr().String())})
}

// peerOf returns who sent r, also where no server of ours took it in.
func peerOf(r *nethttp.Request) *peer {
	if p, ok := r.Context().Value(peerKey{}).(*peer); ok {
		return p
	}
	return &peer{remote: adapters.RemoteAddr(r.RemoteAddr)}
}
