package service

import (
	"context"
	"log/slog"
	"maps"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/forward"
)

const (
	// DefaultTimeout is how long one request may take, its turn included.
	DefaultTimeout = 5 * time.Second
	// maxWorking is how many calls are made at a time, and maxWorkingPerConn for
	// one connection, so that a slow tenant's requests leave room for others'.
	maxWorking        = 256
	maxWorkingPerConn = 64
	// maxWaiting is how many requests there are at a time, those being worked on
	// included; more are released.
	maxWaiting = 16384
	// waitingShare is how many times what is left of that who asks may have, with all his
	// connections: alone three quarters. Else one kept the requests of all others out.
	waitingShare = 3
	// requestCost is what a request costs beside its bytes. A connection is charged
	// with it, so that one with a thousand requests in flight is not read from
	// (see [peer.Conn.Hold]).
	requestCost = 2048
)

// Options of a server. Invoker and May are required.
type Options struct {
	Invoker events.Invoker
	// May reports whether the peer of a connection, as it is now, may have an
	// operation done at an address, such as get at tenant/T.
	May func(c *peer.Conn, address, operation string) bool
	// Caller names who is behind a connection; nil = each is somebody.
	Caller func(c *peer.Conn) string
	// Asserts reports whether the peer's answers of the Device Registration API
	// carry the assertion; nil = nobody's do.
	Asserts func(c *peer.Conn) bool
	// Commands does what is asked of cmd_router/T; nil = that is answered with 503.
	Commands CommandRouter
	Timeout  time.Duration // 0 = DefaultTimeout
	Logger   *slog.Logger  // nil = discard
}

// Server answers requests. Safe for concurrent use.
type Server struct {
	o       Options
	working chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc

	mu      sync.Mutex
	waiting int
	shares  map[any]int // how many of these each caller has
	callers map[*peer.Conn]*turns
	closing bool
	counts  map[Kind]int64
	flying  sync.WaitGroup
}

// Kind is what requests are counted by.
type Kind struct {
	Endpoint string // Tenant, Registration, Credentials or Commands
	Status   string // of the reply, or rejected, or released where there were too many
}

// turns are the calls that one connection may have made at a time.
type turns struct {
	taken    chan struct{}
	requests int // that are in flight
	caller   any
}

var _ forward.Service = (*Server)(nil)

// New returns a server; [Server.Close] ends it.
func New(o Options) *Server {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{o: o, working: make(chan struct{}, maxWorking), shares: map[any]int{}, callers: map[*peer.Conn]*turns{}, counts: map[Kind]int64{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Request implements [forward.Service].
func (s *Server) Request(q *forward.Request) {
	req, refused := parse(q.Address, q.Message)
	if refused != nil {
		s.count(q.Address, "rejected")
		q.Settle(amqp.AppendRejected(nil, refused))
		q.Done()
		return
	}
	mine := s.enter(q.Conn)
	if mine == nil {
		s.count(q.Address, "released")
		q.Settle(amqp.StateReleased)
		q.Done()
		return
	}
	q.Settle(amqp.StateAccepted)
	q.Unsettled = true // clients of Hono's services settle each reply
	cost := len(q.Message) + requestCost
	q.Conn.Hold(cost)
	go func() {
		defer s.leave(q.Conn)
		defer q.Conn.Hold(-cost)
		defer q.Done()
		s.respond(q, req, mine)
	}()
}

// enter counts a request of c and returns the turns of that connection, nil when
// there are too many requests, or no more are taken.
func (s *Server) enter(c *peer.Conn) *turns {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.callers[c]
	if t == nil {
		t = &turns{taken: make(chan struct{}, maxWorkingPerConn), caller: s.caller(c)}
	}
	left := maxWaiting - s.waiting
	if s.closing || left <= 0 || s.shares[t.caller] >= waitingShare*left {
		return nil
	}
	s.callers[c] = t
	t.requests++
	s.shares[t.caller]++
	s.waiting++
	s.flying.Add(1)
	return t
}

// caller is who is behind a connection.
func (s *Server) caller(c *peer.Conn) any {
	if s.o.Caller == nil {
		return c
	}
	return s.o.Caller(c)
}

func (s *Server) leave(c *peer.Conn) {
	s.mu.Lock()
	s.waiting--
	t := s.callers[c]
	if s.shares[t.caller]--; s.shares[t.caller] == 0 {
		delete(s.shares, t.caller)
	}
	if t.requests == 1 {
		delete(s.callers, c)
	} else {
		t.requests--
	}
	s.mu.Unlock()
	s.flying.Done()
}

// respond works on a request and replies, if there is somebody to reply to.
func (s *Server) respond(q *forward.Request, req *request, mine *turns) {
	if !req.repliable() || !q.Reachable(req.replyTo) {
		s.o.Logger.Debug("request without a reply link", "address", req.address, "operation", req.operation)
		return
	}
	if message := s.reply(q.Conn, req, mine); !q.Reply(req.replyTo, message) {
		s.o.Logger.Debug("reply not taken", "address", req.address, "operation", req.operation, "bytes", len(message))
	}
}

// reply is the encoded answer to a request, in time.
func (s *Server) reply(c *peer.Conn, req *request, mine *turns) []byte {
	ctx, cancel := context.WithTimeout(s.ctx, s.o.Timeout)
	defer cancel()
	a := s.perform(ctx, c, req, mine)
	message, err := encode(req, &a)
	if err != nil {
		s.o.Logger.Error("reply does not encode", "address", req.address, "operation", req.operation, "err", err)
		a = failed(500, "internal error")
		message, _ = encode(req, &a)
	}
	s.count(req.address, strconv.Itoa(int(a.status)))
	return message
}

// count counts a request. There are few endpoints and few statuses.
func (s *Server) count(address, status string) {
	endpoint, _, _ := strings.Cut(address, "/")
	s.mu.Lock()
	s.counts[Kind{endpoint, status}]++
	s.mu.Unlock()
}

// Counts returns how many requests there were since the start.
func (s *Server) Counts() map[Kind]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.counts)
}

// perform decides on a request in the order of messaging 2.3, and waits for its turn.
func (s *Server) perform(ctx context.Context, c *peer.Conn, q *request, mine *turns) (a answer) {
	defer func() {
		if v := recover(); v != nil {
			// The value may hold what the request held, so it is not logged.
			s.o.Logger.Error("panic in a request", "address", q.address, "operation", q.operation, "stack", string(debug.Stack()))
			a = failed(500, "internal error")
		}
	}()
	endpoint, _, scoped := strings.Cut(q.address, "/")
	named := canonical(endpoint, q.operation)
	if scoped && !s.o.May(c, q.address, q.operation) && (named == q.operation || !s.o.May(c, q.address, named)) {
		return forbidden(q)
	}
	f := operations[endpoint][named]
	if f == nil {
		return failed(400, "unknown operation %.64q", q.operation)
	}
	for _, turn := range [...]chan struct{}{mine.taken, s.working} {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-ctx.Done():
			return failure(iot.Errorf(iot.ErrUnavailable, "too many requests at once"))
		}
	}
	return f(s, ctx, c, q)
}

// Shutdown takes no more requests and waits for those in flight, but no longer
// than ctx; then they are given up.
func (s *Server) Shutdown(ctx context.Context) {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.flying.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	s.cancel()
	<-done
}

// Close gives up what is in flight and waits until it has ended.
func (s *Server) Close() {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	s.Shutdown(ended)
}
