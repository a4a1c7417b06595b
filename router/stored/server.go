package stored

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"hash/fnv"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/forward"
)

// Log is where events are kept: [eventstore.Log], or a function that has one.
type Log interface {
	Append(ctx context.Context, r eventstore.AppendRequest) (*eventstore.AppendResult, error)
	Claim(ctx context.Context, r eventstore.ClaimRequest) (*eventstore.ClaimResult, error)
	Read(ctx context.Context, r eventstore.ReadRequest) (*eventstore.ReadResult, error)
	Settle(ctx context.Context, r eventstore.SettleRequest) (*eventstore.SettleResult, error)
	Release(ctx context.Context, r eventstore.ReleaseRequest) error
}

// Router forwards what is offered; see [forward.Router].
type Router interface {
	Answer(list []forward.Answered)
	Offer(address string, list []forward.Offer) (taken, left int)
	Drained(address string)
	Resume()
}

// Options of a server. Log and Router are required.
type Options struct {
	Log    Log
	Router Router
	// Instance names this process; what makes it unique is added.
	Instance string
	// Ingress is the URL at which facts reach this process, "" = they do not.
	Ingress string
	// Tell posts the fact that a partition which another process holds has grown to
	// that one's ingress, or with ingress "" to all: nobody holds it, and whoever waits may claim it. nil =
	// nobody is told.
	Tell func(ctx context.Context, ingress string, h eventstore.Holding) error
	// Poll is how often it is asked for events while a receiver waits, where others append to the log
	// and no fact says so; 0 = facts do.
	Poll time.Duration
	// Shards is how many appends may be on their way at the same time; 0 = 1. One is best for
	// a store that commits one after the other.
	Shards int
	Now    func() time.Time // default time.Now
	Logger *slog.Logger
}

const (
	claimTime = eventstore.DefaultClaim * time.Millisecond
	// callTime bounds every call of the log but an append.
	callTime = 10 * time.Second
	// shareTime is how often a holder that waits looks whether it has its share,
	// where there are others.
	shareTime = 5 * time.Minute
	// creditTime is how long claims are kept while no receiver has credit.
	creditTime = time.Second
)

// Server is a [forward.Shelf]. Safe for concurrent use.
type Server struct {
	o      Options
	log    *slog.Logger
	holder string
	m      counters

	shards []*appender
	full   atomic.Bool
	queued atomic.Int64 // bytes that wait to be stored

	prefetched atomic.Int64 // bytes in memory that wait for receivers

	mu      sync.Mutex
	tenants map[iot.TenantID]*tenant
	closed  bool
	telling map[tellKey]told
	toldAll map[iot.TenantID]time.Time // when all were told last of what nobody holds

	going   atomic.Int64  // goroutines
	closing chan struct{} // closed when Close begins
	ctx     context.Context
	stop    context.CancelFunc
}

var _ forward.Shelf = (*Server)(nil)

// New returns a server; it panics without a log and a router.
func New(o Options) *Server {
	if o.Log == nil || o.Router == nil {
		panic("stored: a server needs a log and a router")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	var start [8]byte
	rand.Read(start[:])
	writer := binary.BigEndian.Uint64(start[:])
	s := &Server{o: o, log: o.Logger, tenants: map[iot.TenantID]*tenant{}, telling: map[tellKey]told{}, toldAll: map[iot.TenantID]time.Time{},
		closing: make(chan struct{})}
	s.holder = strings.TrimPrefix(o.Instance+"."+rand.Text()[:8], ".")
	s.ctx, s.stop = context.WithCancel(context.Background())
	for n := range max(1, o.Shards) {
		// A writer's counters come in order, so each shard is a writer.
		s.shards = append(s.shards, &appender{s: s, writer: writer + uint64(n)})
	}
	return s
}

// prefix begins the addresses that are kept.
const prefix = "event/"

func (s *Server) shard(tenant iot.TenantID) *appender {
	if len(s.shards) == 1 {
		return s.shards[0]
	}
	h := fnv.New32a()
	h.Write([]byte(tenant))
	return s.shards[h.Sum32()%uint32(len(s.shards))]
}

// Put implements [forward.Shelf].
func (s *Server) Put(address string, list []*forward.Deposit) {
	tenant := iot.TenantID(strings.TrimPrefix(address, prefix))
	now := s.o.Now()
	var refused []forward.Answered
	fit := make([]item, 0, len(list))
	for _, d := range list {
		r, err := record(tenant, d.Message, now.UnixMilli())
		if err != nil {
			s.m.refused.Add(1)
			refused = append(refused, forward.Answered{Deposit: d, State: amqp.AppendRejected(nil, err)})
			continue
		}
		fit = append(fit, item{d, r, now})
	}
	if rest := s.shard(tenant).put(fit); len(rest) > 0 {
		s.m.overflow.Add(int64(len(rest)))
		for _, it := range rest {
			refused = append(refused, forward.Answered{Deposit: it.deposit, State: amqp.StateReleased})
		}
	}
	if len(refused) > 0 {
		s.o.Router.Answer(refused)
	}
}

// Full implements [forward.Shelf].
func (s *Server) Full() bool { return s.full.Load() }

// Receivers implements [forward.Shelf].
func (s *Server) Receivers(address string, n int) {
	name := iot.TenantID(strings.TrimPrefix(address, prefix))
	s.mu.Lock() // the tenant is not to leave meanwhile
	defer s.mu.Unlock()
	t := s.tenants[name]
	if s.closed {
		n = 0
	}
	switch {
	case t == nil && n == 0:
		return
	case t == nil:
		t = newTenant(s, name, address)
		s.tenants[name] = t
	}
	t.setReceivers(n)
}

// Wanted implements [forward.Shelf].
func (s *Server) Wanted(address string, credit int, drain bool) {
	if t := s.existing(iot.TenantID(strings.TrimPrefix(address, prefix))); t != nil {
		t.want(credit, drain)
	}
}

// existing returns what is known of a tenant, nil when nobody listens.
func (s *Server) existing(name iot.TenantID) *tenant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tenants[name]
}

// Appended is told, by a fact of another router, that a partition has grown, or with end 1, below
// which there is nothing, that nobody holds it any more.
func (s *Server) Appended(name iot.TenantID, p eventstore.PartitionID, end uint64) {
	switch t := s.existing(name); {
	case t == nil:
	case end <= unheld:
		t.freed()
	default:
		t.grown(p, end)
	}
}

// Close settles what is yet to be settled and gives claims back, until ctx ends. The
// forwarder offers no credit any more by then; what is put afterwards is released.
func (s *Server) Close(ctx context.Context) {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	for _, t := range s.tenants {
		t.setReceivers(0)
	}
	s.mu.Unlock()
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for s.busy() && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-poll.C:
		}
	}
	s.stop()
	for s.going.Load() > 0 { // they see that the context has ended
		<-poll.C
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tenants {
		t.mu.Lock()
		t.sleep(0)
		t.mu.Unlock()
	}
}

func (s *Server) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// busy reports whether anything is yet to be done.
func (s *Server) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tenants) > 0 || s.going.Load() > 0
}

// goes runs f in a goroutine that Close waits for.
func (s *Server) goes(f func()) {
	s.going.Add(1)
	go func() {
		defer s.going.Add(-1)
		f()
	}()
}
