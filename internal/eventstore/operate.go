package eventstore

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// PartitionStats says how a partition stands.
type PartitionStats struct {
	Partition   PartitionID `json:"partition"`
	Waiting     int64       `json:"waiting"`   // events that are kept
	InFlight    int64       `json:"in-flight"` // of those, delivered at least once or on their way
	Bytes       int64       `json:"bytes"`     // of whole batches
	DeadLetters int64       `json:"dead-letters"`
	Oldest      *time.Time  `json:"oldest,omitempty"` // when the batch of the first that waits was appended
	Holder      string      `json:"holder,omitempty"`
}

// Stats says how a tenant's events stand.
type Stats struct {
	Tenant      iot.TenantID     `json:"tenant-id"`
	Waiting     int64            `json:"waiting"`
	InFlight    int64            `json:"in-flight"`
	Bytes       int64            `json:"bytes"`
	DeadLetters int64            `json:"dead-letters"`
	Oldest      *time.Time       `json:"oldest,omitempty"`
	Partitions  []PartitionStats `json:"partitions"` // those that were ever used
}

// Stats counts a tenant's events.
func (l *Log) Stats(ctx context.Context, tenant iot.TenantID) (*Stats, error) {
	stored, err := l.store.PartitionsOf(ctx, tenant)
	if err != nil {
		return nil, err
	}
	out := &Stats{Tenant: tenant, Partitions: []PartitionStats{}}
	for i := range stored {
		p := &stored[i].State
		s := PartitionStats{Partition: stored[i].ID, Waiting: p.Waiting(), InFlight: p.InFlight(), Bytes: p.Bytes, DeadLetters: p.Dead, Holder: p.Holder}
		if s.Waiting > 0 {
			first, err := l.store.Batches(ctx, Key{tenant, stored[i].ID}, p.Cursor, 1)
			if err != nil {
				return nil, err
			}
			if len(first) > 0 {
				at := time.UnixMilli(first[0].At).UTC()
				s.Oldest = &at
			}
		}
		if s.Oldest != nil && (out.Oldest == nil || s.Oldest.Before(*out.Oldest)) {
			out.Oldest = s.Oldest
		}
		out.Waiting, out.InFlight = out.Waiting+s.Waiting, out.InFlight+s.InFlight
		out.Bytes, out.DeadLetters = out.Bytes+s.Bytes, out.DeadLetters+s.DeadLetters
		out.Partitions = append(out.Partitions, s)
	}
	return out, nil
}

// Tenants returns up to max tenants that ever had an event or a consumer, those
// after the given one, in order.
func (l *Log) Tenants(ctx context.Context, after iot.TenantID, max int) ([]iot.TenantID, error) {
	return l.store.Tenants(ctx, after, max)
}

// BrowseRequest asks for events without taking them.
type BrowseRequest struct {
	Tenant    iot.TenantID `json:"tenant-id"`
	Partition PartitionID  `json:"partition"`
	Dead      bool         `json:"dead,omitempty"` // dead letters, not what waits
	From      uint64       `json:"from,omitempty"` // position
	Max       int          `json:"max,omitempty"`  // 0 = 100
}

// Browsed is an event as it lies in the store.
type Browsed struct {
	Record   Record
	At       int64  // Unix ms: when it was appended, or given up
	Attempts uint16 // deliveries so far
	Reason   string // of a dead letter
}

const (
	maxBrowse = 1000
	// deadAtOnce is how many dead letters are loaded at once: each may be large.
	deadAtOnce = 16
)

// Browse returns events in the order of their positions, none that has expired, at most
// [MaxBatchBytes] of them. next is where to go on, 0 = there is no more.
func (l *Log) Browse(ctx context.Context, r BrowseRequest) (list []Browsed, next uint64, err error) {
	if r.Max <= 0 {
		r.Max = 100
	}
	r.Max = min(r.Max, maxBrowse)
	if r.Dead {
		return l.browseDead(ctx, r)
	}
	key := Key{r.Tenant, r.Partition}
	p, err := l.store.Partition(ctx, key)
	if err != nil {
		return nil, 0, err
	}
	now, size := l.now(), 0
	for at := max(r.From, p.Cursor); at < p.End; {
		batches, err := l.store.Batches(ctx, key, at, MaxBatchBytes)
		if err != nil {
			return nil, 0, err
		}
		if len(batches) == 0 {
			break
		}
		for i := range batches {
			for body := batches[i].Body; len(body) > 0; {
				rec, rest, err := Decode(body)
				if err != nil {
					return nil, 0, iot.Errorf(iot.ErrUnavailable, "a stored batch does not decode: %v", err)
				}
				body = rest
				if rec.Position < at || rec.Expires != 0 && rec.Expires <= now || !p.waits(rec.Position) {
					continue
				}
				if size += rec.Size(); len(list) == r.Max || size > MaxBatchBytes && len(list) > 0 {
					return list, rec.Position, nil
				}
				list = append(list, Browsed{Record: rec, At: batches[i].At, Attempts: p.attempts(rec.Position)})
			}
		}
		at = batches[len(batches)-1].Last + 1
	}
	return list, 0, nil
}

// waits reports whether a position is not done.
func (p *Partition) waits(position uint64) bool {
	return position >= p.Cursor && position < p.End &&
		!slices.ContainsFunc(p.Done, func(s Span) bool { return s.From <= position && position <= s.To })
}

// attempts is how often a position was delivered.
func (p *Partition) attempts(position uint64) uint16 {
	for _, r := range p.Runs {
		if r.From <= position && position <= r.To {
			return r.Attempt
		}
	}
	return 0
}

func (l *Log) browseDead(ctx context.Context, r BrowseRequest) (list []Browsed, next uint64, err error) {
	now, size := l.now(), 0
	for from := r.From; ; {
		found, err := l.store.DeadLetters(ctx, Key{r.Tenant, r.Partition}, from, deadAtOnce)
		if err != nil {
			return nil, 0, err
		}
		for i := range found {
			if at := found[i].expires(); at != 0 && at <= now {
				from = found[i].Position + 1
				continue
			}
			if size += len(found[i].Record); len(list) == r.Max || size > MaxBatchBytes && len(list) > 0 {
				return list, found[i].Position, nil
			}
			rec, _, err := Decode(found[i].Record)
			if err != nil {
				return nil, 0, iot.Errorf(iot.ErrUnavailable, "a dead letter does not decode: %v", err)
			}
			list = append(list, Browsed{Record: rec, At: found[i].At, Attempts: found[i].Attempts, Reason: found[i].Reason})
			from = found[i].Position + 1
		}
		if len(found) < deadAtOnce {
			return list, 0, nil
		}
	}
}

// RequeueRequest brings dead letters back as new events.
type RequeueRequest struct {
	Tenant    iot.TenantID `json:"tenant-id"`
	Partition PartitionID  `json:"partition"`
	Positions []uint64     `json:"positions,omitempty"` // none = the first ones
}

// Requeue appends dead letters anew; those that have expired are removed. It returns how many are waiting
// again, and whether the partition has more of those asked for. iot.ErrNotFound for a
// position at which there is none; those before it are requeued.
func (l *Log) Requeue(ctx context.Context, r RequeueRequest) (events int64, more bool, err error) {
	if len(r.Positions) > MaxRecords {
		return 0, false, iot.Errorf(iot.ErrTooLarge, "%d positions, at most %d are taken at once", len(r.Positions), MaxRecords)
	}
	now, key := l.now(), Key{r.Tenant, r.Partition}
	positions := slices.Compact(slices.Sorted(slices.Values(r.Positions)))
	for {
		var list []*Record
		n, rest, err := l.sweep(ctx, key, positions, func(p *Partition, w *Writes, found []DeadLetter) error {
			list = nil
			for i := range found {
				rec, _, err := Decode(found[i].Record)
				if err != nil {
					return iot.Errorf(iot.ErrUnavailable, "a dead letter does not decode: %v", err)
				}
				if rec.Expires == 0 || rec.Expires > now {
					rec.Attempt = 0
					list = append(list, &rec)
				}
			}
			p.store(list, now, w)
			return nil
		})
		if err != nil {
			return events, true, err
		}
		if events += int64(len(list)); len(r.Positions) == 0 {
			return events, rest, nil
		}
		if positions = positions[n:]; len(positions) == 0 {
			return events, false, nil
		}
	}
}

// End returns the next position that a partition will give.
func (l *Log) End(ctx context.Context, key Key) (uint64, error) {
	p, err := l.store.Partition(ctx, key)
	return p.End, err
}

// errSwept says that others removed dead letters meanwhile.
var errSwept = iot.Errorf(iot.ErrUnavailable, "others removed dead letters of the partition at the same time")

// sweep removes as many dead letters as one change may, those at positions or else the first
// ones, together with what apply does with them: once, though others do the same at
// the same time. It returns how many that were, and whether there are more.
func (l *Log) sweep(ctx context.Context, key Key, positions []uint64, apply func(*Partition, *Writes, []DeadLetter) error) (n int, more bool, err error) {
	for range 5 {
		before, err := l.store.Partition(ctx, key)
		if err != nil {
			return 0, false, err
		}
		found, more, err := l.portion(ctx, key, positions)
		if err != nil || len(found) == 0 {
			return 0, false, err
		}
		err = l.update(ctx, key, func(p *Partition, w *Writes) error {
			if p.Swept != before.Swept {
				return errSwept
			}
			for i := range found {
				w.DropDead = append(w.DropDead, found[i].Position)
			}
			p.unburied(found)
			return apply(p, w, found)
		})
		if err == nil {
			return len(found), more, nil
		}
		if !errors.Is(err, errSwept) {
			return 0, false, err
		}
	}
	return 0, false, errSwept
}

// portion returns dead letters of a partition, as many as one change may deal
// with: those at positions, else the first ones.
func (l *Log) portion(ctx context.Context, key Key, positions []uint64) (found []DeadLetter, more bool, err error) {
	size := 0
	full := func(d *DeadLetter) bool {
		size += len(d.Record)
		return len(found) == MaxChangeDead || size > MaxBatchBytes && len(found) > 0
	}
	if len(positions) == 0 {
		all, err := l.store.DeadLetters(ctx, key, 0, MaxChangeDead+1)
		if err != nil {
			return nil, false, err
		}
		for i := range all {
			if full(&all[i]) {
				return found, true, nil
			}
			found = append(found, all[i])
		}
		return found, false, nil
	}
	for _, at := range positions {
		one, err := l.store.DeadLetters(ctx, key, at, 1)
		switch {
		case err != nil:
			return nil, false, err
		case len(one) == 0 || one[0].Position != at:
			return nil, false, iot.Errorf(iot.ErrNotFound, "there is no dead letter at %d", at)
		case full(&one[0]):
			return found, true, nil
		}
		found = append(found, one[0])
	}
	return found, false, nil
}

// PurgeRequest throws events away.
type PurgeRequest struct {
	Tenant    iot.TenantID `json:"tenant-id"`
	Partition PartitionID  `json:"partition"`
	Dead      bool         `json:"dead,omitempty"` // dead letters, not what waits
}

// Purge throws away all events of a partition that wait, or some of its dead letters. It
// returns how many, and whether there are more.
func (l *Log) Purge(ctx context.Context, r PurgeRequest) (events int64, more bool, err error) {
	key := Key{r.Tenant, r.Partition}
	if !r.Dead {
		return l.purge(ctx, key)
	}
	n, more, err := l.sweep(ctx, key, nil, func(*Partition, *Writes, []DeadLetter) error { return nil })
	return int64(n), more, err
}

// purge makes everything done, and goes on until a backend has removed it: it may
// do so by and by, and as long as it lies there it counts.
func (l *Log) purge(ctx context.Context, key Key) (events int64, more bool, err error) {
	end := uint64(0) // what comes meanwhile is left
	for removed := false; !removed; {
		var n int64
		err := l.update(ctx, key, func(p *Partition, w *Writes) error {
			if end == 0 {
				end = p.End
			}
			if removed = p.Cursor >= end && (p.Head == 0 || p.Head >= p.Cursor); removed {
				n, w.Unchanged = 0, true
				return nil
			}
			n = p.Waiting()
			p.finish(Span{p.Cursor, end - 1})
			n -= p.Waiting()
			return nil
		})
		if err != nil {
			return events, true, err
		}
		events += n
	}
	return events, false, nil
}
