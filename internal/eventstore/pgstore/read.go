package pgstore

import (
	"context"
	"encoding/json"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Partition implements eventstore.Store.
func (s *Store) Partition(ctx context.Context, key eventstore.Key) (eventstore.Partition, error) {
	p := eventstore.NewPartition()
	stored, err := s.states(ctx, `SELECT tenant, generation, number, state FROM event_partitions WHERE tenant = $1 AND generation = $2 AND number = $3`, key.Tenant,
		int32(key.Partition.Generation), int32(key.Partition.Number))
	if err == nil && len(stored) > 0 {
		p = stored[0].State
	}
	return p, err
}

// PartitionsOf implements eventstore.Store.
func (s *Store) PartitionsOf(ctx context.Context, tenant iot.TenantID) ([]eventstore.Stored, error) {
	return s.states(ctx, `SELECT tenant, generation, number, state FROM event_partitions WHERE tenant = $1 ORDER BY generation, number`, tenant)
}

// states reads the states that a query of a tenant finds.
func (s *Store) states(ctx context.Context, query string, tenant iot.TenantID, args ...any) ([]eventstore.Stored, error) {
	if !storable(tenant) {
		return nil, nil
	}
	var out []eventstore.Stored
	err := s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, query, append([]any{string(tenant)}, args...)...)
		if err != nil {
			return err
		}
		out = nil
		var key keyRow
		var state []byte
		_, err = pgx.ForEachRow(rows, append(key.columns(), (*pgtype.DriverBytes)(&state)), func() error {
			var p eventstore.Partition
			if err := json.Unmarshal(state, &p); err != nil {
				return corrupt(key.key(), err)
			}
			out = append(out, eventstore.Stored{ID: key.key().Partition, State: p})
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// keyRow is a key as the database has it.
type keyRow struct {
	tenant             string
	generation, number int32
}

func (k *keyRow) columns() []any { return []any{&k.tenant, &k.generation, &k.number} }

func (k *keyRow) key() eventstore.Key {
	return eventstore.Key{Tenant: iot.TenantID(k.tenant),
		Partition: eventstore.PartitionID{Generation: uint16(k.generation), Number: uint16(k.number)}}
}

// Tenants implements eventstore.Store.
func (s *Store) Tenants(ctx context.Context, after iot.TenantID, max int) ([]iot.TenantID, error) {
	if !storable(after) {
		return nil, errTenant
	}
	var out []iot.TenantID
	err := s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, `SELECT DISTINCT tenant FROM event_partitions WHERE tenant > $1 ORDER BY tenant LIMIT $2`, string(after), max)
		if err != nil {
			return err
		}
		out = nil
		var tenant string
		_, err = pgx.ForEachRow(rows, []any{&tenant}, func() error {
			out = append(out, iot.TenantID(tenant))
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// pageBatches is how many batches one statement looks at.
const pageBatches = 256

// Batches implements eventstore.Store.
func (s *Store) Batches(ctx context.Context, key eventstore.Key, from uint64, maxBytes int) ([]eventstore.Batch, error) {
	if !storable(key.Tenant) {
		return nil, nil
	}
	var out []eventstore.Batch
	for size := 0; ; {
		// None is empty, so that there are no more of them than bytes.
		limit := min(max(maxBytes-size, 1), pageBatches)
		page, err := s.page(ctx, key, from, maxBytes-size, limit)
		if err != nil {
			return nil, err
		}
		for i := range page {
			size += len(page[i].Body)
		}
		out = append(out, page...)
		if len(page) < limit || size >= maxBytes {
			return out, nil
		}
		from = page[len(page)-1].Last + 1
	}
}

// page reads batches as far as maxBytes reach, at most limit. The sizes are
// added up before any body is read.
func (s *Store) page(ctx context.Context, key eventstore.Key, from uint64, maxBytes, limit int) ([]eventstore.Batch, error) {
	var out []eventstore.Batch
	err := s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, `SELECT first, last, at, expires, body FROM (
				SELECT b.*, sum(octet_length(b.body)) OVER (ORDER BY b.last ROWS UNBOUNDED PRECEDING) - octet_length(b.body) AS before
				FROM event_partitions p CROSS JOIN LATERAL (SELECT * FROM event_batches x WHERE x.partition = p.id AND x.last >= $4 ORDER BY x.last LIMIT $5) b
				WHERE p.tenant = $1 AND p.generation = $2 AND p.number = $3) b
			WHERE before < $6 OR before = 0 ORDER BY last`,
			string(key.Tenant), int32(key.Partition.Generation), int32(key.Partition.Number), signed(from), limit, maxBytes)
		if err != nil {
			return err
		}
		out = nil
		var b eventstore.Batch
		_, err = pgx.ForEachRow(rows, []any{&b.First, &b.Last, &b.At, &b.Expires, &b.Body}, func() error {
			out = append(out, b)
			b.Body = nil
			return nil
		})
		return err
	})
	return out, err
}

// Expired implements eventstore.Store: it knows hours.
func (s *Store) Expired(ctx context.Context, until int64, max int) ([]eventstore.ExpiredBatch, error) {
	var out []eventstore.ExpiredBatch
	err := s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, `SELECT p.tenant, p.generation, p.number, b.first, b.last FROM (
				SELECT partition, first, last FROM event_batches WHERE expires > 0 AND expires / 3600000 < $1 LIMIT $2) b
			JOIN event_partitions p ON p.id = b.partition`, until/hour, max)
		if err != nil {
			return err
		}
		out = nil
		var key keyRow
		var b eventstore.ExpiredBatch
		_, err = pgx.ForEachRow(rows, append(key.columns(), &b.First, &b.Last), func() error {
			b.Key = key.key()
			out = append(out, b)
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DeadLetters implements eventstore.Store.
func (s *Store) DeadLetters(ctx context.Context, key eventstore.Key, from uint64, max int) ([]eventstore.DeadLetter, error) {
	if !storable(key.Tenant) {
		return nil, nil
	}
	var out []eventstore.DeadLetter
	err := s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, `SELECT d.position, d.at, d.attempts, d.reason, d.record
			FROM event_partitions p CROSS JOIN LATERAL (SELECT * FROM event_dead_letters x WHERE x.partition = p.id AND x.position >= $4
				ORDER BY x.position LIMIT $5) d
			WHERE p.tenant = $1 AND p.generation = $2 AND p.number = $3 ORDER BY d.position`,
			string(key.Tenant), int32(key.Partition.Generation), int32(key.Partition.Number), signed(from), max)
		if err != nil {
			return err
		}
		out = nil
		var d eventstore.DeadLetter
		var attempts int32
		var reason []byte
		_, err = pgx.ForEachRow(rows, []any{&d.Position, &d.At, &attempts, &reason, &d.Record}, func() error {
			d.Attempts, d.Reason = uint16(attempts), string(reason)
			out = append(out, d)
			d.Record, reason = nil, nil
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
