package stored

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	firstPause = 50 * time.Millisecond
	longPause  = 5 * time.Second
)

// wake has step look again. The tenant is locked.
func (t *tenant) wake() {
	if t.running {
		t.again = true
		return
	}
	t.running = true
	t.s.goes(t.run)
}

// run does what is to be done until there is nothing for now, and sets a timer for later.
func (t *tenant) run() {
	for {
		wait := t.step()
		t.mu.Lock()
		if t.again {
			t.again = false
			t.mu.Unlock()
			continue
		}
		t.running = false
		t.sleep(wait)
		t.mu.Unlock()
		return
	}
}

// sleep wakes the tenant after a while, 0 = something else will. The tenant is locked.
func (t *tenant) sleep(wait time.Duration) {
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	if wait > 0 && t.s.ctx.Err() == nil {
		t.timer = time.AfterFunc(wait, func() {
			t.mu.Lock()
			t.wake()
			t.mu.Unlock()
		})
	}
}

// step does what is due, once, and returns after how long to look again; 0 = when something happens.
func (t *tenant) step() time.Duration {
	t.mu.Lock()
	drains := t.drains // those that come from now on are the next step's
	wait := t.paused.Sub(t.s.o.Now())
	t.mu.Unlock()
	if wait > 0 && wait <= longPause {
		t.offer()
		t.endDrain(drains, true)
		return wait
	}
	failed := t.settle()
	over := t.giveBack()
	if t.standBack(); over {
		return t.leave()
	}
	failed = t.claim() || failed
	t.offer()
	failed = t.read() || failed
	t.offer()
	t.endDrain(drains, failed)
	if failed {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.pause = min(max(2*t.pause, firstPause), longPause)
		t.paused = t.s.o.Now().Add(t.pause)
		return t.pause
	}
	return t.rest()
}

// endDrain tells receivers that they were offered all there is for now, if they were:
// those that asked before a step.
func (t *tenant) endDrain(drains uint64, failed bool) {
	t.mu.Lock()
	over := t.drained < drains && (failed || t.laden() || t.ready.len() == 0)
	if now := t.s.o.Now(); over && !failed && !t.laden() {
		for _, c := range t.claims {
			quiet, _ := c.quiet(now)
			over = over && (quiet || !c.behind(now))
		}
	}
	if over {
		t.drained = drains
	}
	t.mu.Unlock()
	if over {
		t.s.o.Router.Drained(t.address)
	}
}

// rest decides how long nothing need be done.
func (t *tenant) rest() time.Duration {
	now := t.s.o.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pause, t.paused = 0, time.Time{}
	next := t.due(now)
	_, short := t.short()
	earlier := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	for _, c := range t.claims {
		if c.toSettle(now) {
			earlier(now)
		} else if len(c.unsaid) > 0 {
			earlier(c.said.Add(settleTime))
		}
		quiet, until := c.quiet(now)
		if earlier(until); quiet && c.free() {
			earlier(now) // to be given back
		}
		switch {
		case !t.credit || quiet || !short:
		case c.barren.After(now):
			earlier(c.barren)
		case c.behind(now):
			earlier(now)
		default:
			earlier(c.retry)
		}
	}
	if !t.credit && (len(t.claims) > 0 || t.claiming.waits) && t.inFlight == 0 {
		earlier(t.since.Add(creditTime))
	}
	if next.IsZero() {
		return 0
	}
	return max(next.Sub(now), time.Millisecond)
}

// list returns claims for which f is true.
func (t *tenant) list(f func(*claim) bool) []*claim {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*claim
	for _, c := range t.claims {
		if f(c) {
			out = append(out, c)
		}
	}
	return out
}

// each calls f for claims, at the same time: what they ask of a store may be done together.
func each(claims []*claim, f func(*claim) error) (failed bool) {
	if len(claims) == 1 {
		return f(claims[0]) != nil
	}
	var wg sync.WaitGroup
	errs := make([]error, len(claims))
	for i, c := range claims {
		wg.Go(func() { errs[i] = f(c) })
	}
	wg.Wait()
	return errors.Join(errs...) != nil
}

func (s *Server) timed() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.ctx, callTime)
}
