package adapters

import (
	"sync"
	"sync/atomic"
	"time"
)

// shards keeps look-ups of different devices from waiting for each other.
const shards = 64

// cache holds answers by key until they expire, and the calls under way. It
// keeps no goroutine: a timer sweeps while there is something to sweep.
type cache struct {
	perShard int
	valid    func(e *entry, now time.Time) bool
	index    *index
	interval time.Duration // between sweeps
	shards   [shards]shard

	mu     sync.Mutex
	timer  *time.Timer // nil = no sweep due
	closed bool
}

type shard struct {
	mu      sync.Mutex
	hits    uint64 // look-ups that found an answer
	misses  uint64
	entries map[key]*entry
	calls   map[key]*call
}

// call is one question under way. entry and err are set when done is closed.
type call struct {
	position uint64      // in the log of notices, when it was put; set before done is closed
	left     atomic.Bool // somebody did not wait for the answer

	done  chan struct{}
	entry *entry
	err   error
}

func (c *cache) init(max int, interval time.Duration, valid func(*entry, time.Time) bool, x *index) {
	c.perShard = (max + shards - 1) / shards
	c.interval, c.valid, c.index = interval, valid, x
	for i := range c.shards {
		c.shards[i].entries = make(map[key]*entry)
		c.shards[i].calls = make(map[key]*call)
	}
}

func (c *cache) shard(k *key) *shard { return &c.shards[k[0]%shards] }

// get returns the entry of k, nil where there is no valid one.
func (c *cache) get(k key, now time.Time) *entry {
	s := c.shard(&k)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[k]
	if !c.valid(e, now) {
		s.misses++
		return nil
	}
	s.hits++
	return e
}

// counts adds up the shards.
func (c *cache) counts() (hits, misses uint64, kept int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		hits, misses, kept = hits+s.hits, misses+s.misses, kept+len(s.entries)
		s.mu.Unlock()
	}
	return hits, misses, kept
}

// put and remove keep the index in step. s.mu is held.
func (c *cache) put(s *shard, e *entry) {
	if old := s.entries[e.key]; old != nil {
		c.index.remove(old)
	}
	s.entries[e.key] = e
	c.index.add(e)
}

func (c *cache) remove(s *shard, e *entry) {
	delete(s.entries, e.key)
	c.index.remove(e)
}

// join returns the answer, where it came since the caller looked, else the
// call for k under way, else a new one, which the caller has to finish.
func (c *cache) join(k key, now time.Time) (e *entry, under *call, first bool) {
	s := c.shard(&k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e = s.entries[k]; c.valid(e, now) {
		return e, nil, false
	}
	if under = s.calls[k]; under != nil {
		return nil, under, false
	}
	under = &call{done: make(chan struct{})}
	s.calls[k] = under
	return nil, under, true
}

// finish ends a call for all who wait for it and keeps its answer while that is
// valid, where keep says so, or somebody left who may come back.
func (c *cache) finish(k key, under *call, e *entry, err error, keep bool) (kept bool) {
	s, now := c.shard(&k), time.Now()
	keep = (keep || under.left.Load()) && err == nil && c.valid(e, now)
	s.mu.Lock()
	delete(s.calls, k)
	if keep {
		c.makeRoom(s, now)
		c.put(s, e)
	}
	s.mu.Unlock()
	under.entry, under.err = e, err
	close(under.done)
	if keep {
		c.sweepLater()
	}
	return keep
}

// add keeps e, unless there is a later answer to the same question.
func (c *cache) add(e *entry, now time.Time) {
	s := c.shard(&e.key)
	s.mu.Lock()
	if known := s.entries[e.key]; known == nil || known.asked < e.asked {
		c.makeRoom(s, now)
		c.put(s, e)
	}
	s.mu.Unlock()
	c.sweepLater()
}

// drop forgets e, and what replaced it, unless that was asked for later.
func (c *cache) drop(e *entry) {
	s := c.shard(&e.key)
	s.mu.Lock()
	if now := s.entries[e.key]; now != nil && now.asked <= e.asked {
		c.remove(s, now)
	}
	s.mu.Unlock()
}

// replace puts e, the same answer in other words, in old's place, unless something
// newer took that. A notice finds one of them at any time.
func (c *cache) replace(old, e *entry) {
	s := c.shard(&old.key)
	s.mu.Lock()
	if s.entries[old.key] == old {
		s.entries[old.key] = e
		c.index.swap(old, e, true)
	}
	s.mu.Unlock()
}

// probes is how many entries an insertion looks at, in the map's random order,
// to find some that may go: enough to keep what has expired in the minority.
const probes = 4

// makeRoom drops expired entries among a few, and at the bound also the one of
// them that expires first.
func (c *cache) makeRoom(s *shard, now time.Time) {
	var first *entry
	seen := 0
	for _, e := range s.entries {
		if seen++; seen > probes {
			break
		}
		if !c.valid(e, now) {
			c.remove(s, e)
		} else if first == nil || e.expires < first.expires {
			first = e
		}
	}
	if first != nil && len(s.entries) >= c.perShard {
		c.remove(s, first)
	}
}

func (c *cache) sweepLater() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer == nil && !c.closed {
		c.timer = time.AfterFunc(c.interval, c.sweep)
	}
}

// sweep drops what has expired, so that a burst of devices does not occupy
// memory after it is over.
func (c *cache) sweep() {
	now, left := time.Now(), 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for _, e := range s.entries {
			if !c.valid(e, now) {
				c.remove(s, e)
			}
		}
		if left += len(s.entries); len(s.entries) == 0 {
			s.entries = make(map[key]*entry) // a map never shrinks
		}
		s.mu.Unlock()
	}
	c.mu.Lock()
	c.timer = nil
	c.mu.Unlock()
	if left > 0 {
		c.sweepLater()
	}
}

// len counts the entries, expired ones included.
func (c *cache) len() int {
	n := 0
	for i := range c.shards {
		c.shards[i].mu.Lock()
		n += len(c.shards[i].entries)
		c.shards[i].mu.Unlock()
	}
	return n
}

func (c *cache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}
