package eventstore

import (
	"context"
	"errors"
	"sync"

	"github.com/sluice-iot/sluice/internal/iot"
)

// What one call of Expire does about dead letters.
const (
	deadTenants = 64 // looked at
	deadReads   = 64 // of deadAtOnce letters each
)

// buried notes a dead letter that is added.
func (p *Partition) buried(size int, expires int64) {
	p.Dead, p.DeadBytes = p.Dead+1, p.DeadBytes+int64(size)
	if expires != 0 && (p.DeadNext == 0 || expires < p.DeadNext) {
		p.DeadNext = expires
	}
}

// unburied notes that dead letters are removed.
func (p *Partition) unburied(letters []DeadLetter) {
	for i := range letters {
		p.DeadBytes -= int64(len(letters[i].Record))
	}
	p.Dead, p.DeadBytes, p.Swept = max(0, p.Dead-int64(len(letters))), max(0, p.DeadBytes), p.Swept+1
	if p.Dead == 0 {
		p.DeadBytes, p.DeadNext = 0, 0
	}
}

// deadSweep is how far a walk through the dead letters of everybody has come. It begins
// anew when it has come to its end.
type deadSweep struct {
	mu    sync.Mutex
	after iot.TenantID // this one and those before it are done
	walk  *deadWalk    // in the next one
}

// deadWalk is a walk through the dead letters of a partition.
type deadWalk struct {
	key   Key
	from  uint64
	swept uint64 // what Swept is to be at the end, unless others removed some, too
	kept  int64  // letters
	next  int64  // when the first of those expires; 0 = none does
}

// expireDead removes dead letters that have expired, where there are any, of a bounded number of
// tenants. It returns how many those were, and whether there are more tenants to look at.
func (l *Log) expireDead(ctx context.Context) (n int64, more bool, err error) {
	d := &l.dead
	if !d.mu.TryLock() {
		return 0, false, nil // another call is at it
	}
	defer d.mu.Unlock()
	tenants, err := l.store.Tenants(ctx, d.after, deadTenants)
	if err != nil {
		return 0, false, err
	}
	reads := deadReads
	for _, tenant := range tenants {
		stored, err := l.store.PartitionsOf(ctx, tenant)
		if err != nil {
			return n, false, err
		}
		for i := range stored {
			if !d.due(Key{tenant, stored[i].ID}, &stored[i].State, l.now()) {
				continue
			}
			removed, end, err := l.walkDead(ctx, d.walk, &reads)
			if n += removed; err != nil {
				d.walk = nil
				return n, false, err
			}
			if !end {
				return n, true, nil
			}
		}
		d.after, d.walk = tenant, nil
	}
	if len(tenants) < deadTenants {
		d.after = ""
		return n, false, nil
	}
	return n, true, nil
}

// due reports whether there is to be a walk through a partition, and begins it where it has not begun.
func (d *deadSweep) due(key Key, p *Partition, now int64) bool {
	if d.walk != nil && d.walk.key.Tenant == key.Tenant {
		if c := key.Compare(d.walk.key); c <= 0 {
			return c == 0 // it goes on
		}
	}
	if p.Dead == 0 || p.DeadNext == 0 || p.DeadNext > now {
		return false
	}
	d.walk = &deadWalk{key: key, swept: p.Swept}
	return true
}

// walkDead goes on with a walk until its end, or until all reads are used.
func (l *Log) walkDead(ctx context.Context, w *deadWalk, reads *int) (n int64, end bool, err error) {
	now := l.now()
	for ; *reads > 0; *reads-- {
		page, err := l.store.DeadLetters(ctx, w.key, w.from, deadAtOnce)
		if err != nil {
			return n, false, err
		}
		var gone []uint64
		for i := range page {
			w.from = page[i].Position + 1
			switch expires := page[i].expires(); {
			case expires != 0 && expires <= now:
				gone = append(gone, page[i].Position)
				continue
			case expires != 0 && (w.next == 0 || expires < w.next):
				w.next = expires
			}
			w.kept++
		}
		removed, err := l.dropDead(ctx, w, gone)
		if n += removed; err != nil {
			return n, false, err
		}
		if len(page) < deadAtOnce {
			return n, true, l.update(ctx, w.key, func(p *Partition, writes *Writes) error {
				// Where others removed or added some meanwhile, the next walk finds out.
				if writes.Unchanged = p.Swept != w.swept || p.Dead != w.kept || p.DeadNext == w.next; !writes.Unchanged {
					p.DeadNext = w.next
				}
				return nil
			})
		}
	}
	return n, false, nil
}

// dropDead removes some dead letters; where somebody else removes them at the same time, the rest is
// left to the next walk.
func (l *Log) dropDead(ctx context.Context, w *deadWalk, positions []uint64) (n int64, err error) {
	for len(positions) > 0 {
		removed, _, err := l.sweep(ctx, w.key, positions, func(*Partition, *Writes, []DeadLetter) error { return nil })
		switch {
		case errors.Is(err, errSwept) || errors.Is(err, iot.ErrNotFound) || err == nil && removed == 0:
			return n, nil
		case err != nil:
			return n, err
		}
		n, positions = n+int64(removed), positions[removed:]
		w.swept++
	}
	return n, nil
}

// expires is when a dead letter does; 0 = never, also for one that does not decode.
func (d *DeadLetter) expires() int64 {
	r, _, err := Decode(d.Record)
	if err != nil {
		return 0
	}
	return r.Expires
}
