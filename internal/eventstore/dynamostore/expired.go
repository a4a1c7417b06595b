package dynamostore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// maxHoles is from how many holes on a partition is left to its readers: a sweep
// could not note more of them.
const maxHoles = 200

// Expired implements eventstore.Store. It walks through the partitions that are noted under
// an hour that is over, and finds what has expired and what DynamoDB has
// removed already. A partition where nothing is found any more is noted under the hour that comes next.
func (s *Store) Expired(ctx context.Context, until int64, max int) (all []eventstore.ExpiredBatch, err error) {
	first := rand.IntN(expiryShards) // so that none waits for the same others each time
	for n := range expiryShards {
		q := question{pk: shardPK((first + n) % expiryShards), below: fmt.Sprintf("%010d", until/hour+1)}
		err := s.query(ctx, q, func(i item) (bool, error) {
			if len(all) >= max {
				return true, nil
			}
			k := eventstore.Key{Tenant: iot.TenantID(i.str("t"))}
			if err := k.Partition.UnmarshalText([]byte(i.str("p"))); err != nil {
				return true, corrupt(i.key(), err)
			}
			found, err := s.sweep(ctx, k, until, max-len(all))
			all = append(all, found...)
			return false, err
		})
		if err != nil && len(all) == 0 {
			return nil, err
		}
		if err != nil || len(all) >= max {
			return all, nil // what is found is worth a call; an error comes again
		}
	}
	return all, nil
}

// sweep finds what has expired of a partition, up to max runs of positions.
func (s *Store) sweep(ctx context.Context, k eventstore.Key, until int64, max int) ([]eventstore.ExpiredBatch, error) {
	st, err := s.load(ctx, k)
	if err != nil || st.expiry == 0 {
		return nil, err
	}
	w := walk{k: k, p: &st.state, max: max}
	g := gaps{s: s, k: k, next: st.state.Cursor}
	err = s.rows(ctx, k, st.state.Cursor, nil, func(r row) (bool, error) {
		next := g.next
		if ok, err := g.check(ctx, r.first, r.last); !ok || err != nil {
			return true, orBusy(err)
		}
		w.hole(next, r.first)
		w.row(&r, until)
		return len(w.found) >= max, nil
	})
	if err == nil && len(w.found) < max {
		next := g.next
		var ok bool
		if ok, err = g.check(ctx, st.state.End, 0); err == nil && !ok {
			err = errBusy
		}
		w.hole(next, st.state.End)
	}
	if errors.Is(err, errBusy) {
		return nil, nil // somebody works on it: the next sweep comes by
	}
	if err != nil || len(w.found) > 0 {
		return w.found, err
	}
	return nil, s.tidy(ctx, k, &st, &w)
}

// tidy notes a partition of which nothing has expired under the hour that comes next, and
// corrects what DynamoDB's own removals left too high. Whoever changes the partition meanwhile wins.
func (s *Store) tidy(ctx context.Context, k eventstore.Key, st *stored, w *walk) error {
	n := *st
	n.version, n.token, n.expiry = st.version+1, newToken(), 0
	if st.state.Head == 0 || st.state.Cursor <= st.state.Head { // else batches below the cursor are still to be removed
		n.state.Head, n.state.Bytes = w.head, w.bytes
	}
	n.note(w.next)
	_, err := s.write(ctx, k, st, &n, moveExpiry(k, st.expiry, n.expiry))
	if errors.Is(err, errMoved) || errors.Is(err, errBusy) {
		return nil
	}
	return err
}

// walk adds up the batches of a partition.
type walk struct {
	k     eventstore.Key
	p     *eventstore.Partition
	max   int
	found []eventstore.ExpiredBatch
	head  uint64 // end of the first batch
	bytes int64  // of all
	next  int64  // the earliest expiry, Unix ms; 0 = none
}

// hole reports positions without a batch that are not done.
func (w *walk) hole(from, end uint64) {
	for _, d := range w.p.Done {
		if from >= end || d.From >= end {
			break
		}
		if d.From > from {
			w.report(from, d.From-1)
		}
		from = max(from, d.To+1)
	}
	if from < end {
		w.report(from, end-1)
	}
}

func (w *walk) report(first, last uint64) {
	if len(w.found) < w.max && (len(w.p.Done) < maxHoles || first <= w.p.Cursor) {
		w.found = append(w.found, eventstore.ExpiredBatch{Key: w.k, First: first, Last: last})
	}
}

func (w *walk) row(r *row, until int64) {
	if w.head == 0 {
		w.head = r.last
	}
	w.bytes += r.size
	switch {
	case r.expires == 0:
	case r.expires <= until:
		if len(w.found) < w.max {
			w.found = append(w.found, eventstore.ExpiredBatch{Key: w.k, First: r.first, Last: r.last})
		}
	case w.next == 0 || r.expires < w.next:
		w.next = r.expires
	}
}
