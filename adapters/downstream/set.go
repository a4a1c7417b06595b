package downstream

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/iot"
)

// The values in force where Options leave them at zero (contract:
// configuration 1).
const (
	DefaultCreditWait  = 200 * time.Millisecond
	DefaultSendTimeout = time.Second
	DefaultMaxWaiting  = 1000
	DefaultLinkIdle    = 5 * time.Minute

	DefaultResponseIdle = 10 * time.Second
	DefaultMaxResponses = 1000
)

// closeGrace is how long closing connections may take at the end of Run.
const closeGrace = 500 * time.Millisecond

// Options configure [New].
type Options struct {
	Routers     []Router
	Instance    string        // container-id of this adapter; required
	Login       peer.Login    // for routers without one of their own; zero = EXTERNAL
	CreditWait  time.Duration // how long a message waits for credit; 0 = 200 ms
	SendTimeout time.Duration // how long an outcome is awaited, from sending; 0 = 1 s
	MaxWaiting  int           // messages that may wait for credit at once; 0 = 1000. A fiftieth may at each address, whatever waits elsewhere
	LinkIdle    time.Duration // links unused for so long are detached; 0 = 5 min

	ResponseIdle time.Duration // LinkIdle of links for command responses; 0 = 10 s
	MaxResponses int           // addresses of command responses at a time, of which the longest unused gives way, and one tenant has three quarters at most; 0 = 1000

	Logger *slog.Logger // nil = silent
	// Notices is told of changes of the registry; nil = nobody is.
	Notices adapters.NoticeHandler
	// Commands takes commands and knows the subscriptions that routers are told of; nil =
	// this process has none.
	Commands adapters.CommandHandler
	// Address is that of this process on routers, which must be no other's: commands
	// come by command_internal/<Address>. Required with Commands.
	Address string
	OnPanic func(v any, stack []byte)
	Resolve Resolver // nil = the system's
}

// Set is a set of routers. Safe for concurrent use.
type Set struct {
	o       Options
	log     *slog.Logger
	routers []*router
	wheel   *peer.Wheel

	ready atomic.Pointer[view]

	mu       sync.Mutex // guards what follows and changes of ready
	conns    map[*conn]struct{}
	closed   bool
	followed int // connections by which all notices come

	targetMu sync.RWMutex
	targets  map[key]*target

	responses responses
	directory directory

	commandAddress string // by which commands come

	waitMu  sync.Mutex
	waiters map[*target]struct{} // targets at which messages wait
	waiting atomic.Int64         // messages that wait

	started  atomic.Bool
	stopping atomic.Bool
	active   atomic.Int64  // messages under way
	idle     chan struct{} // told when active falls to 0 while stopping
	began    time.Time

	deliveries, scratches sync.Pool // of *delivery and *scratch
}

var _ adapters.Downstream = (*Set)(nil)

// view is the ready connections at one time; it is never changed.
type view struct {
	gen   uint64
	conns []*conn
}

// New checks the options and returns a set that connects once it runs.
func New(o Options) (*Set, error) {
	if len(o.Routers) == 0 {
		return nil, errors.New("downstream: no router is configured")
	}
	if o.Instance == "" {
		return nil, errors.New("downstream: Options.Instance is empty")
	}
	if o.Commands != nil && o.Address == "" {
		return nil, errors.New("downstream: Options.Address is empty: commands need one")
	}
	if o.Login.Mechanism == "" {
		o.Login = peer.ExternalLogin()
	}
	orDefault(&o.CreditWait, DefaultCreditWait)
	orDefault(&o.SendTimeout, DefaultSendTimeout)
	orDefault(&o.MaxWaiting, DefaultMaxWaiting)
	orDefault(&o.LinkIdle, DefaultLinkIdle)
	orDefault(&o.ResponseIdle, DefaultResponseIdle)
	orDefault(&o.MaxResponses, DefaultMaxResponses)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Resolve == nil {
		o.Resolve = systemResolver
	}
	s := &Set{
		o: o, log: o.Logger, wheel: peer.NewWheel(),
		conns: map[*conn]struct{}{}, targets: map[key]*target{}, waiters: map[*target]struct{}{},
		idle: make(chan struct{}, 1), began: time.Now(),
	}
	s.ready.Store(&view{gen: 1})
	s.commandAddress = commandInternal + o.Address
	s.directory.s, s.directory.wake = s, make(chan struct{}, 1)
	s.responses.byAddress, s.responses.tenants = map[string]*list.Element{}, map[iot.TenantID]int{}
	for i, r := range o.Routers {
		rt, err := newRouter(s, r)
		if err != nil {
			return nil, fmt.Errorf("downstream: router %d: %w", i+1, err)
		}
		s.routers = append(s.routers, rt)
	}
	return s, nil
}

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Ready implements adapters.Downstream.
func (s *Set) Ready() bool { return s.Connected() > 0 && !s.stopping.Load() }

// Connected is the number of connections to routers that are usable.
func (s *Set) Connected() int { return len(s.ready.Load().conns) }

// Run connects and keeps the connections until ctx ends. Then it refuses new
// messages, lets those under way finish for up to SendTimeout, closes the
// connections and waits for everything it started. It is called once.
func (s *Set) Run(ctx context.Context) error {
	if !s.started.CompareAndSwap(false, true) {
		return errors.New("downstream: Run was called before")
	}
	// Connections outlive ctx, so that what is under way can finish.
	hard, abort := context.WithCancel(context.WithoutCancel(ctx))
	var aside, keepers sync.WaitGroup
	aside.Go(func() { s.wheel.Run(hard) })
	aside.Go(func() { sweep(hard, s.o.LinkIdle, s.sweepOnce) })
	aside.Go(func() { sweep(hard, s.o.ResponseIdle, s.sweepResponses) })
	aside.Go(func() { s.directory.run(hard) })
	for _, r := range s.routers {
		keepers.Go(func() { r.run(ctx, hard) })
	}
	<-ctx.Done()
	s.stopping.Store(true)
	s.settleDown(s.o.SendTimeout)
	s.closeAll()
	late := time.AfterFunc(closeGrace, abort)
	keepers.Wait()
	late.Stop()
	s.endAll()
	abort()
	aside.Wait()
	s.settleDown(s.o.SendTimeout)
	return nil
}

// enter counts a message in, unless the set is stopping.
func (s *Set) enter() bool {
	s.active.Add(1)
	if s.stopping.Load() {
		s.leave()
		return false
	}
	return true
}

func (s *Set) leave() {
	if s.active.Add(-1) == 0 && s.stopping.Load() {
		select {
		case s.idle <- struct{}{}:
		default:
		}
	}
}

// settleDown waits until no message is under way, for at most limit.
func (s *Set) settleDown(limit time.Duration) {
	t := time.NewTimer(limit)
	defer t.Stop()
	for s.active.Load() > 0 {
		select {
		case <-s.idle:
		case <-t.C:
			return
		}
	}
}

// track remembers a connection for closeAll; false when it is too late for it.
func (s *Set) track(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Set) untrack(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *Set) closeAll() {
	s.mu.Lock()
	s.closed = true
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		if !c.close() {
			c.pc.Abort()
		}
	}
}

// up adds a connection to the ready ones and offers it what waits.
func (s *Set) up(c *conn, b *peer.Batch) {
	s.mu.Lock()
	old := s.ready.Load()
	s.ready.Store(&view{old.gen + 1, append(slices.Clone(old.conns), c)})
	s.mu.Unlock()
	s.pumpWaiting(b)
}

// down removes a connection from the ready ones.
func (s *Set) down(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.ready.Load()
	if i := slices.Index(old.conns, c); i >= 0 {
		s.ready.Store(&view{old.gen + 1, slices.Delete(slices.Clone(old.conns), i, i+1)})
	}
}

// pumpWaiting offers every waiting message again, to whatever became usable.
func (s *Set) pumpWaiting(b *peer.Batch) {
	for _, t := range s.waitingTargets() {
		var e ended
		t.mu.Lock()
		t.pump(b, &e)
		t.mu.Unlock()
		s.conclude(&e)
	}
}

// endAll ends what is still under way when no connection is left: nothing will
// come, and no further message finds a router.
func (s *Set) endAll() {
	s.targetMu.RLock()
	all := slices.Collect(maps.Values(s.targets))
	s.targetMu.RUnlock()
	for _, t := range append(all, s.responses.all()...) {
		var e ended
		t.endAll(&e)
		s.conclude(&e)
	}
}

func (s *Set) waitingTargets() []*target {
	s.waitMu.Lock()
	defer s.waitMu.Unlock()
	targets := make([]*target, 0, len(s.waiters))
	for t := range s.waiters {
		targets = append(targets, t)
	}
	return targets
}

// target returns the target of k, locked, and makes it when it is not there.
func (s *Set) target(k key) *target {
	for {
		s.targetMu.RLock()
		t := s.targets[k]
		s.targetMu.RUnlock()
		if t == nil {
			t = s.newTarget(k)
		}
		t.mu.Lock()
		if !t.dead {
			return t
		}
		t.mu.Unlock()
	}
}

func (s *Set) newTarget(k key) *target {
	s.targetMu.Lock()
	defer s.targetMu.Unlock()
	if t := s.targets[k]; t != nil {
		return t
	}
	t := &target{s: s, address: k.address(), part: ownPart}
	s.targets[k] = t
	return t
}

// sweepsPerIdle is how often within LinkIdle the targets are looked at.
const sweepsPerIdle = 4

// sweep calls once again and again to detach the links of targets that nothing was
// sent to for idle.
func sweep(ctx context.Context, idle time.Duration, once func()) {
	tick := time.NewTicker(max(idle/sweepsPerIdle, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		once()
	}
}

func (s *Set) sweepOnce() {
	s.targetMu.RLock()
	all := make(map[key]*target, len(s.targets))
	for k, t := range s.targets {
		all[k] = t
	}
	s.targetMu.RUnlock()
	var b peer.Batch
	for k, t := range all {
		if !t.expire(&b) {
			continue
		}
		s.targetMu.Lock()
		delete(s.targets, k)
		s.targetMu.Unlock()
	}
	b.Flush()
}

// key names a target without the string that its address is.
type key struct {
	endpoint iot.Endpoint
	tenant   iot.TenantID
}

func (k key) address() string { return string(k.endpoint) + "/" + string(k.tenant) }
