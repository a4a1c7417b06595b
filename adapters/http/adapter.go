package http

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	nethttp "net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/adapters"
)

// Type is the adapter's name in tenants, metrics and messages.
const Type = "hono-http"

// Defaults of [Options].
const (
	DefaultRealm         = "Hono"
	DefaultAllowedOrigin = "*"
	DefaultIdleTimeout   = 75 * time.Second
	DefaultHeaderTimeout = 10 * time.Second
	DefaultBodyTimeout   = 30 * time.Second
)

// Bounds of one connection: bytes of a request's line and header, and for HTTP/2
// requests at a time, bytes of a frame, and bytes of bodies that nobody read yet.
const (
	maxHeaderBytes = 8 << 10
	maxStreams     = 100
	maxFrame       = 16 << 10
	maxUnread      = 128 << 10
)

// Options configure [New]. Zero values stand for the defaults above.
type Options struct {
	Pipeline *adapters.Pipeline  // required; of adapter type [Type]
	Conns    *adapters.ConnLimit // shared with other adapters; nil = one of its own

	NoAuthentication bool   // devices name themselves in the URI and prove nothing
	Realm            string // of the Basic challenge
	AllowedOrigin    string // of cross-origin requests: one origin, or * for all

	// WebSocket serves GET /mqtt with Upgrade and takes the connection over, which
	// the caller stops: Shutdown does not wait for it. Origins are checked before.
	// nil = the path leads nowhere.
	WebSocket nethttp.Handler

	IdleTimeout   time.Duration // of a kept connection; < 0 = none
	HeaderTimeout time.Duration // for TLS and for a request's header
	BodyTimeout   time.Duration // for a request's body, from its header's time on
	Logger        *slog.Logger
}

// Adapter serves devices on any number of listeners. It is an [nethttp.Handler]
// that must get every path as it came: no mux in front that cleans paths.
type Adapter struct {
	o      Options
	server *nethttp.Server

	resets   *adapters.Pacer[resetter]
	leaving  atomic.Bool   // answers say that their connection ends
	stopping chan struct{} // closed when leaving: nobody waits for a command any more
	stop     func()        // closes it

	mu    sync.Mutex
	conns map[*conn]struct{} // those that are open and not taken over
}

// leaveFor is how long a stop lets clients find out by an answer that their
// connection ends. Without it, a request that comes while its connection is being
// closed gets no answer, and its sender cannot know what became of it.
const leaveFor = 300 * time.Millisecond

// New returns an adapter that serves nothing yet.
func New(o Options) *Adapter {
	if o.Pipeline == nil {
		panic("http: New without a Pipeline")
	}
	if o.Conns == nil {
		o.Conns = adapters.NewConnLimit(0)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	orDefault(&o.Realm, DefaultRealm)
	orDefault(&o.AllowedOrigin, DefaultAllowedOrigin)
	orDefault(&o.IdleTimeout, DefaultIdleTimeout)
	orDefault(&o.HeaderTimeout, DefaultHeaderTimeout)
	orDefault(&o.BodyTimeout, DefaultBodyTimeout)
	o.Logger = o.Logger.With("adapter", Type)
	a := &Adapter{o: o, conns: make(map[*conn]struct{}), stopping: make(chan struct{}),
		resets: adapters.NewPacer[resetter](resetBurst, resetOver, resetEvery, maxResetters)}
	a.stop = sync.OnceFunc(func() { close(a.stopping) })
	a.server = &nethttp.Server{
		Handler:           a,
		ReadHeaderTimeout: o.HeaderTimeout,
		// From a request's first byte to its last, also where it is refused and its
		// body only read in order to keep the connection.
		ReadTimeout: o.HeaderTimeout + o.BodyTimeout,
		IdleTimeout: o.IdleTimeout,
		// Covers the body, the admission and the sending, each with a bound of
		// its own, and then a client that does not read its answer. A request that
		// waits for a command has more; see extend.
		WriteTimeout:   o.BodyTimeout + answerFor,
		MaxHeaderBytes: maxHeaderBytes,
		HTTP2: &nethttp.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReadFrameSize: maxFrame, WriteByteTimeout: o.BodyTimeout,
			MaxReceiveBufferPerStream: maxUnread / 2, MaxReceiveBufferPerConnection: maxUnread,
		},
		ConnState:   a.connState,
		ConnContext: withPeer,
		// What clients do wrong on a connection is not worth an operator's attention.
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	return a
}

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Serve accepts devices on ln until ctx ends, which closes ln but no
// connection, or until Shutdown; then it returns nil. With config it speaks
// TLS, of version 1.2 at least, and offers HTTP/2. It may be called for several
// listeners at the same time.
func (a *Adapter) Serve(ctx context.Context, ln net.Listener, config *tls.Config) error {
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	wrapped := net.Listener(&listener{a.o.Conns.Listener(ln)})
	if config != nil {
		wrapped = tls.NewListener(wrapped, withHTTP2(config))
	}
	err := a.server.Serve(wrapped)
	if errors.Is(err, nethttp.ErrServerClosed) || ctx.Err() != nil {
		return nil
	}
	return err
}

func withHTTP2(config *tls.Config) *tls.Config {
	config = config.Clone()
	for _, p := range []string{"h2", "http/1.1"} {
		if !slices.Contains(config.NextProtos, p) {
			config.NextProtos = append(slices.Clip(config.NextProtos), p)
		}
	}
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	return config
}

// Shutdown tells clients that use their connections that these end, for 0.3 s at
// most, closes all listeners and the connections without a request, lets uploads
// in flight finish and then closes their connections. When ctx ends first it cuts
// them off and returns ctx's error.
func (a *Adapter) Shutdown(ctx context.Context) error {
	a.leave(ctx)
	// The server would wait seconds for a connection that never sent anything.
	a.mu.Lock()
	for c := range a.conns {
		if !c.used.Load() {
			c.Close()
		}
	}
	a.mu.Unlock()
	err := a.server.Shutdown(ctx)
	if err != nil {
		a.server.Close()
	}
	return err
}

// leave answers with Connection: close while there are connections in use.
func (a *Adapter) leave(ctx context.Context) {
	a.leaving.Store(true)
	a.stop()
	ctx, cancel := context.WithTimeout(ctx, leaveFor)
	defer cancel()
	tick := time.NewTicker(leaveFor / 20)
	defer tick.Stop()
	for a.used() && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
