package sqlitestore

import (
	"context"

	"github.com/sluice-iot/sluice/internal/eventstore"
)

// What one change removes at most, so that nobody waits long for a large backlog to
// be thrown away; the writer goes on with the rest by itself.
const (
	trimBatches = 1024
	trimBytes   = 8 << 20
)

// trim removes the batches that are done, up to a portion, and reports whether there are more.
func (t *transaction) trim(ctx context.Context, id int64, p *eventstore.Partition) (more bool, err error) {
	if p.Head == 0 || p.Cursor <= p.Head {
		return false, nil
	}
	var count, last, size int64
	for limit := trimBatches; ; limit /= 4 {
		err := t.c.row(ctx, `SELECT count(*), coalesce(max(id), 0), coalesce(sum(size), 0) FROM
			(SELECT id, length(body) AS size FROM batches WHERE id >= ? AND id < ? ORDER BY id LIMIT ?)`,
			[]any{rowID(id, 0), rowID(id, p.Cursor), limit}, &count, &last, &size)
		if err != nil {
			return false, err
		}
		if more = more || count == int64(limit); size <= trimBytes || limit <= 4 {
			break
		}
		more = true
	}
	if count > 0 {
		if _, err := t.c.exec(ctx, "DELETE FROM batches WHERE id >= ? AND id <= ?", rowID(id, 0), last); err != nil {
			return false, err
		}
		p.Bytes -= size
	}
	return more, t.head(ctx, id, p)
}

// trimMore goes on with a partition of which there was more to remove.
func (t *transaction) trimMore(ctx context.Context, key eventstore.Key) error {
	p, err := t.load(ctx, key)
	if err != nil {
		return err
	}
	state := p.state.Clone()
	more, err := t.trim(ctx, p.id, &state)
	if err != nil {
		return err
	}
	if !more {
		delete(t.w.untrimmed, key)
	}
	t.change(key, p, state)
	return nil
}
