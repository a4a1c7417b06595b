package adapters

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/sluice-iot/sluice/internal/iot"
)

// ErrTenantConnections: the tenant's max-connections are open already.
var ErrTenantConnections error = iot.Errorf(iot.ErrQuota, "the tenant has too many connections")

// ErrInstanceConnections: this adapter has as many connections as it takes.
var ErrInstanceConnections error = iot.Errorf(iot.ErrUnavailable, "too many connections")

// SessionOptions configure [NewSessions].
type SessionOptions struct {
	Max    int // connections at a time; 0 = no limit
	Logger *slog.Logger
	Meter  *Meter // nil = nothing is counted
}

// Sessions are the connected devices of one adapter. They hear of changes
// of the registry beside the pipeline's [Admissions]: both are told of each.
// Safe for concurrent use.
type Sessions struct {
	p *Pipeline
	o SessionOptions

	wg   sync.WaitGroup
	done chan struct{} // closed by Close

	mu      sync.Mutex
	closed  bool
	taken   int // sessions that are open, and those that are being admitted
	open    int
	tenants map[iot.TenantID]int // open sessions
	queue   []*Session           // to be checked
	workers int

	unfollowed bool // notices do not come
}

var _ NoticeHandler = (*Sessions)(nil)

// NewSessions returns the sessions of the adapter that p belongs to. Close
// them before p's Admissions.
func NewSessions(p *Pipeline, o SessionOptions) *Sessions {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Meter.hasConnections()
	return &Sessions{p: p, o: o, done: make(chan struct{}), tenants: make(map[iot.TenantID]int)}
}

// Full reports whether no further connection is taken. It is asked before a
// device is authenticated.
func (ss *Sessions) Full() bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.full()
}

func (ss *Sessions) full() bool { return ss.o.Max > 0 && ss.taken >= ss.o.Max }

// Refused counts an attempt to connect that came to no call of [Sessions.Open],
// because Full said so ([ErrInstanceConnections]) or no Login could be made of
// it. cipher is the TLS cipher suite, "" = none.
func (ss *Sessions) Refused(cipher string, err error) { ss.o.Meter.Attempted("", cipher, err) }

// Len counts the sessions that are open.
func (ss *Sessions) Len() int {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.open
}

// Close ends what the sessions do by themselves and waits for it. The sessions
// are left to whoever opened them; no further one is opened.
func (ss *Sessions) Close() {
	ss.mu.Lock()
	if !ss.closed {
		ss.closed, ss.queue = true, nil
		close(ss.done)
	}
	ss.mu.Unlock()
	ss.wg.Wait()
}

// Open lets a device in and keeps it until [Session.Close], or until the
// session ends by itself: then closer is told why, once. It must not wait, and
// may be called before Open returns. A login without credential opens an
// anonymous session, which says with each message whose it is. Nothing is kept
// of a password that the registry knows.
//
// Errors are those of [Pipeline.Admit], ErrTenantConnections and
// ErrInstanceConnections. ErrNotFound means that the credentials were
// accepted, but their device is disabled or not registered.
func (ss *Sessions) Open(ctx context.Context, l Login, remote netip.Addr, closer func(why error)) (*Session, error) {
	s, err := ss.enter(ctx, &l, remote, closer)
	tenant := l.Tenant.ID
	if err == nil {
		tenant = s.Tenant()
	}
	ss.o.Meter.Attempted(tenant, l.CipherSuite, err)
	return s, err
}

func (ss *Sessions) enter(ctx context.Context, l *Login, remote netip.Addr, closer func(error)) (*Session, error) {
	if err := ss.take(); err != nil {
		return nil, err
	}
	a := ss.p.o.Admissions
	x := &a.follow
	s, own, position, err := ss.admit(ctx, l, remote, closer)
	if err != nil {
		ss.giveBack()
		return nil, err
	}
	if err := ss.add(own); err != nil {
		ss.giveBack()
		a.retire(own) // it will come again
		if x.recent.concerned(own, position) {
			a.cache.drop(own)
		}
		return nil, err
	}
	if own == nil {
		return s, nil
	}
	s.own.Store(own)
	x.index.add(own)
	if x.recent.concerned(own, position) {
		ss.recheck(s) // it was let in by how things were before the change
	}
	return s, nil
}

// admit asks for a session's first answer; nil for an anonymous one.
func (ss *Sessions) admit(ctx context.Context, l *Login, remote netip.Addr, closer func(error)) (*Session, *entry, uint64, error) {
	s := &Session{ss: ss, closer: closer, remote: remote}
	if l.Credential == nil {
		return s, nil, 0, nil
	}
	context, err := contextText(l.Context)
	if err != nil {
		return nil, nil, 0, err
	}
	r := l.Request("", remote)
	r.context, r.Admit.Adapter = context, ss.p.o.Type
	e, position, err := ss.p.o.Admissions.admit(ctx, r, false)
	if err != nil {
		return nil, nil, 0, err
	}
	s.remember(l, context, e.secretID)
	return s, &entry{answer: e.answer, owner: s}, position, nil
}

// take holds a place for a connection.
func (ss *Sessions) take() error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	switch {
	case ss.closed:
		return errTooBusy
	case ss.full():
		return ErrInstanceConnections
	}
	ss.taken++
	return nil
}

func (ss *Sessions) giveBack() {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.taken--
}

// add counts a session in, by its answer; nil for an anonymous one, for which
// there is always room.
func (ss *Sessions) add(own *entry) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	var tenant iot.TenantID
	if own != nil {
		tenant = own.tenant()
		if limit := own.settings.maxConnections; limit >= 0 && ss.tenants[tenant] >= limit {
			return ErrTenantConnections
		}
		ss.tenants[tenant]++
	}
	ss.open++
	ss.o.Meter.Connected(tenant)
	return nil
}

// remove takes back what take and add counted.
func (ss *Sessions) remove(tenant iot.TenantID) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.taken--
	ss.open--
	if tenant != "" {
		if ss.tenants[tenant]--; ss.tenants[tenant] == 0 {
			delete(ss.tenants, tenant)
		}
	}
	ss.o.Meter.Disconnected(tenant)
}
