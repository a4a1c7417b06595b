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

// Sessions are the connected devices of one adapter. Safe for concurrent use.
type Sessions struct {
	p *Pipeline
	o SessionOptions

	wg sync.WaitGroup

	mu      sync.Mutex
	open    int // those that are being admitted included
	tenants map[iot.TenantID]int
	all     map[*Session]struct{}
}

var _ NoticeHandler = (*Sessions)(nil)

// NewSessions returns the sessions of the adapter that p belongs to. Close them.
func NewSessions(p *Pipeline, o SessionOptions) *Sessions {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Meter.hasConnections()
	return &Sessions{p: p, o: o, tenants: make(map[iot.TenantID]int), all: make(map[*Session]struct{})}
}

// Full reports whether no further connection is taken. It is asked before a
// device is authenticated.
func (ss *Sessions) Full() bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.full()
}

func (ss *Sessions) full() bool { return ss.o.Max > 0 && ss.open >= ss.o.Max }

// Refused counts an attempt to connect that came to no call of [Sessions.Open],
// because Full said so ([ErrInstanceConnections]) or no Login could be made of
// it. cipher is the TLS cipher suite, "" = none.
func (ss *Sessions) Refused(cipher string, err error) { ss.o.Meter.Attempted("", cipher, err) }

// Len counts the sessions that are open.
func (ss *Sessions) Len() int {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return len(ss.all)
}

// Close ends what the sessions do by themselves and waits for it. The sessions
// are left to whoever opened them.
func (ss *Sessions) Close() { ss.wg.Wait() }

// Following implements [NoticeHandler].
func (ss *Sessions) Following(bool) {}

// Notice implements [NoticeHandler]: it closes the sessions that the notice ends.
func (ss *Sessions) Notice(n Notice) {
	ss.mu.Lock()
	var ended []*Session
	for s := range ss.all {
		switch {
		case s.Anonymous() || s.tenant != n.Tenant:
		case n.Type == NoticeTenant && !n.Enabled, n.Type == NoticeDevicesDeleted, n.Type == NoticeDevice && !n.Enabled && n.Device == s.device:
			ended = append(ended, s)
		}
	}
	ss.mu.Unlock()
	if len(ended) == 0 {
		return
	}
	ss.wg.Go(func() {
		for _, s := range ended {
			s.end(iot.Errorf(iot.ErrForbidden, "device or tenant was disabled or deleted"))
		}
	})
}

// Open lets a device in and keeps it until [Session.Close], or until the
// session ends by itself: then closer is told why, once. It must not wait, and
// may be called before Open returns. A login without credential opens an
// anonymous session, which says with each message whose it is.
//
// Errors are those of [Pipeline.Admit], ErrTenantConnections and
// ErrInstanceConnections. ErrNotFound means that the credentials were
// accepted, but their device is disabled or not registered.
func (ss *Sessions) Open(ctx context.Context, l Login, remote netip.Addr, closer func(why error)) (*Session, error) {
	s, err := ss.enter(ctx, l, remote, closer)
	tenant := l.Tenant.ID
	if err == nil {
		tenant = s.tenant
	}
	ss.o.Meter.Attempted(tenant, l.CipherSuite, err)
	return s, err
}

func (ss *Sessions) enter(ctx context.Context, l Login, remote netip.Addr, closer func(error)) (*Session, error) {
	ss.mu.Lock()
	if ss.full() {
		ss.mu.Unlock()
		return nil, ErrInstanceConnections
	}
	ss.open++
	ss.mu.Unlock()
	s, err := ss.admit(ctx, l, remote, closer)
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if err == nil && !s.Anonymous() {
		if limit := s.own.e.maxConnections(); limit >= 0 && ss.tenants[s.tenant] >= limit {
			err = ErrTenantConnections
		}
	}
	if err != nil {
		ss.open--
		return nil, err
	}
	ss.all[s] = struct{}{}
	ss.o.Meter.Connected(s.tenant)
	if !s.Anonymous() {
		ss.tenants[s.tenant]++
	}
	return s, nil
}

func (ss *Sessions) admit(ctx context.Context, l Login, remote netip.Addr, closer func(error)) (*Session, error) {
	s := &Session{ss: ss, login: l, remote: remote, closer: closer}
	if l.Credential == nil {
		return s, nil
	}
	who, err := ss.p.Admit(ctx, l.Request("", remote))
	if err != nil {
		return nil, err
	}
	s.own, s.tenant, s.device = who, who.Tenant(), who.Device()
	return s, nil
}
