package adapters

import (
	"errors"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// maxChecks bounds how many sessions are checked at once: a change of many
// devices must not be as many invocations at the same time.
const maxChecks = 32

// The pauses between tries to check a session while nobody answers.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 30 * time.Second
)

// Why sessions are closed.
var (
	errDeviceGone = iot.Errorf(iot.ErrNotFound, "device is disabled or not registered")
	errTenantGone = iot.Errorf(iot.ErrForbidden, "tenant is disabled or not registered")
	errAdapterOff = iot.Errorf(iot.ErrForbidden, "adapter is disabled")
)

// Following implements [NoticeHandler]. After a time without notices each
// tenant is looked at; what is known of its devices ages by itself, so that
// they are asked about when they send something.
func (ss *Sessions) Following(yes bool) {
	ss.mu.Lock()
	missed := yes && ss.unfollowed
	ss.unfollowed = !yes
	var tenants []iot.TenantID
	if missed {
		tenants = slices.Collect(maps.Keys(ss.tenants))
	}
	ss.mu.Unlock()
	if len(tenants) > 0 {
		ss.aside(func() { ss.lookAt(tenants) })
	}
}

// lookAt asks for tenants, one after the other. The ones that nobody answers for
// are left to those who ask again.
func (ss *Sessions) lookAt(tenants []iot.TenantID) {
	a := ss.p.o.Admissions
	for _, tenant := range tenants {
		select {
		case <-ss.done:
			return
		default:
		}
		if a.refreshOnce(tenant) != nil {
			a.refresh(tenant)
		}
	}
}

// Notice implements [NoticeHandler]: it closes the sessions that the registry
// no longer lets in. Where credentials changed, it asks whether those that a
// session came in with still hold.
func (ss *Sessions) Notice(n Notice) {
	x := &ss.p.o.Admissions.follow.index
	gone := n.Change == "DELETE" || !n.Enabled
	switch {
	case n.Tenant == "":
	case n.Type == NoticeTenant && gone, n.Type == NoticeDevicesDeleted:
		why := errTenantGone
		if n.Type == NoticeDevicesDeleted {
			why = errDeviceGone
		}
		endSessions(x.sessions(ss, n.Tenant, ""), why)
	case n.Device == "":
	case n.Type == NoticeDevice && gone:
		endSessions(x.sessions(ss, n.Tenant, n.Device), errDeviceGone)
	case n.Type == NoticeCredentials:
		for _, s := range x.sessions(ss, n.Tenant, n.Device) {
			ss.recheck(s)
		}
	}
}

// endSessions closes sessions without waiting for it.
func endSessions(list []*Session, why error) {
	of := make(map[*Sessions][]*Session, 1)
	for _, s := range list {
		of[s.ss] = append(of[s.ss], s)
	}
	for ss, list := range of {
		ss.aside(func() {
			for _, s := range list {
				s.end(why)
			}
		})
	}
}

// aside runs f in a goroutine that Close waits for; not after Close.
func (ss *Sessions) aside(f func()) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if !ss.closed {
		ss.wg.Go(f)
	}
}

// recheck asks whether s may stay, until there is an answer. Until then its
// messages wait for one, too.
func (ss *Sessions) recheck(s *Session) {
	s.mu.Lock()
	s.changes++
	s.own.Load().gone.Store(true)
	begin := !s.closed && !s.checking
	s.checking = s.checking || begin
	s.mu.Unlock()
	if begin {
		ss.enqueue(s)
	}
}

func (ss *Sessions) enqueue(s *Session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.closed {
		return
	}
	ss.queue = append(ss.queue, s)
	if ss.workers < maxChecks {
		ss.workers++
		ss.wg.Go(ss.work)
	}
}

// work checks sessions while there are some.
func (ss *Sessions) work() {
	for {
		ss.mu.Lock()
		if len(ss.queue) == 0 {
			ss.workers--
			ss.queue = nil
			ss.mu.Unlock()
			return
		}
		s := ss.queue[0]
		ss.queue[0] = nil
		ss.queue = ss.queue[1:]
		ss.mu.Unlock()
		ss.check(s)
	}
}

// check asks once. An answer that a later change has overtaken is none.
func (ss *Sessions) check(s *Session) {
	r := s.renew(nil, nil)
	select {
	case <-r.done:
	case <-ss.done:
		return
	}
	if r.err != nil && refusal(r.err) {
		s.end(r.err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || r.err == nil && !s.own.Load().gone.Load() {
		s.checking, s.failures = false, 0
		return
	}
	if r.err != nil && s.failures == 0 {
		ss.o.Logger.Warn("a connected device cannot be checked, trying again", "tenant", s.Tenant(), "device", s.Device(), "err", r.err)
	}
	s.retry = time.AfterFunc(backOff(int(s.failures), r.err), func() { ss.enqueue(s) })
	s.failures = min(s.failures+1, 30)
}

// refusal reports whether an error says that a device may not stay.
func refusal(err error) bool {
	return errors.Is(err, iot.ErrUnauthenticated) || errors.Is(err, iot.ErrForbidden) || errors.Is(err, iot.ErrNotFound)
}

// backOff is the pause after so many failures, half of it by chance; not less
// than err asks for.
func backOff(failures int, err error) time.Duration {
	d := lastPause
	if failures < 7 {
		d = min(lastPause, firstPause<<failures)
	}
	return max(d/2+rand.N(d/2), min(iot.RetryAfter(err), lastPause))
}

func (s *Session) byCertificate() bool { return s.kind == iot.X509Cert }

// sameAnchors reports whether a tenant trusts the same authorities.
func sameAnchors(a, b *settings) bool {
	return reflect.DeepEqual(a.object.TrustedCA, b.object.TrustedCA)
}
