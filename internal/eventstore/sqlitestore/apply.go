package sqlitestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/sluice-iot/sluice/internal/eventstore"
)

// transaction is what the writer does at once.
type transaction struct {
	w       *writer
	c       *conn
	parts   map[eventstore.Key]*loaded
	changed []eventstore.Key
}

// loaded is a partition in a transaction.
type loaded struct {
	part
	changed bool
}

// begin takes SQLite's lock, and forgets what was kept when another process has written.
func (t *transaction) begin(ctx context.Context) error {
	if _, err := t.c.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	var version int64
	if err := t.c.row(ctx, "PRAGMA data_version", nil, &version); err != nil {
		t.c.exec(ctx, "ROLLBACK")
		return err
	}
	if version != t.w.version {
		t.w.s.cache.clear()
		t.w.version, t.w.next = version, 0
	}
	return nil
}

// fill applies the group and commits. Where nothing has changed, there is nothing to commit.
func (t *transaction) fill(ctx context.Context, group []*request) error {
	for _, r := range group {
		if !r.take() {
			continue
		}
		if err := t.applyAll(ctx, r); err != nil {
			return err
		}
	}
	for key := range t.w.untrimmed { // one portion for each transaction
		if err := t.trimMore(ctx, key); err != nil {
			return err
		}
		break
	}
	if len(t.changed) == 0 {
		_, err := t.c.exec(ctx, "ROLLBACK")
		return err
	}
	for _, key := range t.changed {
		if err := t.save(ctx, key); err != nil {
			return err
		}
	}
	_, err := t.c.exec(ctx, "COMMIT")
	return err
}

func (t *transaction) applyAll(ctx context.Context, r *request) error {
	defer close(r.applied)
	for i := range r.changes {
		own, err := t.apply(ctx, &r.changes[i])
		if err != nil {
			return err
		}
		r.errs[i] = own
	}
	return nil
}

// apply makes one change. own is the change's own error; err ends the transaction.
func (t *transaction) apply(ctx context.Context, change *eventstore.Change) (own, err error) {
	p, err := t.load(ctx, change.Key)
	if err != nil {
		return nil, err
	}
	state, writes := p.state.Clone(), eventstore.Writes{}
	if own := change.Apply(&state, &writes); own != nil || writes.Unchanged {
		return own, nil
	}
	if !fits(&writes) {
		return noRoom(), nil
	}
	if p.id == 0 {
		if own, err := t.create(ctx, change.Key, p); own != nil || err != nil {
			return own, err
		}
	}
	if err := t.write(ctx, p.id, &state, &writes); err != nil {
		return nil, err
	}
	more, err := t.trim(ctx, p.id, &state)
	if err != nil {
		return nil, err
	}
	if more {
		t.w.untrimmed[change.Key] = true
	}
	t.change(change.Key, p, state)
	return nil, nil
}

func (t *transaction) change(key eventstore.Key, p *loaded, state eventstore.Partition) {
	if p.state = state; !p.changed {
		p.changed = true
		t.changed = append(t.changed, key)
	}
}

// load returns a partition as it is in the transaction.
func (t *transaction) load(ctx context.Context, key eventstore.Key) (*loaded, error) {
	if p := t.parts[key]; p != nil {
		return p, nil
	}
	p := &loaded{}
	var known bool
	if p.part, known = t.w.s.cache.get(key); !known {
		var err error
		if p.part, err = t.c.partition(ctx, key); err != nil {
			return nil, err
		}
	}
	t.parts[key] = p
	return p, nil
}

// partition reads a partition's row.
func (c *conn) partition(ctx context.Context, key eventstore.Key) (p part, err error) {
	var state []byte
	err = c.row(ctx, "SELECT id, state FROM partitions WHERE tenant = ? AND generation = ? AND number = ?",
		[]any{string(key.Tenant), int64(key.Partition.Generation), int64(key.Partition.Number)}, &p.id, &state)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return part{state: eventstore.NewPartition()}, nil
	case err != nil:
		return p, err
	}
	p.state, err = decode(state)
	return p, err
}

func decode(state []byte) (p eventstore.Partition, err error) {
	if err := json.Unmarshal(state, &p); err != nil {
		return p, fmt.Errorf("the state of a partition: %w", err)
	}
	return p, nil
}

// fits reports whether the positions of what is to be written are such as a row can have.
func fits(w *eventstore.Writes) bool {
	for i := range w.Batches {
		if w.Batches[i].Last > maxPosition {
			return false
		}
	}
	for i := range w.Dead {
		if w.Dead[i].Position > maxPosition {
			return false
		}
	}
	return true
}

// create gives a partition its number. Its row is complete once it is saved.
func (t *transaction) create(ctx context.Context, key eventstore.Key, p *loaded) (own, err error) {
	if t.w.next == 0 {
		if err := t.c.row(ctx, "SELECT coalesce(max(id), 0) + 1 FROM partitions", nil, &t.w.next); err != nil {
			return nil, err
		}
	}
	if t.w.next > maxPartition {
		return noRoom(), nil
	}
	_, err = t.c.exec(ctx, "INSERT INTO partitions (id, tenant, generation, number, state) VALUES (?, ?, ?, ?, x'')",
		t.w.next, string(key.Tenant), int64(key.Partition.Generation), int64(key.Partition.Number))
	if err != nil {
		return nil, err
	}
	p.id = t.w.next
	t.w.next++
	return nil, nil
}

func (t *transaction) save(ctx context.Context, key eventstore.Key) error {
	p := t.parts[key]
	state, err := json.Marshal(&p.state)
	if err != nil {
		return err
	}
	_, err = t.c.exec(ctx, "UPDATE partitions SET state = ? WHERE id = ?", state, p.id)
	return err
}

// write writes what a change does beside the state.
func (t *transaction) write(ctx context.Context, id int64, p *eventstore.Partition, w *eventstore.Writes) error {
	for i := range w.Batches {
		b := &w.Batches[i]
		_, err := t.c.exec(ctx, "INSERT INTO batches (id, first, at, expires, bucket, body) VALUES (?, ?, ?, ?, ?, ?)",
			rowID(id, b.Last), int64(b.First), b.At, b.Expires, bucketOf(b.Expires), b.Body)
		if err != nil {
			return err
		}
	}
	for _, at := range w.DropDead {
		if at > maxPosition {
			continue
		}
		if _, err := t.c.exec(ctx, "DELETE FROM dead_letters WHERE id = ?", rowID(id, at)); err != nil {
			return err
		}
	}
	for i := range w.Dead {
		d := &w.Dead[i]
		_, err := t.c.exec(ctx, "INSERT OR REPLACE INTO dead_letters (id, at, attempts, reason, record) VALUES (?, ?, ?, ?, ?)",
			rowID(id, d.Position), d.At, int64(d.Attempts), d.Reason, d.Record)
		if err != nil {
			return err
		}
	}
	return t.drop(ctx, id, p, w.Drop)
}

// drop removes batches by their first positions.
func (t *transaction) drop(ctx context.Context, id int64, p *eventstore.Partition, firsts []uint64) error {
	found := false
	for _, first := range slices.Compact(slices.Sorted(slices.Values(firsts))) {
		var row, begins, size int64
		err := t.c.row(ctx, "SELECT id, first, length(body) FROM batches WHERE id >= ? AND id <= ? ORDER BY id LIMIT 1",
			[]any{rowID(id, first), rowID(id, maxPosition)}, &row, &begins, &size)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			continue
		case err != nil:
			return err
		case uint64(begins) != first:
			continue
		}
		if _, err := t.c.exec(ctx, "DELETE FROM batches WHERE id = ?", row); err != nil {
			return err
		}
		p.Bytes -= size
		found = true
	}
	if !found {
		return nil
	}
	return t.head(ctx, id, p)
}

// head finds the first batch that is left.
func (t *transaction) head(ctx context.Context, id int64, p *eventstore.Partition) error {
	var row int64
	err := t.c.row(ctx, "SELECT coalesce(min(id), 0) FROM batches WHERE id >= ? AND id <= ?", []any{rowID(id, 0), rowID(id, maxPosition)}, &row)
	p.Head = positionOf(row)
	return err
}
