package sqlitestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// pathIndex is an index on a path of devices' documents.
type pathIndex struct {
	number   int64
	path     []string
	complete bool // every device is in it
}

// stepRows bounds one transaction of filling or dropping an index, so that other
// writers get their turn.
const stepRows = 10_000

// readIndexes brings c.indexes to what the file says now. Every transaction
// that writes devices and every search does so: another process may have the
// same file open with other indexes, and each keeps all that are there.
func (c *conn) readIndexes(ctx context.Context) error {
	n := 0
	err := c.each(ctx, `SELECT path, name, complete FROM index_paths ORDER BY path`, nil, func(rows *sql.Rows) error {
		var x pathIndex
		var name sql.RawBytes
		if err := rows.Scan(&x.number, &name, &x.complete); err != nil {
			return err
		}
		path, ok := c.paths[string(name)]
		if !ok {
			if err := decode(name, &path); err != nil {
				return err
			}
			c.paths[string(name)] = path
		}
		x.path = path
		c.indexes = append(c.indexes[:n], x)
		n++
		return nil
	})
	c.indexes = c.indexes[:n]
	return err
}

// declare makes the indexes those of wanted: others are dropped, new ones and
// those that were left unfinished are filled.
func (s *Store) declare(ctx context.Context, wanted [][]string) error {
	names := make([]string, len(wanted))
	for i, path := range wanted {
		if len(path) == 0 || path[0] == "id" || path[0] == "status" {
			return fmt.Errorf("index %d: %q is no path of a device's document", i, path)
		}
		name, err := json.Marshal(path)
		if err != nil {
			return err
		}
		names[i] = string(name)
	}
	if err := s.dropIndexes(ctx, names); err != nil {
		return err
	}
	for i, name := range names {
		var x pathIndex
		err := s.write(ctx, func(ctx context.Context, c *conn) error {
			return c.row(ctx, `INSERT INTO index_paths (name, complete) VALUES (?, 0)
				ON CONFLICT (name) DO UPDATE SET complete = complete RETURNING path, complete`, []any{name}, &x.number, &x.complete)
		})
		if err != nil {
			return err
		}
		if x.path = wanted[i]; !x.complete { // every write keeps it from here on
			if err := s.fill(ctx, &x); err != nil {
				return fmt.Errorf("index on %v: %w", x.path, err)
			}
		}
	}
	return nil
}

// dropIndexes removes the indexes that are not wanted. One that is not
// wholly removed is incomplete, and never searched.
func (s *Store) dropIndexes(ctx context.Context, wanted []string) error {
	var gone []int64
	err := s.read(ctx, func(ctx context.Context, c *conn) error {
		return c.each(ctx, `SELECT path, name FROM index_paths`, nil, func(rows *sql.Rows) error {
			var number int64
			var name string
			err := rows.Scan(&number, &name)
			if err == nil && !slices.Contains(wanted, name) {
				gone = append(gone, number)
			}
			return err
		})
	})
	for _, number := range gone {
		for more := true; more && err == nil; {
			if err = ctx.Err(); err != nil {
				break
			}
			err = s.write(ctx, func(ctx context.Context, c *conn) (err error) {
				more, err = c.dropSome(ctx, number)
				return err
			})
		}
	}
	return err
}

func (c *conn) dropSome(ctx context.Context, number int64) (more bool, err error) {
	if _, err := c.exec(ctx, `UPDATE index_paths SET complete = 0 WHERE path = ?`, number); err != nil {
		return false, err
	}
	n, err := c.exec(ctx, `DELETE FROM device_index WHERE path = ?1 AND (tenant, value, device) IN
		(SELECT tenant, value, device FROM device_index WHERE path = ?1 LIMIT ?2)`, number, stepRows)
	if err != nil || n == stepRows {
		return err == nil, err
	}
	_, err = c.exec(ctx, `DELETE FROM index_paths WHERE path = ?`, number)
	return false, err
}

// fill brings the values of all devices into an index.
func (s *Store) fill(ctx context.Context, x *pathIndex) error {
	var at filler
	for !at.done {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.write(ctx, func(ctx context.Context, c *conn) error { return c.fillSome(ctx, x, &at) })
		if err != nil {
			return err
		}
	}
	return nil
}

// filler stands behind the last device that was looked at.
type filler struct {
	tenant, device string
	done           bool
}

func (c *conn) fillSome(ctx context.Context, x *pathIndex, at *filler) error {
	n := 0
	var found []indexRow
	err := c.each(ctx, `SELECT tenant, id, doc FROM devices WHERE (tenant, id) > (?, ?) ORDER BY tenant, id LIMIT ?`,
		[]any{at.tenant, at.device, stepRows}, func(rows *sql.Rows) error {
			var doc sql.RawBytes
			if err := rows.Scan(&at.tenant, &at.device, &doc); err != nil {
				return err
			}
			n++
			for _, v := range registry.IndexValues(doc, x.path) {
				found = append(found, indexRow{at.tenant, at.device, v})
			}
			return nil
		})
	for _, r := range found {
		if err != nil {
			return err
		}
		err = c.putIndexed(ctx, x, iot.TenantID(r.tenant), iot.DeviceID(r.device), r.value)
	}
	if n < stepRows && err == nil {
		at.done = true
		_, err = c.exec(ctx, `UPDATE index_paths SET complete = 1 WHERE path = ?`, x.number)
	}
	return err
}

type indexRow struct{ tenant, device, value string }

func (c *conn) putIndexed(ctx context.Context, x *pathIndex, tenant iot.TenantID, device iot.DeviceID, value string) error {
	_, err := c.exec(ctx, `INSERT INTO device_index (path, tenant, value, device) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		x.number, string(tenant), value, string(device))
	return err
}

// reindex moves a device's entries from those of the old document to those of
// the new one; nil stands for none.
func (c *conn) reindex(ctx context.Context, tenant iot.TenantID, device iot.DeviceID, old, doc []byte) error {
	for i := range c.indexes {
		x := &c.indexes[i]
		before, after := values(old, x.path), values(doc, x.path)
		for _, v := range before {
			if slices.Contains(after, v) {
				continue
			}
			_, err := c.exec(ctx, `DELETE FROM device_index WHERE path = ? AND tenant = ? AND value = ? AND device = ?`,
				x.number, string(tenant), v, string(device))
			if err != nil {
				return err
			}
		}
		for _, v := range after {
			if slices.Contains(before, v) {
				continue
			}
			if err := c.putIndexed(ctx, x, tenant, device, v); err != nil {
				return err
			}
		}
	}
	return nil
}

func values(doc []byte, path []string) []string {
	if doc == nil {
		return nil
	}
	return registry.IndexValues(doc, path)
}

// searchable returns the indexes that a search may use, and their paths.
func (c *conn) searchable(ctx context.Context) (indexes []pathIndex, paths [][]string, err error) {
	if err := c.readIndexes(ctx); err != nil {
		return nil, nil, err
	}
	for _, x := range c.indexes {
		if x.complete {
			indexes = append(indexes, x)
			paths = append(paths, x.path)
		}
	}
	return indexes, paths, nil
}
