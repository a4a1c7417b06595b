package dynamostore

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// atOnce is how many changes of one Update are worked on at the same time.
const atOnce = 32

// Update implements eventstore.Store: one conditional write or transaction for each change.
func (s *Store) Update(ctx context.Context, changes []eventstore.Change) []error {
	errs := make([]error, len(changes))
	var next, failed atomic.Int64
	var all sync.WaitGroup
	work := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(changes) {
				return
			}
			if errs[i] = s.admit(ctx, changes[i]); errs[i] != nil {
				failed.Add(1)
			}
		}
	}
	for range min(len(changes), atOnce) - 1 {
		all.Go(work)
	}
	work()
	all.Wait()
	if failed.Load() == 0 {
		return nil
	}
	return errs
}

// admit waits until there is room for another change.
func (s *Store) admit(ctx context.Context, c eventstore.Change) error {
	if err := storable(c.Key.Tenant); err != nil {
		return err
	}
	patience, cancel := context.WithTimeoutCause(ctx, s.patience, errBusy)
	defer cancel()
	select {
	case s.room <- struct{}{}:
		defer func() { <-s.room }()
	case <-patience.Done():
		return s.impatient(ctx, s.translate(patience, patience.Err()))
	}
	return s.impatient(ctx, s.update(patience, c))
}

// impatient distinguishes a caller's deadline from our own.
func (s *Store) impatient(ctx context.Context, err error) error {
	if errors.Is(err, iot.ErrTimeout) && ctx.Err() == nil {
		return unavailable(errBusy)
	}
	return err
}

// update carries out a change: one at a time in this process, in competition
// with other processes.
func (s *Store) update(ctx context.Context, c eventstore.Change) error {
	l, err := s.lock(ctx, c.Key)
	if err != nil {
		return err
	}
	defer s.unlock(l)
	l.st.fresh = false
	remembered := l.known
	for try := 0; ; try++ {
		rest, err := s.attempt(ctx, c, l)
		switch {
		case errors.Is(err, errMoved) && remembered:
			remembered = false // what this process remembered was old: nobody competes yet
		case errors.Is(err, errMoved), errors.Is(err, errBusy):
			if err := s.pause(ctx, try); err != nil {
				return err
			}
		case err != nil:
			return err
		case len(rest) > 0: // it did not find room in one transaction
			c.Apply = func(_ *eventstore.Partition, w *eventstore.Writes) error {
				w.Drop = rest
				return nil
			}
		default:
			return nil
		}
	}
}

// attempt applies a change once and writes its outcome. rest are batches that
// are still to be dropped.
func (s *Store) attempt(ctx context.Context, c eventstore.Change, l *slot) (rest []uint64, err error) {
	if !l.known {
		if l.st, err = s.load(ctx, c.Key); err != nil {
			return nil, err
		}
		l.known = true
	}
	p, w := l.st.state.Clone(), eventstore.Writes{}
	if err := c.Apply(&p, &w); err != nil || w.Unchanged {
		return nil, s.confirm(ctx, c.Key, l, err)
	}
	n, err := s.plan(ctx, c.Key, &l.st, &p, &w)
	if err != nil {
		return nil, err
	}
	found, err := s.write(ctx, c.Key, &l.st, &n.stored, n.ops)
	switch {
	case err == nil:
		l.st = n.stored
		s.saw(c.Key, p.End)
		// What stays is found by the next trim, and nobody reads it.
		_ = s.remove(ctx, n.remove)
	case errors.Is(err, errMoved):
		l.st = found
	default:
		l.known = false // it may have been made all the same
	}
	return n.rest, err
}

// confirm makes sure that a refusal, or that there is nothing to do, does not
// rest on a state that was only remembered.
func (s *Store) confirm(ctx context.Context, k eventstore.Key, l *slot, outcome error) error {
	if l.st.fresh {
		return outcome
	}
	now, err := s.load(ctx, k)
	if err != nil {
		l.known = false
		return err
	}
	was := l.st.version
	if l.st = now; now.version != was {
		return errMoved
	}
	return outcome
}

// plan is what a change writes.
type plan struct {
	stored
	ops    []op
	remove []key    // afterwards: nobody needs them
	rest   []uint64 // of Writes.Drop
}

// op is one write of a transaction beside the state: of a whole item, or its removal.
type op struct {
	key key
	put item // nil = remove
}

// maxOps is what a transaction has room for beside the state. DynamoDB allows 100.
const maxOps = 98

func (s *Store) plan(ctx context.Context, k eventstore.Key, before *stored, p *eventstore.Partition, w *eventstore.Writes) (*plan, error) {
	n := &plan{stored: stored{version: before.version + 1, token: newToken(), total: before.total, expiry: before.expiry, fresh: true}}
	if before.version == 0 {
		n.ops = append(n.ops, op{key: tenantKey(k.Tenant), put: item{}})
	}
	for i := range w.Batches {
		b := &w.Batches[i]
		n.ops = append(n.ops, batchOp(k, b, n.total))
		n.total += uint64(len(b.Body))
		n.note(b.Expires)
	}
	n.ops = append(n.ops, moveExpiry(k, before.expiry, n.expiry)...)
	for i := range w.Dead {
		n.ops = append(n.ops, deadOp(k, &w.Dead[i]))
	}
	for _, at := range unique(w.DropDead) {
		n.ops = append(n.ops, op{key: key{deadPK(k), position(at)}})
	}
	if len(w.Drop) > 0 || p.Head > 0 && p.Cursor > p.Head {
		if err := s.trim(ctx, k, before, p, w, n); err != nil {
			return nil, err
		}
	}
	n.state = *p
	return n, nil
}

// note lowers the hour under which the partition is noted.
func (n *stored) note(expires int64) {
	if hour := hourOf(expires); hour != 0 && (n.expiry == 0 || hour < n.expiry) {
		n.expiry = hour
	}
}

const hour = 3_600_000 // ms

// hourOf is the hour that a time lies in or ends with, so that with the hour it is over; 0 = never.
func hourOf(expires int64) int64 { return (expires + hour - 1) / hour }

// moveExpiry notes a partition under another hour.
func moveExpiry(k eventstore.Key, from, to int64) (ops []op) {
	if from == to {
		return nil
	}
	if from != 0 {
		ops = append(ops, op{key: expiryKey(k, from)})
	}
	if to != 0 {
		ops = append(ops, op{key: expiryKey(k, to), put: item{"t": str(string(k.Tenant)), "p": str(k.Partition.String())}})
	}
	return ops
}

func unique(list []uint64) []uint64 {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}
