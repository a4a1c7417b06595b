package assertion

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// cacheShards is a power of two; it bounds how many readers of different
// connections meet at one lock.
const cacheShards = 16

// entry is a token whose signature was verified. Only checked changes.
type entry struct {
	claims  Claims
	kid     string
	checked atomic.Uint64 // epoch of the voids it was last compared with
}

// cache remembers verified tokens by their bytes, at most size of them.
type cache struct {
	seed   maphash.Seed
	shards [cacheShards]shard
}

type shard struct {
	mu  sync.RWMutex
	max int
	m   map[string]*entry
}

func newCache(size int) *cache {
	c := &cache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i] = shard{max: max(1, size/cacheShards), m: map[string]*entry{}}
	}
	return c
}

func (c *cache) shard(token []byte) *shard {
	return &c.shards[maphash.Bytes(c.seed, token)%cacheShards]
}

func (c *cache) get(token []byte) *entry {
	s := c.shard(token)
	s.mu.RLock()
	e := s.m[string(token)]
	s.mu.RUnlock()
	return e
}

func (c *cache) drop(token []byte) {
	s := c.shard(token)
	s.mu.Lock()
	delete(s.m, string(token))
	s.mu.Unlock()
}

func (c *cache) put(token string, e *entry, now time.Time) {
	s := c.shard([]byte(token))
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.m[token]; !there && len(s.m) >= s.max {
		s.evict(now)
	}
	s.m[token] = e
}

// evict makes room: of a few entries in random order the one that ends first
// goes, with all that have ended.
func (s *shard) evict(now time.Time) {
	const sample = 8
	victim, seen := "", 0
	var first time.Time
	for k, e := range s.m {
		if now.After(e.claims.Expires) {
			delete(s.m, k)
		} else if victim == "" || e.claims.Expires.Before(first) {
			victim, first = k, e.claims.Expires
		}
		if seen++; seen == sample {
			break
		}
	}
	if len(s.m) >= s.max {
		delete(s.m, victim)
	}
}

// keepKeys forgets every token whose key is not among kids any more.
func (c *cache) keepKeys(kids map[string]publicKey) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for k, e := range s.m {
			if _, ok := kids[e.kid]; !ok {
				delete(s.m, k)
			}
		}
		s.mu.Unlock()
	}
}

func (c *cache) len() (n int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		n += len(s.m)
		s.mu.RUnlock()
	}
	return n
}

// CachedTokens returns how many verified tokens are remembered, for metrics.
func (v *Verifier) CachedTokens() int { return v.cache.len() }
