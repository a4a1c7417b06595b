package stored

import (
	"sync/atomic"
	"time"
)

// counters count since the start.
type counters struct {
	accepted, refused, overQuota, failed, overflow atomic.Int64 // deliveries that came
	appends, appendTime                            atomic.Int64 // calls, and their ns
	reads, settles, claims, releases               atomic.Int64 // calls
	live, delivered, expired, dead, lost           atomic.Int64
	troubled                                       atomic.Pointer[string] // what an append failed of last
	complained                                     atomic.Int64           // Unix s: when another call's failure was logged
}

// sayEvery is how often, in s, the failure of a call that is no append is logged at most: there may be
// many tenants.
const sayEvery = 10

// complain logs that events cannot be brought to receivers for now.
func (s *Server) complain(err error) {
	now, last := time.Now().Unix(), s.m.complained.Load()
	if s.ctx.Err() == nil && now-last >= sayEvery && s.m.complained.CompareAndSwap(last, now) {
		s.log.Warn("stored events are not at hand", "err", err)
	}
}

// say logs that appends fail, once until they do not or fail otherwise.
func (s *Server) say(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	was := s.m.troubled.Load()
	if was == nil && text == "" || was != nil && *was == text {
		return
	}
	s.m.troubled.Store(&text)
	switch {
	case text != "":
		s.log.Warn("events cannot be stored", "err", err)
	case was != nil && *was != "":
		s.log.Info("events are stored again")
	}
}

// Figures are what became of events since the start.
type Figures struct {
	Accepted   int64 // stored
	Refused    int64 // not of the form, or too large
	OverQuota  int64
	Failed     int64 // the store did not take them
	Overflow   int64 // too many waited to be stored
	Live       int64 // delivered, or made ready, from memory
	Delivered  int64 // sent to receivers, again or for the first time
	Expired    int64 // while they waited in memory
	Dead       int64 // became dead letters
	LostClaims int64

	Appends, Reads, Settles, Claims, Releases int64 // calls of the store
	AppendSeconds                             float64

	Queued     int64 // bytes that wait to be stored
	Prefetched int64 // bytes in memory that wait for receivers
	Tenants    int   // that somebody listens to
}

// Figures returns them.
func (s *Server) Figures() Figures {
	s.mu.Lock()
	tenants := len(s.tenants)
	s.mu.Unlock()
	m := &s.m
	return Figures{Accepted: m.accepted.Load(), Refused: m.refused.Load(), OverQuota: m.overQuota.Load(), Failed: m.failed.Load(),
		Overflow: m.overflow.Load(), Live: m.live.Load(), Delivered: m.delivered.Load(), Expired: m.expired.Load(), Dead: m.dead.Load(),
		LostClaims: m.lost.Load(), Appends: m.appends.Load(), Reads: m.reads.Load(), Settles: m.settles.Load(), Claims: m.claims.Load(),
		Releases: m.releases.Load(), AppendSeconds: float64(m.appendTime.Load()) / 1e9, Queued: s.queued.Load(),
		Prefetched: s.prefetched.Load(), Tenants: tenants}
}
