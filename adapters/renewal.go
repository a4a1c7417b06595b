package adapters

import (
	"context"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// renewal is one question about a session's own device, for all who need its
// answer.
type renewal struct {
	done chan struct{} // closed when who and err are set
	who  Admission
	err  error
	then []func(Admission, error) // the session's mu
}

// renewed is the answer of a renewal of what seen answered.
func (s *Session) renewed(ctx context.Context, seen *entry) (Admission, error) {
	r := s.renew(seen, nil)
	select {
	case <-r.done:
		return r.who, r.err
	case <-ctx.Done():
		return Admission{}, ctx.Err()
	}
}

// renew asks anew about the session's own device, once at a time, unless what
// seen answered was replaced by something that holds; nil = in any case. Before
// the new answer serves other messages, those that waited for it are told, in
// the order in which they came: they are to leave first.
func (s *Session) renew(seen *entry, then func(Admission, error)) *renewal {
	a := s.ss.p.o.Admissions
	s.mu.Lock()
	r, own := s.renewing, s.own.Load()
	first := r == nil
	switch {
	case !first:
	case s.closed:
		s.mu.Unlock()
		return ended(Admission{}, errClosed, then)
	case seen != nil && own != seen && a.valid(own, time.Now()):
		s.mu.Unlock()
		return ended(Admission{e: own, s: s}, nil, then)
	default:
		if seen != nil {
			seen.gone.Store(true)
		}
		r = &renewal{done: make(chan struct{})}
		s.renewing = r
	}
	if then != nil {
		r.then = append(r.then, then)
	}
	changes := s.changes
	s.mu.Unlock()
	if first && !a.inTurn(context.Background(), func(ctx context.Context) { s.ask(ctx, r, changes) }) {
		s.answered(r, nil, errTooBusy, changes)
	}
	return r
}

// ended is a renewal that was none.
func ended(who Admission, err error, then func(Admission, error)) *renewal {
	r := &renewal{done: make(chan struct{}), who: who, err: err}
	close(r.done)
	if then != nil {
		then(who, err)
	}
	return r
}

// ask puts the question of a renewal. Who the device is does not change while
// it is connected.
func (s *Session) ask(ctx context.Context, r *renewal, changes uint32) {
	a, was := s.ss.p.o.Admissions, s.own.Load()
	request := s.request("", "")
	q := a.question(&request, true)
	n, err := a.ask(ctx, key{}, q)
	if err != nil {
		s.answered(r, nil, s.mark(err, ""), changes)
		return
	}
	if n.tenant() != was.tenant() || n.device != was.device {
		s.answered(r, nil, s.mark(errOtherDevice, ""), changes)
		return
	}
	e := &entry{answer: n, owner: s}
	s.answered(r, e, nil, changes)
	if a.follow.recent.concerned(e, q.position) {
		e.gone.Store(true)
	}
}

var errOtherDevice = iot.Errorf(iot.ErrUnauthenticated, "the credentials are another device's now")

// renewToTell is [Admissions.renewThen] for what is told of a device: it may be of one
// whose session ended while its notification was under way.
func (a *Admissions) renewToTell(old Admission, then func(Admission, error)) {
	a.renewThen(old, func(anew Admission, err error) {
		if err != errClosed {
			then(anew, err)
			return
		}
		if !a.inTurn(context.Background(), func(ctx context.Context) { then(old.s.lastAdmission(ctx)) }) {
			then(Admission{}, errTooBusy)
		}
	})
}

// lastAdmission asks about the device of a session that has ended. The answer lets
// nothing else in.
func (s *Session) lastAdmission(ctx context.Context) (Admission, error) {
	request := s.request("", "")
	n, err := s.ss.p.o.Admissions.ask(ctx, key{}, s.ss.p.o.Admissions.question(&request, true))
	switch {
	case err != nil:
		return Admission{}, err
	case n.tenant() != s.Tenant() || n.device != s.Device():
		return Admission{}, errOtherDevice
	}
	return Admission{e: &entry{answer: n, owner: s}, s: s}, nil
}

// answered ends a renewal and lets e answer from now on.
func (s *Session) answered(r *renewal, e *entry, err error, changes uint32) {
	var who Admission
	if e != nil {
		who = Admission{e: e, s: s}
	}
	for {
		s.mu.Lock()
		then := r.then
		r.then = nil
		if len(then) == 0 {
			break
		}
		s.mu.Unlock()
		for _, f := range then {
			f(who, err)
		}
	}
	defer s.mu.Unlock()
	s.renewing = nil
	if e != nil && !s.closed {
		if changes != s.changes {
			e.gone.Store(true)
		}
		s.ss.p.o.Admissions.follow.index.swap(s.own.Load(), e, false)
		s.own.Store(e)
	}
	r.who, r.err = who, err
	close(r.done)
}

// settled gives the session other settings of its tenant, in place of those in
// e; false where they no longer let it in.
func (s *Session) settled(e *entry, to *settings) bool {
	a := s.ss.p.o.Admissions
	if !to.allows(s.ss.p.o.Type) {
		a.forget(e)
		return false
	}
	anchors := s.byCertificate() && !sameAnchors(e.settings, to)
	s.mu.Lock()
	gone := s.closed
	if s.own.Load() == e && !gone {
		n := e.withSettings(to)
		a.follow.index.swap(e, n, true)
		s.own.Store(n)
	}
	s.mu.Unlock()
	switch {
	case gone:
		a.forget(e)
	case anchors:
		s.ss.recheck(s)
	}
	return true
}
