package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// Old changes are removed by those who make new ones: every pruneEvery, or
// every pruneAfter changes, up to pruneAtOnce. That is more than come in, so
// that the feed gets shorter whatever the load is.
const (
	pruneEvery  = time.Minute
	pruneAfter  = 1000
	pruneAtOnce = 2 * pruneAfter
)

// record adds a change to the feed of its tenant, inside the transaction that
// makes the change.
func (s *Store) record(ctx context.Context, c *conn, ch registry.Change) error {
	var sequence int64
	err := c.row(ctx, `INSERT INTO counters (tenant, sequence, devices) VALUES (?, 1, 0)
		ON CONFLICT (tenant) DO UPDATE SET sequence = sequence + 1 RETURNING sequence`, []any{string(ch.Tenant)}, &sequence)
	if err != nil {
		return err
	}
	ch.Sequence = uint64(sequence)
	if err := c.feed(ctx, ch); err != nil {
		return err
	}
	return s.prune(ctx, c, ch.At, 1)
}

const feedColumns = `INSERT INTO feed (tenant, sequence, kind, device, change, enabled, invalidate, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`

// feedRows is how many changes one statement adds: the cost of a statement is
// much more than that of a row in it.
const feedRows = 50

var feedMany = feedColumns + strings.Repeat(", (?, ?, ?, ?, ?, ?, ?, ?)", feedRows-1)

// feed adds a change that has its sequence.
func (c *conn) feed(ctx context.Context, ch registry.Change) error {
	_, err := c.exec(ctx, feedColumns, appendChange(nil, &ch)...)
	if err == nil {
		c.changes = append(c.changes, ch)
	}
	return err
}

// feedAll adds all changes of the transaction to the feed.
func (c *conn) feedAll(ctx context.Context) error {
	args := make([]any, 0, 8*feedRows)
	for some := range slices.Chunk(c.changes, feedRows) {
		args = args[:0]
		for i := range some {
			args = appendChange(args, &some[i])
		}
		if len(some) == feedRows {
			if _, err := c.exec(ctx, feedMany, args...); err != nil {
				return err
			}
			continue
		}
		for one := range slices.Chunk(args, 8) {
			if _, err := c.exec(ctx, feedColumns, one...); err != nil {
				return err
			}
		}
	}
	return nil
}

func appendChange(args []any, ch *registry.Change) []any {
	return append(args, string(ch.Tenant), int64(ch.Sequence), string(ch.Kind), string(ch.Device), ch.Change,
		ch.Enabled, ch.InvalidateCache, millis(ch.At))
}

// prune removes old changes once in a while; added is how many there are more.
func (s *Store) prune(ctx context.Context, c *conn, at time.Time, added int) error {
	s.unpruned += added
	if at.Sub(s.pruned) < pruneEvery && s.unpruned < pruneAfter {
		return nil
	}
	s.pruned, s.unpruned = at, 0
	_, err := c.exec(ctx, `DELETE FROM feed WHERE position IN (SELECT position FROM feed WHERE at < ? ORDER BY at LIMIT ?)`,
		millis(at.Add(-registry.FeedRetention)), pruneAtOnce)
	return err
}

const changeColumns = `SELECT tenant, sequence, kind, device, change, enabled, invalidate, at FROM feed `

var errEnough = errors.New("enough")

// Changes implements registry.Feed.
func (s *Store) Changes(ctx context.Context, after registry.Position, max int) ([]registry.Change, bool, error) {
	var changes []registry.Change
	err := s.read(ctx, func(ctx context.Context, c *conn) error {
		if _, err := c.exec(ctx, "BEGIN"); err != nil {
			return err
		}
		defer c.exec(ctx, "ROLLBACK") // nothing was written
		return c.readChanges(ctx, &after, max, &changes)
	})
	if errors.Is(err, errEnough) {
		return changes[:max], true, nil
	}
	return changes, false, err
}

// readChanges appends up to max+1 changes; errEnough when that many were found.
func (c *conn) readChanges(ctx context.Context, after *registry.Position, max int, all *[]registry.Change) error {
	add := func(rows *sql.Rows) error {
		ch, err := scanChange(rows)
		if err != nil {
			return err
		}
		*all = append(*all, ch)
		if len(*all) > max {
			return errEnough
		}
		return nil
	}
	for _, tenant := range slices.Sorted(maps.Keys(after.Sequences)) {
		err := c.each(ctx, changeColumns+`WHERE tenant = ? AND sequence > ? ORDER BY sequence`,
			[]any{string(tenant), int64(after.Sequences[tenant])}, add)
		if err != nil {
			return err
		}
	}
	if after.Since.IsZero() {
		return nil
	}
	since := millis(after.Since)
	return c.each(ctx, changeColumns+`WHERE at >= ?1 AND position >= (SELECT min(position) FROM feed WHERE at >= ?1) ORDER BY position`,
		[]any{since}, func(rows *sql.Rows) error {
			ch, err := scanChange(rows)
			if err != nil {
				return err
			}
			if _, known := after.Sequences[ch.Tenant]; known {
				return nil
			}
			return add(rows)
		})
}

func scanChange(rows *sql.Rows) (registry.Change, error) {
	var ch registry.Change
	var tenant, kind, device string
	var at int64
	err := rows.Scan(&tenant, &ch.Sequence, &kind, &device, &ch.Change, &ch.Enabled, &ch.InvalidateCache, &at)
	ch.Tenant, ch.Kind, ch.Device, ch.At = iot.TenantID(tenant), registry.ChangeKind(kind), iot.DeviceID(device), instant(at)
	return ch, err
}
