package stored

import (
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// maxTenantQueued is how many bytes of one tenant may wait to be stored: its flood is its own.
	maxTenantQueued = maxQueued / 4
	// A tenant's turn, where others wait as well.
	turnRecords = 64
	turnBytes   = 128 << 10
)

// lines is what waits to be stored: a line for each tenant, which take turns.
type lines struct {
	of   map[iot.TenantID]*line
	ring []*line // those that are not empty; the one whose turn it is first
	n    int     // items
}

// line is what waits of one tenant, in order.
type line struct {
	tenant iot.TenantID
	items  []item
	bytes  int64
}

// put adds an item, and reports false where its tenant has too much already.
func (q *lines) put(it item) bool {
	l := q.of[it.record.Tenant]
	if l == nil {
		if q.of == nil {
			q.of = map[iot.TenantID]*line{}
		}
		l = &line{tenant: it.record.Tenant}
		q.of[l.tenant] = l
		q.ring = append(q.ring, l)
	}
	if size := it.size(); l.bytes+size <= maxTenantQueued || len(l.items) == 0 {
		l.bytes += size
		l.items = append(l.items, it)
		q.n++
		return true
	}
	return false
}

func (q *lines) empty() bool { return len(q.ring) == 0 }

// next takes what one append may have, a turn of each line after the other, and what has waited since
// before oldest.
func (q *lines) next(oldest time.Time) (late, batch []item) {
	batch = make([]item, 0, min(q.n, eventstore.MaxRecords))
	size := 0
	defer func() { q.n -= len(late) + len(batch) }()
	for len(q.ring) > 0 {
		l := q.ring[0]
		taken, turn, full := 0, 0, false
		for len(l.items) > 0 && !full {
			it := l.items[0]
			if it.since.Before(oldest) {
				late = append(late, it)
				l.drop()
				continue
			}
			if taken == turnRecords || taken > 0 && turn >= turnBytes {
				break
			}
			n := it.record.Size()
			if full = len(batch) == eventstore.MaxRecords || len(batch) > 0 && size+n > eventstore.MaxBatchBytes; full {
				break
			}
			taken, turn, size = taken+1, turn+n, size+n
			batch = append(batch, it)
			l.drop()
		}
		switch {
		case len(l.items) == 0:
			delete(q.of, l.tenant)
			q.ring = q.ring[1:]
		case full && taken == 0: // its turn is yet to come
			return late, batch
		default:
			q.ring = append(q.ring[1:], l)
		}
		if full {
			return late, batch
		}
	}
	q.ring = nil
	return late, batch
}

func (l *line) drop() {
	l.bytes -= l.items[0].size()
	l.items[0] = item{}
	l.items = l.items[1:]
}
