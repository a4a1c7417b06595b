package http

import (
	nethttp "net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Bounds of the requests of HTTP/2 that one device, or gateway for any device, resets
// early. Resetting frees its stream for the next one, so that the number of streams
// bounds nothing. Who resets later than that has no more requests in a second than who
// waits for a second at a time, and who resets a request of HTTP/1.1 loses its connection.
const (
	resetEarly = time.Second            // after the request came
	resetBurst = maxStreams             // at once: a connection may break with all that is on it
	resetEvery = 100 * time.Millisecond // later ones, on average
	resetMost  = 2 * resetBurst         // count at most, so that what was under way is forgiven soon

	maxResetters = 10_000 // that are remembered
)

// resetter is who sends: the device that has authenticated.
type resetter struct {
	tenant iot.TenantID
	device iot.DeviceID
}

func resetterOf(who adapters.Admission) resetter {
	if gateway := who.Gateway(); gateway != "" {
		return resetter{who.Tenant(), gateway}
	}
	return resetter{who.Tenant(), who.Device()}
}

// alone reports whether all requests of the connection are of k, as far as is known.
func (p *peer) alone(k resetter) bool {
	first := p.first.Load()
	if first == nil {
		first = &resetter{k.tenant, k.device}
		if !p.first.CompareAndSwap(nil, first) {
			first = p.first.Load()
		}
	}
	if *first != k {
		p.shared.Store(true)
	}
	return !p.shared.Load()
}

// resets counts early resets. Of each device it keeps when all of them are forgiven,
// which is resetEvery for each away.
type resets struct {
	n atomic.Int64 // devices in m

	mu sync.Mutex
	m  map[resetter]time.Time
}

// blocked refuses who has reset too many; iot.ErrQuota. It costs one atomic load while
// nobody has reset any.
func (s *resets) blocked(k resetter, now time.Time) error {
	if s.n.Load() == 0 {
		return nil
	}
	s.mu.Lock()
	until, known := s.m[k]
	s.mu.Unlock()
	wait := until.Sub(now.Add(resetBurst * resetEvery))
	if !known || wait <= 0 {
		return nil
	}
	return &iot.Error{Sentinel: iot.ErrQuota, Text: "too many requests were reset at once", RetryAfter: max(wait, time.Second)}
}

// add counts one of k.
func (s *resets) add(k resetter, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, known := s.m[k]
	if !known {
		s.makeRoom(now)
	}
	if until.Before(now) {
		until = now
	}
	if s.m == nil {
		s.m = make(map[resetter]time.Time)
	}
	s.m[k] = minTime(until.Add(resetEvery), now.Add(resetMost*resetEvery))
	s.n.Store(int64(len(s.m)))
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// makeRoom forgets who is forgiven among a few, and at the bound also who would be next
// of them. s.mu is held.
func (s *resets) makeRoom(now time.Time) {
	const probes = 4 // more than one for each that comes
	var next resetter
	seen := 0
	for k, until := range s.m {
		if seen++; seen > probes {
			break
		}
		if until.Before(now) {
			delete(s.m, k)
		} else if seen == 1 || until.Before(s.m[next]) {
			next = k
		}
	}
	if len(s.m) >= maxResetters {
		delete(s.m, next)
	}
}

// follow refuses r where who sends it has reset too many. A refusal costs little, and yet
// more than a reset: nothing more is taken of the connection until all is forgiven, unless
// others use it, too, by way of a proxy. done is called in any case, before the request
// that began at start is answered: whoever has an answer may reset what is left of it.
func (a *Adapter) follow(r *nethttp.Request, who adapters.Admission, start time.Time) (done func(), err error) {
	if r.ProtoMajor < 2 {
		return func() {}, nil
	}
	k, p := resetterOf(who), peerOf(r)
	alone := p.alone(k)
	if err = a.resets.blocked(k, start); err != nil && alone {
		p.conn.pause(start.Add(iot.RetryAfter(err)))
	}
	return func() {
		if now := time.Now(); r.Context().Err() != nil && now.Sub(start) < resetEarly {
			a.resets.add(k, now)
		}
	}, err
}
