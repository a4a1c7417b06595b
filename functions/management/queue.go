package management

import (
	"sync"

	"github.com/sluice-iot/sluice/internal/registry"
)

// The bounds of what is read ahead of the store.
const (
	maxQueued      = 2 * registry.MaxBatch
	maxQueuedBytes = 4 << 20
	// maxPlain is how many passwords are hashed between two results.
	maxPlain = 16
)

// work is one item that was read, or why it could not be.
type work struct {
	line int
	size int // bytes of its text
	item registry.BulkItem
	err  error
}

// queue hands items from the goroutine that reads them to the one that has them
// done, so that the store gets large portions when it is slower, and small ones
// at once when it is not.
type queue struct {
	mu      sync.Mutex
	changed *sync.Cond
	items   []work
	bytes   int
	ended   bool
	err     error
	stopped bool
}

func newQueue() *queue {
	q := &queue{}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// put adds an item when there is room; false when nobody takes them any more.
func (q *queue) put(w work) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.stopped && (len(q.items) >= maxQueued || q.bytes >= maxQueuedBytes) {
		q.changed.Wait()
	}
	if q.stopped {
		return false
	}
	q.items = append(q.items, w)
	q.bytes += w.size
	q.changed.Broadcast()
	return true
}

// end says that no more items come: err tells why, nil that all were read.
func (q *queue) end(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended, q.err = true, err
	q.changed.Broadcast()
}

// stop says that no more items are taken.
func (q *queue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	q.changed.Broadcast()
}

// take waits for items and returns a portion of them; none when there are no more.
func (q *queue) take() ([]work, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.ended && !q.stopped {
		q.changed.Wait()
	}
	if len(q.items) == 0 || q.stopped {
		return nil, q.err
	}
	n, plain := 0, 0
	for n < len(q.items) && n < registry.MaxBatch && plain < maxPlain {
		plain += q.items[n].item.PlainPasswords()
		q.bytes -= q.items[n].size
		n++
	}
	portion := append([]work(nil), q.items[:n]...)
	rest := copy(q.items, q.items[n:])
	clear(q.items[rest:])
	q.items = q.items[:rest]
	q.changed.Broadcast()
	return portion, nil
}
