package eventstore

import (
	"context"
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Read returns what is to be delivered: events that are due again, then those that were
// never read. What has expired is left out, and done with. iot.ErrExists when
// the fence is not the partition's.
func (l *Log) Read(ctx context.Context, r ReadRequest) (*ReadResult, error) {
	if r.MaxRecords <= 0 || r.MaxRecords > MaxRecords {
		r.MaxRecords = MaxRecords
	}
	if r.MaxBytes <= 0 || r.MaxBytes > MaxBatchBytes {
		r.MaxBytes = MaxBatchBytes
	}
	key := Key{r.Tenant, r.Partition}
	p, err := l.store.Partition(ctx, key)
	if err != nil {
		return nil, err
	}
	if err := p.fenced(r.Fence); err != nil {
		return nil, err
	}
	c := &collector{store: l.store, key: key, p: &p, now: l.now(), records: r.MaxRecords, bytes: r.MaxBytes}
	c.change.fence, c.change.now = r.Fence, c.now
	if err := c.dueAgain(ctx); err != nil {
		return nil, err
	}
	// Nothing is skipped, whatever the caller believes to have read.
	c.change.next = min(max(r.From, p.Cursor), p.Mark)
	if err := c.unread(ctx); err != nil {
		return nil, err
	}
	out := &ReadResult{Records: c.out, Next: c.change.next}
	err = l.update(ctx, key, func(p *Partition, w *Writes) error {
		if err := c.change.apply(p, w); err != nil {
			return err
		}
		out.End, out.NextAt, out.Wanted = p.End, p.nextAt(), p.Wanted != "" && p.Wanted != p.Holder
		return nil
	})
	if err != nil {
		return nil, err
	}
	l.expired.Add(c.change.expired)
	return out, nil
}

// collector reads records of a partition, up to its limits.
type collector struct {
	store   Store
	key     Key
	p       *Partition
	now     int64
	records int // that may still be read
	bytes   int

	out    []Record
	full   bool // the next one finds no room
	change reading
}

// wanted is how many bytes to ask for, for so many records: what is read costs, even where it is not
// wanted. Where records are larger than that the next call brings the rest.
func wanted(records uint64, bytes int) int {
	const typical = 2 << 10
	return max(1, int(min(uint64(max(bytes, 1)), records*typical)))
}

// take adds a record, or notes that it has expired; false = it finds no room.
func (c *collector) take(r Record) bool {
	if r.Expires != 0 && r.Expires <= c.now {
		c.gone(Span{r.Position, r.Position})
		return true
	}
	if c.full = c.records == 0 || c.bytes < r.Size() && len(c.out) > 0; c.full {
		return false
	}
	c.records, c.bytes = c.records-1, c.bytes-r.Size()
	c.out = append(c.out, r)
	return true
}

func (c *collector) gone(s Span) { c.change.gone = cover(c.change.gone, s) }

// dueAgain reads the events whose time has come again.
func (c *collector) dueAgain(ctx context.Context) error {
	for _, run := range c.p.due(c.now, c.records) {
		next := run.From
		for next <= run.To {
			batches, err := c.store.Batches(ctx, c.key, next, wanted(run.To-next+1, c.bytes))
			if err != nil {
				return err
			}
			last, full, err := c.walk(batches, next, run.To, func(r Record) bool {
				r.Attempt = run.Attempt
				if !c.take(r) {
					return false
				}
				c.change.again = cover(c.change.again, Span{r.Position, r.Position})
				return true
			})
			if err != nil || full {
				return err
			}
			next = last + 1
		}
	}
	return nil
}

// unread reads what was never read.
func (c *collector) unread(ctx context.Context) error {
	if c.p.full() {
		return nil
	}
	for !c.full && c.change.next < c.p.End && c.records > 0 && (c.bytes > 0 || len(c.out) == 0) {
		batches, err := c.store.Batches(ctx, c.key, c.change.next, wanted(uint64(c.records), c.bytes))
		if err != nil {
			return err
		}
		last, full, err := c.walk(batches, c.change.next, c.p.End-1, func(r Record) bool {
			return !c.p.fresh(r.Position) || c.take(r)
		})
		if err != nil {
			return err
		}
		if c.change.next = last + 1; full {
			return nil
		}
	}
	return nil
}

// walk calls f for the records from one position to another, both included, until it
// reports false. It returns the last position that was dealt with. Positions that no batch has
// any more have expired.
func (c *collector) walk(batches []Batch, from, to uint64, f func(Record) bool) (last uint64, full bool, err error) {
	if len(batches) == 0 {
		c.gone(Span{from, to})
		return to, false, nil
	}
	next := from
	for i := range batches {
		b := &batches[i]
		if b.First > to {
			break
		}
		if b.First > next {
			c.gone(Span{next, b.First - 1})
			next = b.First
		}
		for body := b.Body; len(body) > 0 && next <= to; {
			r, rest, err := Decode(body)
			if err != nil {
				return 0, false, undecodable(err)
			}
			if body = rest; r.Position < next {
				continue
			}
			if next = r.Position; !f(r) {
				return next - 1, true, nil
			}
			next++
		}
	}
	if first := batches[0].First; first > to {
		c.gone(Span{next, to})
		next = to + 1
	}
	return next - 1, false, nil
}

func undecodable(err error) error {
	return iot.Errorf(iot.ErrUnavailable, "a stored batch does not decode: %v", err)
}

// encoded reads the records of spans, encoded, by position.
func (l *Log) encoded(ctx context.Context, key Key, spans []Span) (map[uint64][]byte, error) {
	out := map[uint64][]byte{}
	for _, s := range spans {
		for next := s.From; next <= s.To; {
			batches, err := l.store.Batches(ctx, key, next, wanted(s.To-next+1, MaxBatchBytes))
			if err != nil {
				return nil, err
			}
			if len(batches) == 0 {
				break
			}
			for i := range batches {
				for body := batches[i].Body; len(body) > 0; {
					r, rest, err := Decode(body)
					if err != nil {
						return nil, undecodable(err)
					}
					if r.Position >= next && r.Position <= s.To {
						out[r.Position] = slices.Clone(body[:len(body)-len(rest)])
					}
					body = rest
				}
			}
			next = batches[len(batches)-1].Last + 1
		}
	}
	return out, nil
}
