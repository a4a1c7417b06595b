package eventstore

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Settle settles events that the holder of the fence has delivered: what was settled
// before, or is delivered under another attempt, is left as it is. iot.ErrExists
// when the fence is not the partition's, iot.ErrInvalid for settlements that are none.
func (l *Log) Settle(ctx context.Context, r SettleRequest) (*SettleResult, error) {
	if len(r.Settlements) > MaxRecords {
		return nil, iot.Errorf(iot.ErrTooLarge, "%d settlements, at most %d are taken at once", len(r.Settlements), MaxRecords)
	}
	for i := range r.Settlements {
		if err := r.Settlements[i].Check(); err != nil {
			return nil, err
		}
	}
	key := Key{r.Tenant, r.Partition}
	s := &settling{fence: r.Fence, settlements: r.Settlements, most: uint16(min(l.o.MaxAttempts, 1<<16-1)), now: l.now(),
		records: map[uint64][]byte{}, known: map[uint64]bool{}}
	out := &SettleResult{}
	apply := func(p *Partition, w *Writes) error {
		if err := s.apply(p, w); err != nil {
			return err
		}
		out.NextAt, out.Wanted = p.nextAt(), p.Wanted != "" && p.Wanted != p.Holder
		return nil
	}
	for {
		err := l.update(ctx, key, apply)
		if errors.Is(err, errLacks) {
			if err := l.fetch(ctx, key, s); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, letter := range s.dead {
			out.Dead = append(out.Dead, letter.Position)
		}
		out.Letters = append(out.Letters, s.dead...)
		if !s.more {
			return out, nil
		}
	}
}

// fetch brings the records that a settlement makes dead letters.
func (l *Log) fetch(ctx context.Context, key Key, s *settling) error {
	found, err := l.encoded(ctx, key, s.lacks)
	if err != nil {
		return err
	}
	for at, record := range found {
		s.records[at] = record
	}
	for _, span := range s.lacks {
		for at := span.From; at <= span.To; at++ {
			s.known[at] = true
		}
	}
	return nil
}

// Expire does with batches of which every event has expired what a read would, at most max
// of them, and removes dead letters that have expired, of some tenants after the other. It returns how many
// events that were, and whether there is more.
func (l *Log) Expire(ctx context.Context, max int) (events int64, more bool, err error) {
	if max <= 0 || max > MaxRecords {
		max = MaxRecords
	}
	now := l.now()
	found, err := l.store.Expired(ctx, now, max)
	if err != nil {
		return 0, false, err
	}
	byKey := map[Key][]ExpiredBatch{}
	for _, b := range found {
		byKey[b.Key] = append(byKey[b.Key], b)
	}
	keys := slices.SortedFunc(maps.Keys(byKey), Key.Compare)
	changes, counts := make([]Change, len(keys)), make([]int64, len(keys))
	for i, key := range keys {
		batches := byKey[key]
		slices.SortFunc(batches, func(a, b ExpiredBatch) int { return cmp.Compare(a.First, b.First) })
		changes[i] = Change{key, func(p *Partition, w *Writes) error {
			counts[i] = p.expire(batches, w)
			return nil
		}}
	}
	errs := l.store.Update(ctx, changes)
	for i, n := range counts {
		if errs == nil || errs[i] == nil {
			events += n
		}
	}
	if more, err = len(found) == max, errors.Join(errs...); err == nil {
		var dead int64
		var moreDead bool
		dead, moreDead, err = l.expireDead(ctx)
		events, more = events+dead, more || moreDead
	}
	l.expired.Add(events)
	return events, more, err
}

// expire drops batches whose events have all expired, and returns how many of those were
// not done. What lies between events that wait is noted as done only while
// that list is short: a read finds out for itself.
func (p *Partition) expire(batches []ExpiredBatch, w *Writes) int64 {
	before := p.Waiting()
	for _, b := range batches {
		w.Drop = append(w.Drop, b.First)
		if len(p.Done) < maxDone/2 || b.First <= p.Cursor {
			p.finish(Span{b.First, b.Last})
		}
	}
	return before - p.Waiting()
}
