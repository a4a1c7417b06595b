package http

import (
	nethttp "net/http"
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
	resetOver  = resetBurst             // count at most beyond these, so that what was under way is forgiven soon

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
	if wait := a.resets.Wait(k, start); wait > 0 {
		wait = max(wait, time.Second)
		err = &iot.Error{Sentinel: iot.ErrQuota, Text: "too many requests were reset at once", RetryAfter: wait}
		if alone {
			p.conn.pause(start.Add(wait))
		}
	}
	return func() {
		if now := time.Now(); r.Context().Err() != nil && now.Sub(start) < resetEarly {
			a.resets.Add(k, now)
		}
	}, err
}
