package pgstore

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sluice-iot/sluice/internal/registry"
)

// indexedPath is a path of devices' documents with a number for index_keys.
type indexedPath struct {
	number   int64
	path     []string
	complete bool // every device is in it
}

// at returns the paths of a generation, which it reads on t when another
// one is cached. The generation was read under the lock of a tenant's
// counters, and moves only while all of those are locked: a change that knows
// it writes what the searches rely on.
func (p *pathsCache) at(ctx context.Context, t *tx, generation int64) ([]indexedPath, error) {
	p.mu.Lock()
	paths, known := p.paths, p.generation == generation
	p.mu.Unlock()
	if known {
		return paths, nil
	}
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	paths, err := readPaths(ctx, t.conn)
	if err != nil {
		return nil, lost(t.conn, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.generation < generation {
		p.generation, p.paths = generation, paths
	}
	return paths, nil
}

type querier interface {
	Query(ctx context.Context, text string, args ...any) (pgx.Rows, error)
}

func readPaths(ctx context.Context, q querier) ([]indexedPath, error) {
	rows, err := q.Query(ctx, `SELECT number, path, complete FROM index_paths ORDER BY number`)
	if err != nil {
		return nil, err
	}
	return scanPaths(rows)
}

func scanPaths(rows pgx.Rows) ([]indexedPath, error) {
	defer rows.Close()
	var all []indexedPath
	for rows.Next() {
		var p indexedPath
		var name string
		if err := rows.Scan(&p.number, &name, &p.complete); err != nil {
			return nil, err
		}
		if err := decode([]byte(name), &p.path); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, rows.Err()
}

// declare makes the set of indexed paths what a program asks for, and fills
// what is new or was left unfinished.
func declare(ctx context.Context, c *pgx.Conn, wanted [][]string) error {
	names := make([]string, len(wanted))
	for i, path := range wanted {
		b, err := json.Marshal(path)
		if err != nil || len(path) == 0 || !storable(path...) || path[0] == "id" || path[0] == "status" {
			return fmt.Errorf("index %d: %q is no path of a device's document", i, path)
		}
		names[i] = string(b)
	}
	names = distinct(names)
	have, err := readPaths(ctx, c)
	if err != nil {
		return err
	}
	if !sameNames(have, names) {
		if have, err = declareAs(ctx, c, names); err != nil {
			return err
		}
	}
	missing := slices.DeleteFunc(have, func(p indexedPath) bool { return p.complete })
	if len(missing) == 0 {
		return nil
	}
	return fill(ctx, c, missing)
}

func sameNames(have []indexedPath, names []string) bool {
	if len(have) != len(names) {
		return false
	}
	for _, p := range have {
		b, err := json.Marshal(p.path)
		if _, found := slices.BinarySearch(names, string(b)); err != nil || !found {
			return false
		}
	}
	return true
}

// declareAs changes the set while no tenant can change: whoever changes one
// afterwards sees the new generation.
func declareAs(ctx context.Context, c *pgx.Conn, names []string) ([]indexedPath, error) {
	tx, err := c.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) // after the commit it does nothing
	for _, text := range []string{
		`SET LOCAL statement_timeout = 0`, // there may be many tenants and keys
		`SELECT 1 FROM state FOR UPDATE`,
		`SELECT 1 FROM counters ORDER BY tenant FOR UPDATE`,
	} {
		if _, err := tx.Exec(ctx, text); err != nil {
			return nil, err
		}
	}
	for _, change := range []string{
		`DELETE FROM index_paths WHERE path <> ALL ($1)`,
		`INSERT INTO index_paths (path, complete) SELECT p, false FROM unnest($1::text[]) n (p) ON CONFLICT DO NOTHING`,
	} {
		if _, err := tx.Exec(ctx, change, names); err != nil {
			return nil, err
		}
	}
	for _, text := range []string{
		`DELETE FROM index_keys WHERE path NOT IN (SELECT number FROM index_paths)`,
		`UPDATE state SET generation = generation + 1`,
	} {
		if _, err := tx.Exec(ctx, text); err != nil {
			return nil, err
		}
	}
	paths, err := readPaths(ctx, tx)
	if err != nil {
		return nil, err
	}
	return paths, tx.Commit(ctx)
}

// fillBatch is how many devices are indexed in one transaction.
const fillBatch = 1000

// fill indexes the devices that are there, in the order of their keys. Devices
// that change meanwhile are indexed by their change; the row lock decides who
// is second, and both write the same for the same document. It may be
// interrupted, and done by two at once.
func fill(ctx context.Context, c *pgx.Conn, paths []indexedPath) error {
	numbers := make([]int64, len(paths))
	for i := range paths {
		numbers[i] = paths[i].number
	}
	var tenant, device string
	for {
		n, err := fillSome(ctx, c, paths, numbers, &tenant, &device)
		for attempt := 1; err != nil && attempt < maxAttempts && isCode(err, codeSerialization, codeDeadlock); attempt++ {
			n, err = fillSome(ctx, c, paths, numbers, &tenant, &device)
		}
		if err != nil {
			return err
		}
		if n < fillBatch {
			break
		}
	}
	_, err := c.Exec(ctx, `UPDATE index_paths SET complete = true WHERE number = ANY ($1)`, numbers)
	return err
}

// fillSome indexes the devices after the given one, and moves that on.
func fillSome(ctx context.Context, c *pgx.Conn, paths []indexedPath, numbers []int64, tenant, device *string) (int, error) {
	tx, err := c.Begin(ctx)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) // after the commit it does nothing
	rows, err := tx.Query(ctx, `SELECT tenant, id, doc FROM devices WHERE (tenant, id) > ($1, $2) ORDER BY tenant, id LIMIT $3 FOR SHARE`,
		*tenant, *device, fillBatch)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var tenants, ids []string
	var keys indexRows
	last := [2]string{*tenant, *device}
	var doc pgtype.DriverBytes
	for rows.Next() {
		if err := rows.Scan(&last[0], &last[1], &doc); err != nil {
			return 0, err
		}
		tenants, ids = append(tenants, last[0]), append(ids, last[1])
		keys.add(paths, last[0], last[1], doc)
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	rows.Close()
	b := &pgx.Batch{}
	b.Queue(`DELETE FROM index_keys k USING unnest($1::text[], $2::text[]) n (tenant, device)
		WHERE k.tenant = n.tenant AND k.device = n.device AND k.path = ANY ($3)`, tenants, ids, numbers)
	keys.queue(b)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return 0, err
	}
	if err := tx.Commit(ctx); err != nil {
		return 0, err
	}
	*tenant, *device = last[0], last[1]
	return len(ids), nil
}

// indexRows collects rows of index_keys.
type indexRows struct {
	tenants, devices []string
	numbers          []int64
	values           [][]byte
}

func (w *indexRows) queue(b *pgx.Batch) {
	if len(w.tenants) == 0 {
		return
	}
	b.Queue(`INSERT INTO index_keys (tenant, path, value, device)
		SELECT * FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::text[]) ON CONFLICT DO NOTHING`, w.tenants, w.numbers, w.values, w.devices)
}

// add collects what the paths hold for a device's document.
func (w *indexRows) add(paths []indexedPath, tenant, device string, doc []byte) {
	for i := range paths {
		for _, value := range registry.IndexValues(doc, paths[i].path) {
			w.tenants, w.devices = append(w.tenants, tenant), append(w.devices, device)
			w.numbers, w.values = append(w.numbers, paths[i].number), append(w.values, []byte(value))
		}
	}
}
