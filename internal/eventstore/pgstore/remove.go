package pgstore

import (
	"math"

	"github.com/jackc/pgx/v5"
)

// maxRemoved is how many batches a change removes of a partition because they
// lie below its cursor; the next change goes on.
const maxRemoved = 1000

// removal removes batches, and counts what is left.
type removal struct {
	parts []*part // those that remove something
	freed map[int64]int64
	heads map[int64]uint64
}

func newRemoval(parts []*part) *removal {
	r := &removal{freed: map[int64]int64{}, heads: map[int64]uint64{}}
	for _, p := range parts {
		if len(p.writes.Drop) > 0 || p.passed() {
			r.parts = append(r.parts, p)
		}
	}
	return r
}

// passed reports whether the cursor has passed whole batches.
func (p *part) passed() bool { return p.state.Head > 0 && p.state.Cursor > p.state.Head }

func (r *removal) any() bool { return len(r.parts) > 0 }

// queue asks to remove. Nothing lies before a partition's head, so that nobody
// looks there, where what was removed before leaves its traces until a vacuum.
func (r *removal) queue(b *pgx.Batch) {
	var ids, heads, passed, passedHeads, cursors, named, firsts []int64
	for _, p := range r.parts {
		head := signed(p.state.Head)
		ids, heads = append(ids, p.id), append(heads, head)
		if p.passed() {
			passed, passedHeads, cursors = append(passed, p.id), append(passedHeads, head), append(cursors, signed(p.state.Cursor))
		}
		for _, first := range p.writes.Drop {
			named, firsts = append(named, p.id), append(firsts, signed(first))
		}
	}
	if len(named) > 0 {
		b.Queue(`DELETE FROM event_batches b USING unnest($1::bigint[], $2::bigint[]) k (partition, first)
			CROSS JOIN LATERAL (SELECT x.first, x.last FROM event_batches x WHERE x.partition = k.partition AND x.last >= k.first
				ORDER BY x.last LIMIT 1) f
			WHERE f.first = k.first AND b.partition = k.partition AND b.last = f.last
			RETURNING b.partition, octet_length(b.body)::bigint`, named, firsts).Query(r.removed)
	}
	if len(passed) > 0 {
		b.Queue(`DELETE FROM event_batches b USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) k (partition, head, cursor)
			CROSS JOIN LATERAL (SELECT x.last FROM event_batches x WHERE x.partition = k.partition AND x.last >= k.head AND x.last < k.cursor
				ORDER BY x.last LIMIT $4) f
			WHERE b.partition = k.partition AND b.last = f.last
			RETURNING b.partition, octet_length(b.body)::bigint`, passed, passedHeads, cursors, maxRemoved).Query(r.removed)
	}
	b.Queue(`SELECT k.partition, f.last FROM unnest($1::bigint[], $2::bigint[]) k (partition, head)
		CROSS JOIN LATERAL (SELECT x.last FROM event_batches x WHERE x.partition = k.partition AND x.last >= k.head
			ORDER BY x.last LIMIT 1) f`, ids, heads).Query(func(rows pgx.Rows) error {
		var id, last int64
		_, err := pgx.ForEachRow(rows, []any{&id, &last}, func() error {
			r.heads[id] = uint64(last)
			return nil
		})
		return err
	})
}

func (r *removal) removed(rows pgx.Rows) error {
	var id, size int64
	_, err := pgx.ForEachRow(rows, []any{&id, &size}, func() error {
		r.freed[id] += size
		return nil
	})
	return err
}

// count notes in the states what was removed.
func (r *removal) count() {
	for _, p := range r.parts {
		p.state.Bytes = max(0, p.state.Bytes-r.freed[p.id])
		p.state.Head = r.heads[p.id]
	}
}

// signed is a position as the database has it; there are none beyond.
func signed(position uint64) int64 { return int64(min(position, math.MaxInt64)) }

// present is b, which is not NULL when it is empty.
func present(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
