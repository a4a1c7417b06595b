package sqlitestore

import (
	"sync"

	"github.com/sluice-iot/sluice/internal/eventstore"
)

// part is a partition as it is in the file. Its state is not changed once others can see it.
type part struct {
	id    int64 // 0 = not in the file
	state eventstore.Partition
}

// cache keeps the states that were used lately: new ones, and those that were new before
// half of the room was taken. Only the writer puts something in, so that nothing
// in it is older than the file.
type cache struct {
	mu       sync.Mutex
	max      int
	new, old map[eventstore.Key]part
}

func (c *cache) get(key eventstore.Key) (part, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.new[key]; ok {
		return p, true
	}
	p, ok := c.old[key]
	if ok {
		c.set(key, p)
	}
	return p, ok
}

// put keeps what a transaction has written or read.
func (c *cache) put(parts map[eventstore.Key]*loaded) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, p := range parts {
		if p.id != 0 {
			c.set(key, p.part)
		}
	}
}

func (c *cache) set(key eventstore.Key, p part) {
	if _, there := c.new[key]; !there && len(c.new) >= max(1, c.max/2) {
		c.old, c.new = c.new, nil
	}
	if c.new == nil {
		c.new = map[eventstore.Key]part{}
	}
	c.new[key] = p
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.new, c.old = nil, nil
}
