package sqlitestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// pathIndex is an index on a path of devices' documents.
type pathIndex struct {
	number int64
	path   []string
}

// fillAtOnce bounds one transaction of filling an index, so that other
// processes get their turn.
const fillAtOnce = 10_000

// declare makes the indexes those of wanted: others are dropped, new ones are
// filled.
func (s *Store) declare(ctx context.Context, wanted [][]string) error {
	if err := s.dropIndexes(ctx, wanted); err != nil {
		return err
	}
	for _, path := range wanted {
		if len(path) == 0 {
			return errors.New("an index without a path")
		}
		x := pathIndex{path: path}
		complete := false
		err := s.write(ctx, func(ctx context.Context, c *conn) error {
			name, err := json.Marshal(path)
			if err != nil {
				return err
			}
			return c.row(ctx, `INSERT INTO index_paths (name, complete) VALUES (?, 0)
				ON CONFLICT (name) DO UPDATE SET complete = complete RETURNING path, complete`, []any{string(name)}, &x.number, &complete)
		})
		if err != nil {
			return err
		}
		// From here on every write of this process keeps the index.
		s.indexes = append(s.indexes, x)
		if !complete {
			if err := s.fill(ctx, &x); err != nil {
				return fmt.Errorf("index on %v: %w", path, err)
			}
		}
	}
	return nil
}

func (s *Store) dropIndexes(ctx context.Context, wanted [][]string) error {
	return s.write(ctx, func(ctx context.Context, c *conn) error {
		var gone []int64
		err := c.each(ctx, `SELECT path, name FROM index_paths`, nil, func(rows *sql.Rows) error {
			var number int64
			var name string
			if err := rows.Scan(&number, &name); err != nil {
				return err
			}
			var path []string
			if json.Unmarshal([]byte(name), &path) != nil || !slices.ContainsFunc(wanted, func(p []string) bool { return slices.Equal(p, path) }) {
				gone = append(gone, number)
			}
			return nil
		})
		for _, number := range gone {
			if err == nil {
				_, err = c.exec(ctx, `DELETE FROM device_index WHERE path = ?`, number)
			}
			if err == nil {
				_, err = c.exec(ctx, `DELETE FROM index_paths WHERE path = ?`, number)
			}
		}
		return err
	})
}

// fill brings the values of all devices into an index.
func (s *Store) fill(ctx context.Context, x *pathIndex) error {
	var tenant, device string
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.write(ctx, func(ctx context.Context, c *conn) error {
			n := 0
			var found []indexRow
			err := c.each(ctx, `SELECT tenant, id, doc FROM devices WHERE (tenant, id) > (?, ?) ORDER BY tenant, id LIMIT ?`,
				[]any{tenant, device, fillAtOnce}, func(rows *sql.Rows) error {
					var doc sql.RawBytes
					if err := rows.Scan(&tenant, &device, &doc); err != nil {
						return err
					}
					n++
					for _, v := range registry.IndexValues(doc, x.path) {
						found = append(found, indexRow{tenant, device, v})
					}
					return nil
				})
			for _, r := range found {
				if err != nil {
					return err
				}
				err = c.putIndexed(ctx, x, iot.TenantID(r.tenant), iot.DeviceID(r.device), r.value)
			}
			if more = n == fillAtOnce; !more && err == nil {
				_, err = c.exec(ctx, `UPDATE index_paths SET complete = 1 WHERE path = ?`, x.number)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

type indexRow struct{ tenant, device, value string }

func (c *conn) putIndexed(ctx context.Context, x *pathIndex, tenant iot.TenantID, device iot.DeviceID, value string) error {
	_, err := c.exec(ctx, `INSERT INTO device_index (path, tenant, value, device) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		x.number, string(tenant), value, string(device))
	return err
}

// reindex moves a device's entries from those of the old document to those of
// the new one; nil stands for none.
func (s *Store) reindex(ctx context.Context, c *conn, tenant iot.TenantID, device iot.DeviceID, old, doc []byte) error {
	for i := range s.indexes {
		x := &s.indexes[i]
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

// paths are what searches may use.
func (s *Store) paths() [][]string {
	all := make([][]string, len(s.indexes))
	for i := range s.indexes {
		all[i] = s.indexes[i].path
	}
	return all
}
