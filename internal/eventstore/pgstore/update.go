package pgstore

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sluice-iot/sluice/internal/eventstore"
)

// part is a change on its way through a transaction.
type part struct {
	change *eventstore.Change
	err    *error // where the change's error goes

	id     int64
	made   bool // the row is of this transaction
	state  eventstore.Partition
	writes eventstore.Writes
	write  bool // the change is to be kept
}

// Update implements eventstore.Store: one transaction for all changes. Where it
// fails, all of them fail.
func (s *Store) Update(ctx context.Context, changes []eventstore.Change) []error {
	if len(changes) == 0 {
		return nil
	}
	errs := make([]error, len(changes))
	parts := arrange(changes, errs)
	if len(parts) > 0 {
		err := s.change(ctx, func(ctx context.Context, t *tx) error {
			for _, p := range parts {
				*p.err = nil
			}
			return t.update(ctx, parts)
		})
		for _, p := range parts {
			if err != nil && *p.err == nil {
				*p.err = err
			}
		}
	}
	for _, err := range errs {
		if err != nil {
			return errs
		}
	}
	return nil
}

// arrange puts the changes into the order of their keys, in which everybody
// takes the locks, without those that fail by themselves.
func arrange(changes []eventstore.Change, errs []error) []*part {
	parts := make([]*part, 0, len(changes))
	for i := range changes {
		if !storable(changes[i].Key.Tenant) {
			errs[i] = errTenant
			continue
		}
		parts = append(parts, &part{change: &changes[i], err: &errs[i]})
	}
	slices.SortStableFunc(parts, func(a, b *part) int { return a.change.Key.Compare(b.change.Key) })
	once := parts[:0]
	for _, p := range parts {
		if len(once) > 0 && once[len(once)-1].change.Key == p.change.Key {
			*p.err = errTwice
			continue
		}
		once = append(once, p)
	}
	return once
}

func (t *tx) update(ctx context.Context, parts []*part) error {
	if err := t.lock(ctx, parts); err != nil {
		return err
	}
	var kept []*part
	for _, p := range parts {
		p.writes = eventstore.Writes{}
		if *p.err != nil {
			continue
		}
		*p.err = p.change.Apply(&p.state, &p.writes)
		if p.write = *p.err == nil && !p.writes.Unchanged; p.write {
			kept = append(kept, p)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	b := &pgx.Batch{}
	addBatches(b, kept)
	if r := newRemoval(kept); r.any() {
		r.queue(b)
		if err := t.load(ctx, b); err != nil {
			return err
		}
		r.count()
		b = &pgx.Batch{}
	}
	dropDead(b, kept)
	addDead(b, kept)
	if err := keepStates(b, kept); err != nil {
		return err
	}
	forget(b, parts)
	return t.finish(ctx, b)
}

// lock locks the rows of the partitions and reads their states. Rows that are
// missing are made in a transaction that has no lock yet: whoever waits for
// a row that another makes then holds nothing for which that one waits.
func (t *tx) lock(ctx context.Context, parts []*part) error {
	tenants, generations, numbers := keyColumns(parts)
	for _, p := range parts {
		p.state = eventstore.NewPartition()
	}
	for _, insert := range []bool{false, true} {
		b := &pgx.Batch{}
		if insert {
			t.rollback(ctx)
			b.Queue(`INSERT INTO event_partitions (tenant, generation, number, state)
				SELECT tenant, generation, number, '' FROM unnest($1::text[], $2::integer[], $3::integer[]) WITH ORDINALITY k (tenant, generation, number, n)
				ORDER BY n ON CONFLICT DO NOTHING`, tenants, generations, numbers)
		}
		missing := len(parts)
		b.Queue(`SELECT k.n, p.id, p.state FROM unnest($1::text[], $2::integer[], $3::integer[]) WITH ORDINALITY k (tenant, generation, number, n)
			JOIN event_partitions p ON p.tenant = k.tenant AND p.generation = k.generation AND p.number = k.number
			ORDER BY k.n FOR NO KEY UPDATE OF p`, tenants, generations, numbers).Query(func(rows pgx.Rows) error {
			var n, id int64
			var state []byte
			for rows.Next() {
				if err := rows.Scan(&n, &id, (*pgtype.DriverBytes)(&state)); err != nil {
					return err
				}
				missing--
				parts[n-1].load(id, state)
			}
			return rows.Err()
		})
		if err := t.load(ctx, b); err != nil || missing == 0 {
			return err
		}
	}
	return errVanished
}

// load takes a row.
func (p *part) load(id int64, state []byte) {
	if p.id, p.made = id, len(state) == 0; p.made {
		return
	}
	p.state = eventstore.Partition{}
	if err := json.Unmarshal(state, &p.state); err != nil {
		*p.err = corrupt(p.change.Key, err)
	}
}

func keyColumns(parts []*part) (tenants []string, generations, numbers []int32) {
	for _, p := range parts {
		k := p.change.Key
		tenants = append(tenants, string(k.Tenant))
		generations = append(generations, int32(k.Partition.Generation))
		numbers = append(numbers, int32(k.Partition.Number))
	}
	return tenants, generations, numbers
}

func addBatches(b *pgx.Batch, parts []*part) {
	var ids, firsts, lasts, ats, expires []int64
	var bodies [][]byte
	for _, p := range parts {
		for i := range p.writes.Batches {
			x := &p.writes.Batches[i]
			ids, firsts, lasts = append(ids, p.id), append(firsts, signed(x.First)), append(lasts, signed(x.Last))
			ats, expires, bodies = append(ats, x.At), append(expires, x.Expires), append(bodies, present(x.Body))
		}
	}
	if len(ids) == 0 {
		return
	}
	b.Queue(`INSERT INTO event_batches (partition, last, first, at, expires, body)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[])`,
		ids, lasts, firsts, ats, expires, bodies)
}

func dropDead(b *pgx.Batch, parts []*part) {
	var ids, positions []int64
	for _, p := range parts {
		for _, at := range p.writes.DropDead {
			ids, positions = append(ids, p.id), append(positions, signed(at))
		}
	}
	if len(ids) == 0 {
		return
	}
	b.Queue(`DELETE FROM event_dead_letters d USING unnest($1::bigint[], $2::bigint[]) k (partition, position)
		WHERE d.partition = k.partition AND d.position = k.position`, ids, positions)
}

func addDead(b *pgx.Batch, parts []*part) {
	var ids, positions, ats []int64
	var attempts []int32
	var reasons, records [][]byte
	for _, p := range parts {
		for i := range p.writes.Dead {
			x := &p.writes.Dead[i]
			ids, positions, ats = append(ids, p.id), append(positions, signed(x.Position)), append(ats, x.At)
			attempts, reasons, records = append(attempts, int32(x.Attempts)), append(reasons, []byte(x.Reason)), append(records, present(x.Record))
		}
	}
	if len(ids) == 0 {
		return
	}
	b.Queue(`INSERT INTO event_dead_letters (partition, position, at, attempts, reason, record)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::integer[], $5::bytea[], $6::bytea[])
		ON CONFLICT (partition, position) DO UPDATE SET at = EXCLUDED.at, attempts = EXCLUDED.attempts, reason = EXCLUDED.reason, record = EXCLUDED.record`,
		ids, positions, ats, attempts, reasons, records)
}

func keepStates(b *pgx.Batch, parts []*part) error {
	var ids []int64
	var states [][]byte
	for _, p := range parts {
		state, err := json.Marshal(&p.state)
		if err != nil {
			return err
		}
		ids, states = append(ids, p.id), append(states, state)
	}
	b.Queue(`UPDATE event_partitions p SET state = k.state FROM unnest($1::bigint[], $2::bytea[]) k (id, state) WHERE p.id = k.id`, ids, states)
	return nil
}

// forget removes rows that were made for changes that are not kept.
func forget(b *pgx.Batch, parts []*part) {
	var ids []int64
	for _, p := range parts {
		if p.made && !p.write {
			ids = append(ids, p.id)
		}
	}
	if len(ids) > 0 {
		b.Queue(`DELETE FROM event_partitions WHERE id = ANY ($1::bigint[])`, ids)
	}
}
