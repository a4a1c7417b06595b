package storetest

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

var _ eventstore.Store = (*Memory)(nil)

// Memory keeps partitions in memory, for tests. The zero value is empty. Safe for
// concurrent use.
type Memory struct {
	mu    sync.Mutex
	parts map[eventstore.Key]*memoryPart
	err   error
}

type memoryPart struct {
	state   eventstore.Partition
	batches []eventstore.Batch
	dead    []eventstore.DeadLetter
}

// Fail makes every later call return err, until it is called with nil.
func (m *Memory) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// check refuses what cannot be answered. The caller has the lock.
func (m *Memory) check(ctx context.Context) error {
	switch err := ctx.Err(); {
	case errors.Is(err, context.DeadlineExceeded):
		return iot.Errorf(iot.ErrTimeout, "the store did not answer in time")
	case err != nil:
		return err
	}
	return m.err
}

// Update implements eventstore.Store.
func (m *Memory) Update(ctx context.Context, changes []eventstore.Change) []error {
	m.mu.Lock()
	defer m.mu.Unlock()
	errs := make([]error, len(changes))
	failed := false
	for i := range changes {
		if errs[i] = m.check(ctx); errs[i] == nil {
			errs[i] = m.apply(&changes[i])
		}
		failed = failed || errs[i] != nil
	}
	if !failed {
		return nil
	}
	return errs
}

func (m *Memory) apply(c *eventstore.Change) error {
	old := m.part(c.Key)
	p, w := old.state.Clone(), eventstore.Writes{}
	if err := c.Apply(&p, &w); err != nil || w.Unchanged {
		return err
	}
	next := &memoryPart{state: p}
	for _, b := range slices.Concat(old.batches, w.Batches) {
		if slices.Contains(w.Drop, b.First) || p.Head > 0 && p.Cursor > p.Head && b.Last < p.Cursor {
			next.state.Bytes -= int64(len(b.Body))
		} else {
			next.batches = append(next.batches, b)
		}
	}
	if next.state.Head = 0; len(next.batches) > 0 {
		next.state.Head = next.batches[0].Last
	}
	gone := func(d eventstore.DeadLetter) bool {
		return slices.Contains(w.DropDead, d.Position) ||
			slices.ContainsFunc(w.Dead, func(n eventstore.DeadLetter) bool { return n.Position == d.Position })
	}
	next.dead = append(slices.DeleteFunc(slices.Clone(old.dead), gone), w.Dead...)
	slices.SortFunc(next.dead, func(a, b eventstore.DeadLetter) int { return cmp.Compare(a.Position, b.Position) })
	if m.parts == nil {
		m.parts = map[eventstore.Key]*memoryPart{}
	}
	m.parts[c.Key] = next
	return nil
}

func (m *Memory) part(key eventstore.Key) *memoryPart {
	if p := m.parts[key]; p != nil {
		return p
	}
	return &memoryPart{state: eventstore.NewPartition()}
}

// Partition implements eventstore.Store.
func (m *Memory) Partition(ctx context.Context, key eventstore.Key) (eventstore.Partition, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.part(key).state.Clone(), m.check(ctx)
}

// PartitionsOf implements eventstore.Store.
func (m *Memory) PartitionsOf(ctx context.Context, tenant iot.TenantID) ([]eventstore.Stored, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []eventstore.Stored
	for key, p := range m.parts {
		if key.Tenant == tenant {
			out = append(out, eventstore.Stored{ID: key.Partition, State: p.state.Clone()})
		}
	}
	slices.SortFunc(out, func(a, b eventstore.Stored) int { return a.ID.Compare(b.ID) })
	return out, m.check(ctx)
}

// Tenants implements eventstore.Store.
func (m *Memory) Tenants(ctx context.Context, after iot.TenantID, max int) ([]iot.TenantID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []iot.TenantID
	for key := range m.parts {
		if key.Tenant > after {
			out = append(out, key.Tenant)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), max)], m.check(ctx)
}

// Batches implements eventstore.Store.
func (m *Memory) Batches(ctx context.Context, key eventstore.Key, from uint64, maxBytes int) ([]eventstore.Batch, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []eventstore.Batch
	size := 0
	for _, b := range m.part(key).batches {
		if b.Last < from {
			continue
		}
		out = append(out, b)
		if size += len(b.Body); size >= maxBytes {
			break
		}
	}
	return out, m.check(ctx)
}

// Expired implements eventstore.Store.
func (m *Memory) Expired(ctx context.Context, until int64, max int) ([]eventstore.ExpiredBatch, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []eventstore.ExpiredBatch
	for key, p := range m.parts {
		for _, b := range p.batches {
			if b.Expires != 0 && b.Expires <= until && len(out) < max {
				out = append(out, eventstore.ExpiredBatch{Key: key, First: b.First, Last: b.Last})
			}
		}
	}
	return out, m.check(ctx)
}

// DeadLetters implements eventstore.Store.
func (m *Memory) DeadLetters(ctx context.Context, key eventstore.Key, from uint64, max int) ([]eventstore.DeadLetter, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []eventstore.DeadLetter
	for _, d := range m.part(key).dead {
		if d.Position >= from && len(out) < max {
			out = append(out, d)
		}
	}
	return out, m.check(ctx)
}
