package dynamostore

import (
	"context"
	"slices"

	"github.com/sluice-iot/sluice/internal/eventstore"
)

const (
	// maxTrim is how many batches one change removes of those that are done.
	maxTrim = 200
	// dropPage is how many batches are looked at, at once, for those to be dropped.
	dropPage = 100
)

// row is what is known of a batch without its body.
type row struct {
	key         key
	first, last uint64
	size        int64
	offset      uint64 // bytes of all batches before it that ever were
	expires     int64
}

// rows calls f for the batches that end at from or later, in order. Read units are those of
// whole batches.
func (s *Store) rows(ctx context.Context, k eventstore.Key, from uint64, limit func() int, f func(row) (stop bool, err error)) error {
	q := question{pk: batchesPK(k), from: position(from), limit: limit, fields: "pk, sk, #f, #n, #o, #x",
		names: map[string]string{"#f": "f", "#n": "n", "#o": "o", "#x": "x"}}
	return s.query(ctx, q, func(i item) (bool, error) {
		return f(row{key: i.key(), first: i.position("f"), last: lastOf(i), size: i.num("n"), offset: i.position("o"), expires: i.num("x")})
	})
}

// trim plans the removal of batches that are done and of those that are to be dropped.
// The former are removed after the state was written, at half the price: below Head nobody
// counts them. The latter, which lie between others, are removed in the transaction.
func (s *Store) trim(ctx context.Context, k eventstore.Key, before *stored, p *eventstore.Partition, w *eventstore.Writes, n *plan) error {
	var drops []row
	var err error
	if len(w.Drop) > 0 {
		drops, n.rest, err = s.dropped(ctx, k, unique(w.Drop), p.Cursor, maxOps-len(n.ops))
		if err != nil {
			return err
		}
	}
	for _, r := range drops {
		n.ops = append(n.ops, op{key: r.key})
		p.Bytes -= r.size
	}
	left, err := s.left(ctx, k, before, p, drops, n)
	if err != nil {
		return err
	}
	fresh := int64(0)
	for i := range w.Batches {
		fresh += int64(len(w.Batches[i].Body))
	}
	switch {
	case left != nil:
		// What DynamoDB removed by itself before that batch is not there to be subtracted.
		p.Head, p.Bytes = left.last, max(0, min(p.Bytes, int64(n.total-left.offset)))
	case fresh > 0:
		p.Head, p.Bytes = w.Batches[0].Last, fresh
	default:
		p.Head, p.Bytes = 0, 0
	}
	return nil
}

// left finds the first batch that stays, and plans the removal of those before it.
func (s *Store) left(ctx context.Context, k eventstore.Key, before *stored, p *eventstore.Partition, drops []row, n *plan) (left *row, err error) {
	g := gaps{s: s, k: k, next: p.Cursor}
	full := false
	page := 1
	more := func() int { page = min(2*page, maxTrim); return page } // seldom more than is wanted: what is read costs
	err = s.rows(ctx, k, 0, more, func(r row) (bool, error) {
		if r.last < p.Cursor {
			if full = len(n.remove) == maxTrim; full {
				left = &r
				return true, nil
			}
			n.remove = append(n.remove, r.key)
			if before.state.Head > 0 && r.last >= before.state.Head { // else it is subtracted already
				p.Bytes -= r.size
			}
			return false, nil
		}
		if ok, err := g.check(ctx, r.first, r.last); !ok || err != nil {
			return true, orBusy(err)
		}
		if slices.ContainsFunc(drops, func(d row) bool { return d.first == r.first }) {
			return false, nil
		}
		left = &r
		return true, nil
	})
	if err != nil || left != nil {
		return left, err
	}
	if ok, err := g.check(ctx, before.state.End, 0); !ok || err != nil {
		return nil, orBusy(err)
	}
	return nil, nil
}

func orBusy(err error) error {
	if err == nil {
		return errBusy
	}
	return err
}

// gaps finds out whether positions without a batch had one that is gone. It
// may be there and not visible yet: DynamoDB applies a transaction to one item after
// the other, and a plain read may see the new state before the batch beside it. Who
// took such a batch for gone would lose its events.
type gaps struct {
	s    *Store
	k    eventstore.Key
	next uint64          // the batches before it were looked at
	sure map[uint64]bool // ends of gaps that were found to be ones
}

// check looks at the positions before a batch: ok is false when another batch is about to
// show there. last is that of the batch, 0 = there is none and first is the end.
func (g *gaps) check(ctx context.Context, first, last uint64) (ok bool, err error) {
	defer func() { g.next = max(g.next, last+1) }()
	if first <= g.next || g.sure[first] {
		return true, nil
	}
	// A batch before this one ends where this one begins.
	ok, err = g.s.gone(ctx, key{batchesPK(g.k), position(first - 1)})
	if ok {
		if g.sure == nil {
			g.sure = map[uint64]bool{}
		}
		g.sure[first] = true
	}
	return ok, err
}

// dropped finds the batches that begin at the given positions, ascending, and do not end below
// the cursor: those are trimmed anyway. rest are those that no longer found room.
func (s *Store) dropped(ctx context.Context, k eventstore.Key, firsts []uint64, cursor uint64, room int) (found []row, rest []uint64, err error) {
	for len(firsts) > 0 {
		if len(found) >= room {
			return found, firsts, nil
		}
		seen := 0
		err := s.rows(ctx, k, max(firsts[0], cursor), func() int { return dropPage }, func(r row) (bool, error) {
			for len(firsts) > 0 && firsts[0] < r.first {
				firsts = firsts[1:] // it is not there
			}
			if len(firsts) > 0 && firsts[0] == r.first {
				found, firsts = append(found, r), firsts[1:]
			}
			seen++
			return len(firsts) == 0 || len(found) >= room || seen == dropPage, nil
		})
		if err != nil {
			return nil, nil, err
		}
		if seen == 0 {
			break
		}
		if seen < dropPage && len(found) < room {
			break // there are no more
		}
	}
	return found, nil, nil
}
