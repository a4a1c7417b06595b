package router

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/router/cbs"
	"github.com/sluice-iot/sluice/router/forward"
	"github.com/sluice-iot/sluice/router/manage"
	"github.com/sluice-iot/sluice/router/service"
	"github.com/sluice-iot/sluice/router/stored"
)

// What the router announces to every peer (contract: messaging 1.1).
const (
	maxFrameSize   = 16 * 1024
	idleTimeout    = 20 * time.Second
	maxMessageSize = 1 << 20 // of deliveries that are put together; others have no bound
	incomingWindow = 512     // transfer frames: what may wait for a stalled receiver
	channelMax     = 1023
)

// Options of a router. Directory is needed where applications are served.
type Options struct {
	Name      string          // container-id
	Directory *auth.Directory // applications
	Verifier  *assertion.Verifier
	Addresses []config.Address // what is there besides Hono's addresses, or instead
	Invoker   events.Invoker   // answers tenant, registration/T and credentials/T, and what commands need to know; nil = they are not there, and command/T is for whoever receives there
	Tokens    cbs.Tokens       // given out at cbs; nil = it is not there
	Events    *stored.Options  // keeps what is sent to event/T; nil = those addresses are closed to senders. Router and Logger are set here
	Logger    *slog.Logger
}

// Router accepts connections and decides what they may do.
type Router struct {
	name      string
	directory *auth.Directory
	verifier  *assertion.Verifier
	log       *slog.Logger
	forward   *forward.Router
	wheel     *peer.Wheel
	patterns  patterns
	node      *manage.Node
	usage     *usage
	standing  *standing
	services  *service.Server // nil = no service addresses
	tokens    *cbs.Node       // nil = no cbs
	events    *stored.Server  // nil = no event store
	commands  *commands       // nil = commands are not routed

	strangers strangers

	mu        sync.Mutex
	perName   map[string]int // connections of each identity
	listeners []*listener
	// acceptedPast counts the connections of listeners that are gone, by role.
	acceptedPast map[string]int64
}

// New returns a router; it serves once Run and Serve are called.
func New(o Options) *Router {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Router{name: o.Name, directory: o.Directory, verifier: o.Verifier, log: o.Logger,
		wheel: peer.NewWheel(), patterns: newPatterns(o.Addresses, o.Events != nil), standing: newStanding(), perName: map[string]int{}, acceptedPast: map[string]int64{}}
	r.forward = forward.New(r)
	r.usage = newUsage(r.patterns)
	r.forward.OnGone(r.usage.gone)
	if o.Events != nil {
		e := *o.Events
		e.Router, e.Logger = r.forward, o.Logger
		r.events = stored.New(e)
	}
	r.node = r.newNode()
	if o.Invoker != nil {
		r.commands = r.newCommands(&o)
		r.services = service.New(service.Options{Invoker: o.Invoker, Commands: r.commands.foreign, May: r.mayOperate, Caller: callerOf, Asserts: r.wantsAssertion, Logger: o.Logger})
	}
	if o.Tokens != nil {
		r.tokens = cbs.New(o.Tokens, r.identity, o.Logger)
	}
	return r
}

// Run keeps the connections' time, and closes those that lose their right, until
// ctx ends. Requests to services are given up then.
func (r *Router) Run(ctx context.Context) {
	var following sync.WaitGroup
	following.Go(func() { r.follow(ctx) })
	if r.commands != nil {
		following.Go(func() { r.commands.run(ctx) })
	}
	r.wheel.Run(ctx)
	following.Wait()
	if r.services != nil {
		r.services.Close()
	}
}

// Stats sums up what became of deliveries since the start.
func (r *Router) Stats() forward.Counts { return r.forward.Stats() }

// Counts returns how many connections and addresses there are.
func (r *Router) Counts() (connections, addresses int) { return r.forward.Counts() }

// Listener is a socket on which the router accepts peers.
type Listener struct {
	net.Listener             // plain TCP; TLS is made by the router
	TLS          *tls.Config // nil = plain text
	Components   bool        // components only, by client certificate
	Mechanisms   []string    // offered to applications; empty = those of [auth.Directory.Mechanisms]
	Scope        Scope       // what is served there
}

// Serve accepts until ctx ends or the listener is closed, and waits for its
// connections.
func (r *Router) Serve(ctx context.Context, l Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	d := &door{r: r, components: l.Components, secure: l.TLS != nil, mechanisms: l.Mechanisms, scope: l.Scope}
	seen := r.listen(l)
	defer r.unlisten(seen)
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Out of descriptors, or a peer that was gone at once: neither ends the listener.
			r.log.Warn("accept", "err", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		if !r.strangers.admit(c.RemoteAddr().String()) {
			c.Close()
			continue
		}
		conns.Go(func() {
			defer seen.accept()()
			r.serveConn(ctx, c, d, l.TLS)
		})
	}
}

// serveConn keeps little on its stack: that is what an idle connection costs.
//
//go:noinline
func (r *Router) serveConn(ctx context.Context, nc net.Conn, d *door, conf *tls.Config) {
	c, err := r.accept(ctx, nc, d, conf)
	if err == nil {
		c.Data = stranger(d.scope)
		err = c.Serve(ctx)
	}
	unknown := c == nil
	if !unknown {
		_, unknown = c.Data.(stranger)
	}
	if unknown {
		r.strangers.known(nc.RemoteAddr().String())
	}
	r.ended(err, nc.RemoteAddr().String())
}

// accept has the options on its stack while it runs, and only then.
//
//go:noinline
func (r *Router) accept(ctx context.Context, nc net.Conn, d *door, conf *tls.Config) (*peer.Conn, error) {
	o := r.options(d, conf)
	return peer.NewServerConn(ctx, nc, &o)
}

// ServePipe serves a component of this process over an in-memory connection.
func (r *Router) ServePipe(ctx context.Context, p *peer.Pipe, id *auth.Identity) {
	o := r.options(&door{r: r}, nil)
	o.Local = id
	r.ended(peer.AcceptPipe(ctx, p, o, nil), "in-process")
}

func (r *Router) ended(err error, remote string) {
	switch {
	case err == nil:
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, net.ErrClosed):
		// Peers come and go as they like.
		r.log.Debug("connection ended", "remote", remote, "err", err)
	default:
		r.log.Info("connection ended", "remote", remote, "err", err)
	}
}

func (r *Router) options(d *door, conf *tls.Config) peer.Options {
	return peer.Options{
		Config: peer.Config{
			ContainerID: r.name, MaxFrameSize: maxFrameSize, ChannelMax: channelMax,
			OfferedCapabilities: d.scope.capabilities(),
			IdleTimeout:         idleTimeout, MaxMessageSize: maxMessageSize,
			IncomingWindow: incomingWindow,
		},
		Handler: (*handler)(r), Wheel: r.wheel, TLS: conf, Auth: d,
		OnPanic: func(v any, stack []byte) { r.log.Error("panic on a connection", "panic", v, "stack", string(stack)) },
	}
}

// identity is what the peer of c may do now: an application's is looked up
// anew, because the identities file may have changed.
func (r *Router) identity(c *peer.Conn) *auth.Identity {
	id, _ := c.Identity().(*auth.Identity)
	if r.directory == nil {
		return id
	}
	return r.directory.Refresh(id)
}

// Shutdown stops giving credit, lets what is in flight settle until ctx ends,
// and closes every connection.
func (r *Router) Shutdown(ctx context.Context) {
	if r.commands != nil {
		r.commands.server.Shutdown()
	}
	r.answerLast(ctx)
	if left := r.forward.Shutdown(ctx); left > 0 {
		r.log.Warn("deliveries were left unsettled", "deliveries", left)
	}
	if r.events != nil {
		r.events.Close(ctx)
	}
}

// handler counts connections before it hands everything to the forwarder.
type handler Router

// Handle implements [peer.Handler]. What was decided while the identities changed
// is reviewed, because the review of that change may not have seen it.
func (h *handler) Handle(b *peer.Batch, c *peer.Conn, events []peer.Event) {
	version := (*Router)(h).Version()
	if events[0].Kind == peer.EventOpen {
		h.opened(b, c)
	}
	h.forward.Handle(b, c, events)
	if (*Router)(h).Version() != version {
		h.standing.lookAgain()
	}
}

func (h *handler) opened(b *peer.Batch, c *peer.Conn) {
	if s, ok := c.Data.(stranger); ok {
		c.Data = Scope(s)
		h.strangers.known(c.Info().RemoteAddr)
	}
	id, _ := c.Identity().(*auth.Identity)
	if id == nil {
		return
	}
	h.mu.Lock()
	h.perName[id.Name]++
	n := h.perName[id.Name]
	h.mu.Unlock()
	h.standing.opened(c, id, scopeOf(c))
	var refused *amqp.Error
	if limit := id.Limits.Connections; limit > 0 && n > limit {
		refused = &amqp.Error{Condition: amqp.CondResourceLimitExceeded, Description: "too many connections"}
	}
	if (*Router)(h).identity(c) == nil { // it was when it logged in
		refused = errIdentityGone
	}
	if refused != nil {
		c.Close(refused) // and wait no longer for the answer than for any other
	}
}

// Writable implements [peer.Handler].
func (h *handler) Writable(b *peer.Batch, c *peer.Conn) { h.forward.Writable(b, c) }

// Closed implements [peer.Handler].
func (h *handler) Closed(b *peer.Batch, c *peer.Conn, err error) {
	if id, _ := c.Identity().(*auth.Identity); id != nil {
		h.mu.Lock()
		if h.perName[id.Name]--; h.perName[id.Name] == 0 {
			delete(h.perName, id.Name)
		}
		h.mu.Unlock()
	}
	h.standing.closed(c)
	h.forward.Closed(b, c, err)
}
