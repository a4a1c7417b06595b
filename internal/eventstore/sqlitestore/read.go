package sqlitestore

import (
	"context"
	"database/sql"
	"errors"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Partition implements eventstore.Store.
func (s *Store) Partition(ctx context.Context, key eventstore.Key) (state eventstore.Partition, err error) {
	select {
	case <-s.closing:
		return state, translate(errClosed)
	default:
	}
	if p, known := s.cache.get(key); known && ctx.Err() == nil {
		return p.state.Clone(), nil
	}
	err = s.read(ctx, func(ctx context.Context, c *conn) error {
		p, err := c.partition(ctx, key)
		state = p.state
		return err
	})
	return state, err
}

// PartitionsOf implements eventstore.Store. The index has all of it but the states, most of which
// are in memory where somebody asks often.
func (s *Store) PartitionsOf(ctx context.Context, tenant iot.TenantID) (list []eventstore.Stored, err error) {
	err = s.read(ctx, func(ctx context.Context, c *conn) error {
		err := c.each(ctx, "SELECT generation, number FROM partitions WHERE tenant = ? ORDER BY generation, number", []any{string(tenant)},
			func(rows *sql.Rows) (bool, error) {
				var x eventstore.Stored
				err := rows.Scan(&x.ID.Generation, &x.ID.Number)
				list = append(list, x)
				return true, err
			})
		for i := 0; i < len(list) && err == nil; i++ {
			key := eventstore.Key{Tenant: tenant, Partition: list[i].ID}
			p, known := s.cache.get(key)
			if !known {
				p, err = c.partition(ctx, key)
			}
			list[i].State = p.state.Clone()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// Tenants implements eventstore.Store.
func (s *Store) Tenants(ctx context.Context, after iot.TenantID, max int) (list []iot.TenantID, err error) {
	err = s.read(ctx, func(ctx context.Context, c *conn) error {
		return c.each(ctx, "SELECT DISTINCT tenant FROM partitions WHERE tenant > ? ORDER BY tenant LIMIT ?", []any{string(after), max},
			func(rows *sql.Rows) (bool, error) {
				var tenant string
				err := rows.Scan(&tenant)
				list = append(list, iot.TenantID(tenant))
				return true, err
			})
	})
	return list, err
}

// id returns the number of a partition; 0 = it was never written.
func (s *Store) id(ctx context.Context, c *conn, key eventstore.Key) (id int64, err error) {
	if p, known := s.cache.get(key); known {
		return p.id, nil
	}
	err = c.row(ctx, "SELECT id FROM partitions WHERE tenant = ? AND generation = ? AND number = ?",
		[]any{string(key.Tenant), int64(key.Partition.Generation), int64(key.Partition.Number)}, &id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return id, err
}

// Batches implements eventstore.Store.
func (s *Store) Batches(ctx context.Context, key eventstore.Key, from uint64, maxBytes int) (list []eventstore.Batch, err error) {
	if from > maxPosition {
		return nil, translate(ctx.Err())
	}
	err = s.read(ctx, func(ctx context.Context, c *conn) error {
		id, err := s.id(ctx, c, key)
		if err != nil || id == 0 {
			return err
		}
		size := 0
		return c.each(ctx, "SELECT id, first, at, expires, body FROM batches WHERE id >= ? AND id <= ? ORDER BY id",
			[]any{rowID(id, from), rowID(id, maxPosition)}, func(rows *sql.Rows) (bool, error) {
				var b eventstore.Batch
				var row int64
				err := rows.Scan(&row, &b.First, &b.At, &b.Expires, &b.Body)
				b.Last = positionOf(row)
				list = append(list, b)
				size += len(b.Body)
				return size < maxBytes, err
			})
	})
	return list, err
}

// Expired implements eventstore.Store.
func (s *Store) Expired(ctx context.Context, until int64, max int) (list []eventstore.ExpiredBatch, err error) {
	err = s.read(ctx, func(ctx context.Context, c *conn) error {
		return c.each(ctx, `SELECT p.tenant, p.generation, p.number, b.first, b.id FROM
			(SELECT id, first FROM batches WHERE bucket <= ? LIMIT ?) b JOIN partitions p ON p.id = b.id >> ?`,
			[]any{until / bucketMS, max, positionBits}, func(rows *sql.Rows) (bool, error) {
				var b eventstore.ExpiredBatch
				var tenant string
				var row int64
				err := rows.Scan(&tenant, &b.Key.Partition.Generation, &b.Key.Partition.Number, &b.First, &row)
				b.Key.Tenant, b.Last = iot.TenantID(tenant), positionOf(row)
				list = append(list, b)
				return true, err
			})
	})
	return list, err
}

// DeadLetters implements eventstore.Store.
func (s *Store) DeadLetters(ctx context.Context, key eventstore.Key, from uint64, max int) (list []eventstore.DeadLetter, err error) {
	if from > maxPosition {
		return nil, translate(ctx.Err())
	}
	err = s.read(ctx, func(ctx context.Context, c *conn) error {
		id, err := s.id(ctx, c, key)
		if err != nil || id == 0 {
			return err
		}
		return c.each(ctx, "SELECT id, at, attempts, reason, record FROM dead_letters WHERE id >= ? AND id <= ? ORDER BY id LIMIT ?",
			[]any{rowID(id, from), rowID(id, maxPosition), max}, func(rows *sql.Rows) (bool, error) {
				var d eventstore.DeadLetter
				var row int64
				err := rows.Scan(&row, &d.At, &d.Attempts, &d.Reason, &d.Record)
				d.Position = positionOf(row)
				list = append(list, d)
				return true, err
			})
	})
	return list, err
}
