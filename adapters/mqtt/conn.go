package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

// conn is one client. A goroutine of its own reads it; what is sent to it is
// appended to its output under mu.
type conn struct {
	a       *Adapter
	nc      net.Conn
	half    halfCloser           // below TLS; nil = there is none
	tls     *tls.ConnectionState // until the client is in; nil = none
	remote  netip.Addr
	counted bool // by the limit of connections per address

	// What the reader alone uses, and what does not change after CONNECT.
	in        input
	session   *adapters.Session
	who       owner
	id        string // client identifier
	claims    string // auth-id@tenant of the log-in, until the client is in
	version   byte   // 3, 4 or 5; 0 before CONNECT
	quiet     bool   // no reason strings but in CONNACK and DISCONNECT
	receive   uint16 // how many PUBLISHes the client takes before it acknowledges one
	maxSize   int    // of packets that the client takes, bytes; 0 = any
	keepAlive time.Duration
	will      *will
	last      *publication // of the last PUBLISH: the next is likely to be like it
	goodbye   bool         // a DISCONNECT came that asks for no will
	announced bool         // applications were told that the device is connected

	ending atomic.Bool // ended, for who looks often

	mu        sync.Mutex
	cond      sync.Cond // what the reader waits for: a place in flight, the end of a flush
	connected bool      // CONNACK is sent
	leaving   bool      // nothing further is taken, what is in flight is answered
	ended     bool      // nothing further is sent
	closed    bool      // our side is closed, or about to be
	back      bool      // the same client is connected anew
	untold    bool      // nobody is told that the client is gone
	lastID    uint16    // packet identifier of the last command
	why       string    // it ended
	out       output
	subs      subscriptions
	flight    flight
	commands  *commands // that have no outcome yet; nil = none
}

// run serves the client until it is gone. While a client is silent its
// goroutine waits below here: every frame on the way down is there once for each
// of many thousand clients, and a few bytes more make its stack twice as large.
func (c *conn) run(config *tls.Config) {
	c.finish(c.serve(config))
	if c.counted {
		c.a.o.Conns.Release(c.remote)
	}
	c.a.gone(c)
}

// serve handles packets until the connection ends. A panic counts as an error:
// one client must not take the others along.
func (c *conn) serve(config *tls.Config) (err error) {
	defer c.recovered(&err)
	if err := c.connect(config); err != nil {
		return err
	}
	for {
		h, body, err := c.next(c.a.maxPacket)
		if err != nil {
			return err
		}
		c.cork()
		if err := c.handle(h, body); err != nil {
			return err
		}
	}
}

func (c *conn) recovered(err *error) {
	if p := recover(); p != nil {
		c.log().Error("connection panicked", "err", fmt.Sprint(p), "stack", string(debug.Stack()))
		*err = &fault{packets.ErrUnspecifiedError.Code, "internal error"}
	}
}

// connect takes TLS and CONNECT, which have to come in time.
func (c *conn) connect(config *tls.Config) error {
	deadline := time.Now().Add(c.a.o.ConnectTimeout)
	c.nc.SetDeadline(deadline)
	if config != nil {
		t := tls.Server(c.nc, config)
		if err := c.secure(t); err != nil {
			return &tlsError{err}
		}
	}
	ctx, cancel := context.WithDeadline(c.a.ctx, deadline)
	defer cancel()
	if err := c.welcome(ctx); err != nil {
		return err
	}
	if c.keepAlive == 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.ended {
			c.nc.SetReadDeadline(time.Time{})
		}
	}
	return nil
}

// tlsError: a handshake failed, and the client may have been told why.
type tlsError struct{ error }

func (c *conn) secure(t *tls.Conn) error {
	if err := t.Handshake(); err != nil {
		return err
	}
	state := t.ConnectionState()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nc, c.tls = t, &state
	return nil
}

// errGoodbye: the client said that it goes.
var errGoodbye = errors.New("client disconnected")

// handle takes one packet of a client that is connected.
func (c *conn) handle(h header, body []byte) error {
	switch h.Type {
	case packets.Publish:
		return c.publish(h, body)
	case packets.Pingreq:
		c.reply(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingresp}}, "")
		return nil
	case packets.Subscribe:
		return c.subscribe(h, body)
	case packets.Unsubscribe:
		return c.unsubscribe(h, body)
	case packets.Puback:
		return c.acknowledged(h, body)
	case packets.Disconnect:
		return c.disconnect(h, body)
	case packets.Connect:
		return &fault{packets.ErrProtocolViolationSecondConnect.Code, "a second CONNECT"}
	case packets.Auth:
		return &fault{packets.ErrBadAuthenticationMethod.Code, "enhanced authentication is not available"}
	}
	return &fault{packets.ErrProtocolViolation.Code, "packet type " + packets.PacketNames[h.Type] + " is not expected"}
}

// disconnect takes a DISCONNECT, with which a client of MQTT 5 may still ask
// for its will.
func (c *conn) disconnect(h header, body []byte) error {
	pk := packets.Packet{FixedHeader: h.FixedHeader, ProtocolVersion: c.version}
	if err := c.decode(&pk, body); err != nil {
		return err
	}
	var code byte
	if c.version == 5 && len(body) > 0 {
		code = body[0]
	}
	c.goodbye = code != packets.CodeDisconnectWillMessage.Code
	return errGoodbye
}

// unexpired ends the connection of a client whose proof has expired (contract:
// adapters 8.9).
func (c *conn) unexpired() error {
	if c.session.Expired(time.Now()) {
		return &fault{packets.ErrNotAuthorized.Code, "the credentials have expired"}
	}
	return nil
}

// finish ends the connection after err, and waits for what it still has to do.
func (c *conn) finish(err error) {
	c.mu.Lock()
	var f *fault
	switch {
	case errors.As(err, &f):
		c.end(f.code, f.text)
	case errors.Is(err, os.ErrDeadlineExceeded) && c.connected:
		c.end(errIdle.code, errIdle.text)
	case errors.Is(err, errGoodbye):
		c.markEnded(err.Error())
	case c.told(err):
		c.markEnded(err.Error())
	default: // nobody is there any more
		c.abandon(err.Error())
	}
	c.out.corked = false
	c.kick()
	c.closeSubscriptions()
	for c.out.flushing || !c.closed {
		c.cond.Wait()
	}
	why, linger := c.why, c.half != nil && !c.out.broken
	c.mu.Unlock()
	c.debug("connection closed", "reason", why)
	if c.session != nil {
		c.leaveSession()
	}
	if linger {
		c.discard()
	}
	c.nc.Close()
	c.mu.Lock()
	for c.flight.n > 0 {
		c.cond.Wait()
	}
	c.mu.Unlock()
	c.in.drop()
}

// told reports whether the client is there and was told why it has to go.
func (c *conn) told(err error) bool {
	var t *tlsError
	return errors.Is(err, errRefused) || errors.Is(err, errConnEnded) || errors.As(err, &t)
}

// discard reads what comes until the client closes its side, or the moment is
// over: a connection that is closed with something unread is cut off, and what
// was sent last is lost.
func (c *conn) discard() {
	b := bigBuffers.Get().(*[bigBuffer]byte)
	defer bigBuffers.Put(b)
	for range maxDiscarded / bigBuffer {
		if _, err := c.nc.Read(b[:]); err != nil {
			return
		}
	}
}

// maxDiscarded bounds in bytes what is read of a connection that is closed.
const maxDiscarded = 256 << 10

// leave ends the connection once nothing of it is in flight any more.
func (c *conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving, c.untold = true, true
	c.cond.Broadcast()
	if !c.connected {
		c.abandon("adapter stops")
	} else {
		c.left()
	}
}

// left ends a connection that leaves and has nothing in flight. What a client never
// has to acknowledge is not waited for. c.mu is held.
func (c *conn) left() {
	if c.leaving && c.flight.n == 0 && (c.a.o.CommandAckTimeout < 0 || !c.commands.waited()) {
		c.end(packets.ErrServerShuttingDown.Code, "adapter stops")
	}
}

// revoke ends the connection: its device, tenant or credential is no longer valid.
func (c *conn) revoke(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// A device that lost its credentials is there, and applications are told.
	c.untold = !errors.Is(why, iot.ErrUnauthenticated)
	c.end(packets.ErrNotAuthorized.Code, shown(why))
}

// abort cuts the connection off.
func (c *conn) abort() {
	c.mu.Lock()
	nc := c.nc
	c.untold = true
	c.abandon("adapter stops")
	c.mu.Unlock()
	if a, ok := nc.(interface{ Abort() }); ok {
		a.Abort()
		return
	}
	nc.Close()
}

// debug logs what a client does wrong, or that it goes.
func (c *conn) debug(text string, args ...any) {
	if c.a.o.Logger.Enabled(context.Background(), slog.LevelDebug) {
		c.log().Debug(text, args...)
	}
}

// log names the client and nothing that is secret.
func (c *conn) log() *slog.Logger {
	l := c.a.o.Logger.With("remote", c.remote)
	if c.session != nil && !c.session.Anonymous() {
		l = l.With("tenant", c.who.tenant, "device", c.who.device)
	}
	return l
}
