package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/adapters"
)

// Type is the adapter's name in tenants, metrics and messages.
const Type = "hono-mqtt"

// Defaults of [Options].
const (
	DefaultMaxInFlight    = 100
	DefaultConnectTimeout = 20 * time.Second

	DefaultCommandAckTimeout = time.Second
)

// Options configure [New]. Zero values stand for the defaults above.
type Options struct {
	Pipeline *adapters.Pipeline  // required; of adapter type [Type]
	Sessions *adapters.Sessions  // required; of the same pipeline
	Conns    *adapters.ConnLimit // shared with other adapters; nil = one of its own

	NoAuthentication bool // devices name themselves in the topic and prove nothing

	// MaxInFlight is how many messages of one connection may await their outcome;
	// at the limit no more are read.
	MaxInFlight    int
	Will           bool          // publish wills; they are accepted in any case
	ConnectTimeout time.Duration // for TLS and CONNECT

	// CommandAckTimeout is how long a client has to acknowledge a command with quality of
	// service 1; < 0 = as long as it is connected.
	CommandAckTimeout time.Duration
	ConnectionEvents  ConnectionEvents
	Presence          *adapters.Presence // required by ConnectionsSent

	Logger *slog.Logger
}

// Adapter serves devices on any number of listeners and, by
// [Adapter.WebSocket], through an HTTP server.
type Adapter struct {
	o         Options
	maxPacket int // remaining length of a packet of a client that is connected
	ctx       context.Context
	cancel    context.CancelFunc // of waiting for admissions

	wg sync.WaitGroup // connections

	mu        sync.Mutex
	stopping  bool
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	clients   map[clientKey]*conn
	wills     map[clientKey]*delayedWill
	willsOf   map[owner]int // how many of those are of one device
}

// clientKey tells clients apart: equal client identifiers of two devices have
// nothing to do with each other.
type clientKey struct {
	owner
	id string
}

// New returns an adapter that serves nothing yet.
func New(o Options) *Adapter {
	if o.Pipeline == nil || o.Sessions == nil {
		panic("mqtt: New needs Pipeline and Sessions")
	}
	if o.Conns == nil {
		o.Conns = adapters.NewConnLimit(0)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = DefaultMaxInFlight
	}
	o.MaxInFlight = min(o.MaxInFlight, maxReceive)
	if o.ConnectTimeout <= 0 {
		o.ConnectTimeout = DefaultConnectTimeout
	}
	if o.CommandAckTimeout == 0 {
		o.CommandAckTimeout = DefaultCommandAckTimeout
	}
	o.ConnectionEvents = o.ConnectionEvents.check(o.Presence)
	o.Logger = o.Logger.With("adapter", Type)
	a := &Adapter{
		o: o, maxPacket: o.Pipeline.MaxPayload() + maxHeader,
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*conn]struct{}),
		clients:   make(map[clientKey]*conn),
		wills:     make(map[clientKey]*delayedWill),
		willsOf:   make(map[owner]int),
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

// Serve accepts devices on ln until ctx ends, which closes ln but no
// connection, or until Shutdown; then it returns nil. With config it speaks
// TLS, of version 1.2 at least. It may be called for several listeners at the
// same time.
func (a *Adapter) Serve(ctx context.Context, ln net.Listener, config *tls.Config) error {
	if !a.listen(ln) {
		ln.Close()
		return nil
	}
	defer a.unlisten(ln)
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	if config != nil {
		config = config.Clone()
		config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
		config.NextProtos = nil // whatever name a client has for MQTT
	}
	pause := acceptPause{}
	for {
		nc, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || a.isStopping() {
				return nil
			}
			if !pause.wait(ctx, err) {
				return err
			}
			a.o.Logger.Warn("no connection accepted", "err", err)
			continue
		}
		pause = acceptPause{}
		a.accepted(nc, config)
	}
}

// keepAlive finds peers that are gone without a word where the client has no
// keep-alive of its own. Seldom: each probe wakes a radio.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Minute, Interval: time.Minute, Count: 5}

// accepted starts serving nc, unless its address has too many connections.
func (a *Adapter) accepted(nc net.Conn, config *tls.Config) {
	remote := adapters.RemoteAddr(nc.RemoteAddr().String())
	if !a.o.Conns.Acquire(remote) {
		nc.Close()
		return
	}
	c := &conn{a: a, nc: nc, remote: remote, counted: true}
	c.half, _ = nc.(halfCloser)
	if t, ok := nc.(*net.TCPConn); ok {
		t.SetKeepAliveConfig(keepAlive)
	}
	c.cond.L = &c.mu
	if !a.open(c) {
		a.o.Conns.Release(remote)
		nc.Close()
		return
	}
	go c.run(config)
}

// open takes c in; false once the adapter stops.
func (a *Adapter) open(c *conn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopping {
		return false
	}
	a.conns[c] = struct{}{}
	a.wg.Add(1)
	return true
}

// gone forgets c. It is the last thing that a connection does.
func (a *Adapter) gone(c *conn) {
	a.mu.Lock()
	delete(a.conns, c)
	a.mu.Unlock()
	a.wg.Done()
}

func (a *Adapter) listen(ln net.Listener) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.stopping {
		a.listeners[ln] = struct{}{}
	}
	return !a.stopping
}

func (a *Adapter) unlisten(ln net.Listener) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.listeners, ln)
}

func (a *Adapter) isStopping() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stopping
}

// acceptPause waits longer and longer while a listener fails for reasons that
// pass, such as too many open files.
type acceptPause struct{ last time.Duration }

func (p *acceptPause) wait(ctx context.Context, err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	p.last = min(max(2*p.last, 5*time.Millisecond), time.Second)
	t := time.NewTimer(p.last)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return true
}
