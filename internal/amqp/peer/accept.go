package peer

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
)

// Accept serves one accepted socket until it ends and returns why: nil after an
// orderly close. It makes the TLS handshake when o.TLS is set. onConn, which
// may be nil, gets the connection before anything is read.
//
// A client that speaks AMQP without TLS where TLS is asked for gets as far as the
// list of SASL mechanisms and is refused whatever it answers: a socket that is
// just dropped would look like an outage to it.
func Accept(ctx context.Context, nc net.Conn, o Options, onConn func(*Conn)) error {
	c, err := NewServerConn(ctx, nc, &o)
	if err != nil {
		return err
	}
	if onConn != nil {
		onConn(c)
	}
	return c.Serve(ctx)
}

// NewServerConn makes the TLS handshake and returns the connection, which the
// caller serves. It is Accept for those who have very many: what a goroutine has on its
// stack while it waits for input is most of what an idle connection costs.
func NewServerConn(ctx context.Context, nc net.Conn, o *Options) (*Conn, error) {
	conf := o.TLS
	info := PeerInfo{RemoteAddr: nc.RemoteAddr().String()}
	bare := false
	if conf != nil {
		first, err := firstByte(ctx, nc)
		if err != nil {
			nc.Close()
			return nil, err
		}
		if bare = first == amqp.HeaderSASL[0]; bare { // TLS begins with 0x16
			conf = nil
		}
	}
	info.TLS = conf != nil
	t, err := newTransport(ctx, nc, conf, true, &info)
	if err != nil {
		nc.Close()
		return nil, err
	}
	c := newServer(t, o, &info)
	c.e.sasl.refuse = bare
	return c, nil
}

// firstByte waits for the first byte of a socket and leaves it there.
func firstByte(ctx context.Context, nc net.Conn) (byte, error) {
	t, err := newTCP(nc)
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	nc.SetReadDeadline(time.Now().Add(handshakeTimeout))
	defer nc.SetReadDeadline(time.Time{})
	return t.peek()
}

// AcceptPipe is Accept for an in-memory connection.
func AcceptPipe(ctx context.Context, p *Pipe, o Options, onConn func(*Conn)) error {
	c := newServer(p, &o, &PeerInfo{RemoteAddr: "in-process", Local: o.Local})
	if onConn != nil {
		onConn(c)
	}
	return c.Serve(ctx)
}

func newServer(t transport, o *Options, info *PeerInfo) *Conn {
	c := newConn(t, *o, *info)
	c.e = NewServer(o.Config, o.Auth.Mechanisms(&c.info))
	c.e.conn = c
	return c
}

// Connect returns a client connection on a socket that is connected. The
// handshake is made by Serve; EventOpen tells that the connection is usable.
func Connect(ctx context.Context, nc net.Conn, o Options) (*Conn, error) {
	info := PeerInfo{RemoteAddr: nc.RemoteAddr().String(), TLS: o.TLS != nil}
	t, err := newTransport(ctx, nc, o.TLS, false, &info)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return connectOn(t, o, info), nil
}

// ConnectPipe is Connect for an in-memory connection.
func ConnectPipe(p *Pipe, o Options) *Conn {
	return connectOn(p, o, PeerInfo{RemoteAddr: "in-process"})
}

func connectOn(t transport, o Options, info PeerInfo) *Conn {
	c := newConn(t, o, info)
	c.e = NewClient(o.Config, o.Login)
	c.e.conn = c
	return c
}

// Serve reads until the connection ends and returns why: nil after an orderly
// close. It is called once, by the goroutine that is to be the reader.
func (c *Conn) Serve(ctx context.Context) error { return c.serve(ctx) }

func newTransport(ctx context.Context, nc net.Conn, conf *tls.Config, server bool, info *PeerInfo) (transport, error) {
	if conf == nil {
		return newTCP(nc)
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	t, err := newTLS(ctx, nc, conf, server)
	if err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	if st := t.tls.ConnectionState(); len(st.VerifiedChains) > 0 {
		info.Certificates = st.VerifiedChains[0]
	}
	return t, nil
}

func newConn(t transport, o Options, info PeerInfo) *Conn {
	c := &Conn{t: t, h: o.Handler, wheel: o.Wheel, auth: o.Auth, onPanic: o.OnPanic, info: info}
	c.drained.L = &c.mu
	if c.wheel != nil {
		c.seat = &seat{c}
	}
	return c
}
