package attempts

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Window is the time in which failed attempts add up, counted from the
// first one.
const Window = time.Minute

// Limit bounds failed attempts per K. Attempts under way count as failed
// until they end, so that a burst cannot pass the limit together; the ones that
// find no room because of that wait, because they may all be good. Safe for
// concurrent use.
type Limit[K comparable] struct {
	limit int // failures in a window; < 0 = no limit
	max   int // entries
	full  atomic.Int64

	mu sync.Mutex
	m  map[K]*attempt
}

type attempt struct {
	failed  int
	running int
	until   time.Time     // end of the window; meaningful while failed > 0
	ended   chan struct{} // closed when a running one ends; nil while nobody waits
}

// New returns a Limit of that many failures in a [Window] (< 0 = no limit) for
// each K, of which it remembers at most max.
func New[K comparable](limit, max int) *Limit[K] {
	return &Limit[K]{limit: limit, max: max, m: make(map[K]*attempt)}
}

// Blocked says how long k is refused: 0 = not at all. It costs one atomic load
// while nobody is at the limit.
func (t *Limit[K]) Blocked(k K, now time.Time) time.Duration {
	var none K
	if t.full.Load() == 0 || k == none {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.m[k]
	if a == nil {
		return 0
	}
	t.expire(a, now)
	if a.failed < t.limit {
		return 0
	}
	return a.until.Sub(now)
}

// Full reports whether any K is at the limit.
func (t *Limit[K]) Full() bool { return t.full.Load() > 0 }

// Len counts the K that are remembered.
func (t *Limit[K]) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.m)
}

// Begin takes room for one attempt, which [Limit.End] gives back. It waits while
// others under way could use up the limit, and refuses with ErrQuota once
// failures have. The zero K is not limited.
func (t *Limit[K]) Begin(ctx context.Context, k K) error {
	var none K
	if t.limit < 0 || k == none {
		return nil
	}
	for {
		wait, err := t.try(k, time.Now())
		if wait == nil || err != nil {
			return err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *Limit[K]) try(k K, now time.Time) (wait <-chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.m[k]
	if a == nil {
		t.makeRoom(now)
		a = &attempt{}
		t.m[k] = a
	}
	t.expire(a, now)
	switch {
	case a.failed >= t.limit:
		return nil, TooMany(a.until.Sub(now))
	case a.failed+a.running < t.limit:
		a.running++
		return nil, nil
	}
	if a.ended == nil {
		a.ended = make(chan struct{})
	}
	return a.ended, nil
}

// End reports how an attempt that [Limit.Begin] let through went.
func (t *Limit[K]) End(k K, failed bool) {
	var none K
	if t.limit < 0 || k == none {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.m[k] // there: entries with something running stay
	now := time.Now()
	t.expire(a, now)
	a.running--
	if failed {
		if a.failed == 0 {
			a.until = now.Add(Window)
		}
		if a.failed++; a.failed == t.limit {
			t.full.Add(1)
		}
	}
	if a.ended != nil {
		close(a.ended)
		a.ended = nil
	}
	if a.failed == 0 && a.running == 0 {
		delete(t.m, k)
	}
}

func (t *Limit[K]) expire(a *attempt, now time.Time) {
	if a.failed == 0 || now.Before(a.until) {
		return
	}
	if a.failed >= t.limit {
		t.full.Add(-1)
	}
	a.failed = 0
}

// probes is how many entries an insertion looks at, in the map's random order,
// to find some that may go: enough to keep what has expired in the minority.
const probes = 4

// makeRoom drops expired entries among a few, and at the bound also the one of
// them with the fewest failures.
func (t *Limit[K]) makeRoom(now time.Time) {
	var victim K
	found, fewest, seen := false, 0, 0
	for k, a := range t.m {
		if seen++; seen > probes {
			break
		}
		if a.running > 0 {
			continue
		}
		if t.expire(a, now); a.failed == 0 {
			delete(t.m, k)
			continue
		}
		if !found || a.failed < fewest {
			victim, fewest, found = k, a.failed, true
		}
	}
	if found && len(t.m) >= t.max {
		if fewest >= t.limit {
			t.full.Add(-1)
		}
		delete(t.m, victim)
	}
}

// TooMany is the error of who is refused for that long, of a second at least.
func TooMany(retryAfter time.Duration) error {
	return &iot.Error{Sentinel: iot.ErrQuota, Text: "too many failed attempts", RetryAfter: max(retryAfter, time.Second)}
}
