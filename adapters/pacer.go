package adapters

import (
	"sync"
	"sync/atomic"
	"time"
)

// Pacer counts what some K do too often, each apart. What is counted is forgiven at a
// steady rate; of each K it keeps when all is. Safe for concurrent use.
type Pacer[K comparable] struct {
	burst, most time.Duration // times every
	every       time.Duration
	max         int
	n           atomic.Int64 // in m

	mu sync.Mutex
	m  map[K]time.Time
}

// NewPacer returns a Pacer by which each K may do something burst times at once, and
// once more each time that long has passed; of what is beyond burst, at most over counts.
// It remembers at most max K.
func NewPacer[K comparable](burst, over int, every time.Duration, max int) *Pacer[K] {
	return &Pacer[K]{burst: time.Duration(burst) * every, most: time.Duration(burst+over) * every, every: every, max: max, m: make(map[K]time.Time)}
}

// Wait says how long k has done too much: 0 = it has not. It costs one atomic load while
// nobody is remembered.
func (p *Pacer[K]) Wait(k K, now time.Time) time.Duration {
	if p.n.Load() == 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wait(k, now)
}

func (p *Pacer[K]) wait(k K, now time.Time) time.Duration {
	until, known := p.m[k]
	if !known {
		return 0
	}
	return max(0, until.Sub(now.Add(p.burst)))
}

// Add counts one of k, and says how long k has done too much with it.
func (p *Pacer[K]) Add(k K, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, known := p.m[k]
	if !known {
		p.makeRoom(now)
	}
	if until.Before(now) {
		until = now
	}
	if until = until.Add(p.every); until.After(now.Add(p.most)) {
		until = now.Add(p.most)
	}
	p.m[k] = until
	p.n.Store(int64(len(p.m)))
	return p.wait(k, now)
}

// Len counts the K that are remembered.
func (p *Pacer[K]) Len() int { return int(p.n.Load()) }

// makeRoom forgets who is forgiven among a few, and at the bound also who would be next
// of them. p.mu is held.
func (p *Pacer[K]) makeRoom(now time.Time) {
	const probes = 4 // more than one for each that comes
	var next K
	var soonest time.Time
	seen := 0
	for k, until := range p.m {
		if seen++; seen > probes {
			break
		}
		if until.Before(now) {
			delete(p.m, k)
		} else if soonest.IsZero() || until.Before(soonest) {
			next, soonest = k, until
		}
	}
	if len(p.m) >= p.max {
		delete(p.m, next)
	}
}
