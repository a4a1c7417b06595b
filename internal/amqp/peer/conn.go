package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
)

const (
	// unsentStop is how much may wait to be written before reading stops.
	unsentStop = 320 * 1024
	// holdStop is how much of what a peer sent may wait for others before
	// reading from it stops.
	holdStop = 2 * 1024 * 1024
	// stallTimeout closes a connection whose peer takes nothing for so long.
	stallTimeout = 10 * time.Second
	// handshakeTimeout bounds the time from accept to open.
	handshakeTimeout = 10 * time.Second
	// authTimeout bounds one SASL step.
	authTimeout = 5 * time.Second
	// closeTimeout bounds how long the peer's close is awaited.
	closeTimeout = time.Second
)

// PeerInfo is what is known of a peer before it says who it is.
type PeerInfo struct {
	RemoteAddr   string
	TLS          bool
	Certificates []*x509.Certificate // verified client certificate chain, leaf first
	Local        any                 // the identity of a peer in this process, for pipes
}

// Handler gets what happens on connections. Its methods are called from the
// connection's reading goroutine (Writable also from others) without any lock held.
type Handler interface {
	// Handle gets the events of one batch of input, in order. They and the bytes
	// in them live until it returns.
	Handle(b *Batch, c *Conn, events []Event)
	// Writable tells that sends which were refused with NotNow, because too much
	// output was waiting, may be tried again.
	Writable(b *Batch, c *Conn)
	// Closed is the last call for a connection that was opened (EventOpen); Handle
	// was given the detach of every link before. err is nil after an orderly close.
	Closed(b *Batch, c *Conn, err error)
}

// Options of a connection.
type Options struct {
	Config  Config
	Handler Handler
	Wheel   *Wheel                    // serves heartbeats; required
	TLS     *tls.Config               // nil = none
	Auth    Authenticator             // server
	Login   Login                     // client
	Local   any                       // server, for pipes: PeerInfo.Local
	OnPanic func(v any, stack []byte) // a handler panicked: the connection is closed; nil = ignored
}

// Conn is an engine on a transport.
type Conn struct {
	// Data belongs to the owner.
	Data any

	mu       sync.Mutex
	e        *Engine
	dirty    bool // somebody owes a flush
	flushing bool // somebody writes
	closed   bool
	drained  sync.Cond    // unsent output or the charge shrank, or closed
	held     atomic.Int64 // see Hold

	t        transport
	h        Handler
	wheel    *Wheel
	seat     *seat // on the wheel
	auth     Authenticator
	onPanic  func(any, []byte)
	info     PeerInfo
	identity any
	exchange Exchange
	opened   bool
}

// Lock locks the connection's engine and everything that belongs to it.
func (c *Conn) Lock() { c.mu.Lock() }

// Unlock unlocks it.
func (c *Conn) Unlock() { c.mu.Unlock() }

// Hold charges the connection with n bytes that its owner keeps for what the
// peer sent, or takes the charge back when n is negative. Reading stops while
// it is over holdStop. It needs no lock.
func (c *Conn) Hold(n int) {
	if was := c.held.Add(int64(n)) - int64(n); was > holdStop && was+int64(n) <= holdStop {
		c.mu.Lock()
		c.drained.Broadcast()
		c.mu.Unlock()
	}
}

// Held is what the connection is charged with, in bytes.
func (c *Conn) Held() int { return int(c.held.Load()) }

// Engine returns the engine; call its methods with the lock held.
func (c *Conn) Engine() *Engine { return c.e }

// Identity is what the Authenticator made of the peer.
func (c *Conn) Identity() any { return c.identity }

// Info tells about the peer.
func (c *Conn) Info() *PeerInfo { return &c.info }

// serve is the reading goroutine.
func (c *Conn) serve(ctx context.Context) (err error) {
	stop := context.AfterFunc(ctx, func() { c.t.Close() })
	defer stop()
	b := &Batch{}
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
			c.tellPanic(v)
		}
		err = c.end(b, err)
	}()
	c.t.SetReadDeadline(time.Now().Add(handshakeTimeout))
	c.mu.Lock()
	b.Touch(c) // a client has something to say first
	done := c.e.Done()
	c.mu.Unlock()
	if done {
		return nil // closed before it began
	}
	b.Flush()
	return c.read(ctx, b)
}

// read takes batch after batch until the connection ends.
func (c *Conn) read(ctx context.Context, b *Batch) error {
	var rest []byte
	for {
		buf, err := c.t.Read(rest)
		if err != nil {
			return err
		}
		n, err := c.batch(ctx, buf, b)
		rest = rest[:0]
		if n < len(buf) {
			rest = append(rest, buf[n:]...)
		} else if cap(rest) > 4096 {
			rest = nil
		}
		putBuffer(buf)
		if err != nil {
			return err
		}
		if c.waitDrained() {
			return nil
		}
	}
}

// batch handles what one read brought and returns how much of it was used up.
func (c *Conn) batch(ctx context.Context, buf []byte, b *Batch) (n int, err error) {
	fx := effects.Get().(*Effects)
	defer putEffects(fx)
	for {
		k, auth, ierr := c.input(buf[n:], b, fx)
		n += k
		if len(fx.Events) > 0 {
			c.handle(b, fx)
		}
		if auth {
			ierr = c.authenticate(ctx, b)
		}
		if ierr != nil || !auth {
			b.Flush()
			return n, ierr
		}
	}
}

// input gives the engine what came and reports whether the owner has to answer a
// SASL step. A panic leaves no lock behind.
func (c *Conn) input(buf []byte, b *Batch, fx *Effects) (n int, auth bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err = c.e.Input(buf, time.Now(), fx)
	if c.e.HasOutput() || c.t.Pending() {
		b.Touch(c)
	}
	return n, err == nil && c.e.NeedsAuth(), err
}

func (c *Conn) handle(b *Batch, fx *Effects) {
	if !c.opened && fx.Events[0].Kind == EventOpen {
		c.opened = true
		c.handshakeDone(b)
	}
	c.h.Handle(b, c, fx.Events)
	fx.Reset()
}

// waitDrained stops reading while too much is unsent, or held for others, and
// reports whether the connection is done.
func (c *Conn) waitDrained() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.e.Choked() && !c.closed && c.flushing {
		c.drained.Wait()
	}
	if c.held.Load() > holdStop && !c.closed {
		// A peer that waits for itself would wait for ever.
		stalled := time.AfterFunc(stallTimeout, func() { c.Abort() })
		for c.held.Load() > holdStop && !c.closed {
			c.drained.Wait()
		}
		stalled.Stop()
	}
	return c.closed || c.e.Done()
}

// authenticate answers one SASL step, which may take time. It returns an error
// when the dialogue failed.
func (c *Conn) authenticate(ctx context.Context, b *Batch) error {
	c.mu.Lock()
	chosen, response, first := c.e.sasl.chosen, c.e.sasl.response, c.e.sasl.first
	c.e.sasl.response = nil
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, authTimeout)
	defer cancel()
	var challenge []byte
	var identity any
	var err error
	if first {
		c.exchange, err = c.auth.Begin(&c.info, chosen)
	}
	if err == nil {
		challenge, identity, err = c.exchange.Step(ctx, response)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b.Touch(c)
	if err == nil && challenge != nil {
		if c.e.sasl.steps++; c.e.sasl.steps <= maxSASLSteps {
			c.e.Challenge(challenge)
			return nil
		}
		err = &AuthError{amqp.SASLAuth}
	}
	c.exchange = nil
	if err == nil {
		c.identity = identity
		if l, ok := c.auth.(Limiter); ok {
			l.Limit(identity, &c.e.cfg)
		}
	}
	c.e.Authenticated(err)
	return err
}

// end says what is left to say, tells the owner and closes the transport.
func (c *Conn) end(b *Batch, err error) error {
	fx := &Effects{}
	c.mu.Lock()
	c.e.Abandon(fx)
	if closeErr := c.e.CloseError(); closeErr != nil && (err == nil || errors.Is(err, os.ErrDeadlineExceeded)) {
		err = closeErr
	}
	c.closed = true
	b.Touch(c)
	c.drained.Broadcast()
	c.mu.Unlock()
	if c.wheel != nil {
		c.wheel.leave(c.seat)
	}
	// A peer that reads slowly gets as long for our last words as it has for its own.
	late := time.AfterFunc(closeTimeout, func() { c.t.Close() })
	defer late.Stop()
	b.Flush()
	if c.opened {
		c.lastWords(b, fx, err)
	}
	c.linger()
	c.t.Close()
	return err
}

// lastWords gives the owner the final events; a panic there must not leave
// the rest of the clean-up undone.
func (c *Conn) lastWords(b *Batch, fx *Effects, err error) {
	defer func() {
		if v := recover(); v != nil {
			c.tellPanic(v)
		}
		b.Flush()
	}()
	// Closed follows also when Handle panics: the owner frees things there.
	defer c.h.Closed(b, c, err)
	if len(fx.Events) > 0 {
		c.h.Handle(b, c, fx.Events)
	}
}

func (c *Conn) tellPanic(v any) {
	if c.onPanic != nil {
		c.onPanic(v, debug.Stack())
	}
}

// writable tells the owner. It may run on any goroutine, so a panic must not
// reach that.
func (c *Conn) writable(b *Batch) {
	defer func() {
		if v := recover(); v != nil {
			c.tellPanic(v)
			c.t.Close()
		}
	}()
	c.h.Writable(b, c)
}

// linger lets the peer read our last words: closing a socket that has unread
// input throws away what was written.
func (c *Conn) linger() {
	c.mu.Lock()
	for c.flushing {
		c.drained.Wait()
	}
	c.flushing = true // for good: nobody else writes any more
	c.mu.Unlock()
	c.t.CloseWrite()
	c.t.SetReadDeadline(time.Now().Add(closeTimeout / 4))
	for range 64 {
		buf, err := c.t.Read(nil)
		if err != nil {
			return
		}
		putBuffer(buf)
	}
}

// Close closes the connection with an error, which may be nil, and does not
// wait: Serve returns when the peer has answered or a little more than a second
// has passed.
func (c *Conn) Close(err *amqp.Error) {
	var b Batch
	c.mu.Lock()
	c.e.Close(err)
	b.Touch(c)
	wait := closeTimeout
	if c.e.Done() {
		wait = 0
	}
	c.drained.Broadcast()
	c.mu.Unlock()
	b.Flush()
	c.t.SetReadDeadline(time.Now().Add(wait))
}

// Abort ends the connection at once without a word.
func (c *Conn) Abort() {
	c.t.Close()
	c.mu.Lock()
	c.closed = true
	c.drained.Broadcast()
	c.mu.Unlock()
}

// handshakeDone lifts the handshake's deadline and asks the wheel to look at the
// connection when time demands.
func (c *Conn) handshakeDone(b *Batch) {
	c.t.SetReadDeadline(time.Time{})
	c.mu.Lock()
	next, output := c.e.Tick(time.Now())
	if output {
		b.Touch(c)
	}
	closing := c.e.phase >= phaseClosing
	c.mu.Unlock()
	if closing { // and its deadline may have been the one that was lifted
		c.t.SetReadDeadline(time.Now().Add(closeTimeout))
	}
	if !next.IsZero() && c.wheel != nil {
		c.wheel.add(c.seat, next)
	}
}

// tick is the wheel's call.
func (c *Conn) tick(now time.Time, b *Batch) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	next, output := c.e.Tick(now)
	done := c.e.Done()
	if output {
		b.Touch(c)
	}
	if done {
		c.drained.Broadcast()
	}
	c.mu.Unlock()
	if done {
		// The peer is silent: give our close a moment to leave, then wake the reader.
		c.t.SetReadDeadline(now.Add(closeTimeout / 4))
		return
	}
	if !next.IsZero() {
		c.wheel.add(c.seat, next)
	}
}
