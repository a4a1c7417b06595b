package sqlitestore

import (
	"context"
	"database/sql"

	"github.com/sluice-iot/sluice/internal/registry"
)

// conn is one SQLite connection with its prepared statements. One goroutine
// at a time has it.
type conn struct {
	sql     *sql.Conn
	stmts   map[string]*sql.Stmt
	changes []registry.Change // of the transaction under way

	indexes []pathIndex         // of the transaction under way, see readIndexes
	paths   map[string][]string // decoded names of indexes
	large   bool                // the cache is that of a bulk
}

func openConn(ctx context.Context, db *sql.DB) (*conn, error) {
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{sql: c, stmts: make(map[string]*sql.Stmt), paths: make(map[string][]string)}, nil
}

func (c *conn) close() {
	for _, s := range c.stmts {
		s.Close() // an error here has no consequence: the file is closed next
	}
	c.sql.Close()
}

// prepare returns the statement for a text, which must be a constant.
func (c *conn) prepare(ctx context.Context, text string) (*sql.Stmt, error) {
	if s, ok := c.stmts[text]; ok {
		return s, nil
	}
	s, err := c.sql.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	c.stmts[text] = s
	return s, nil
}

// exec returns how many rows a statement changed.
func (c *conn) exec(ctx context.Context, text string, args ...any) (int64, error) {
	s, err := c.prepare(ctx, text)
	if err != nil {
		return 0, err
	}
	res, err := s.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (c *conn) query(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	s, err := c.prepare(ctx, text)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}

// row scans the first row of a result; sql.ErrNoRows when there is none.
func (c *conn) row(ctx context.Context, text string, args []any, dst ...any) error {
	s, err := c.prepare(ctx, text)
	if err != nil {
		return err
	}
	return s.QueryRowContext(ctx, args...).Scan(dst...)
}

// each calls f for every row of a result.
func (c *conn) each(ctx context.Context, text string, args []any, f func(*sql.Rows) error) error {
	rows, err := c.query(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// take waits for a connection of a pool.
func (s *Store) take(ctx context.Context, pool chan *conn) (*conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-s.closing: // wins over a connection that is free
		return nil, errClosed
	default:
	}
	select {
	case c := <-pool:
		return c, nil
	case <-s.closing:
		return nil, errClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// read runs f on a reading connection. Once begun it is not interrupted: the
// statements are short, and watching a context costs more than they do.
func (s *Store) read(ctx context.Context, f func(context.Context, *conn) error) error {
	c, err := s.take(ctx, s.readers)
	if err != nil {
		return translate(err)
	}
	defer func() { s.readers <- c }()
	return translate(f(context.WithoutCancel(ctx), c))
}

// write runs f as one transaction, which is undone when f fails. A caller
// that goes away while it runs gets its result all the same, so that nobody
// has to guess whether a change happened.
func (s *Store) write(ctx context.Context, f func(context.Context, *conn) error) error {
	return s.writeMany(ctx, 1, f)
}

// writeMany is write with the number of devices that f is going to write.
func (s *Store) writeMany(ctx context.Context, devices int, f func(context.Context, *conn) error) error {
	changes, err := s.commit(ctx, devices, f)
	if err != nil {
		return translate(err)
	}
	if len(changes) > 0 && s.observe != nil {
		s.observe(ctx, changes)
	}
	return nil
}

// commit gives the writing connection back before anybody is told: telling may
// take a while.
func (s *Store) commit(ctx context.Context, devices int, f func(context.Context, *conn) error) ([]registry.Change, error) {
	c, err := s.take(ctx, s.writer)
	if err != nil {
		return nil, err
	}
	defer func() { s.writer <- c }()
	c.changes = nil
	err = c.transact(context.WithoutCancel(ctx), func(ctx context.Context, c *conn) error {
		if err := c.resize(ctx, devices >= largeBatch); err != nil {
			return err
		}
		if err := c.readIndexes(ctx); err != nil {
			return err
		}
		return f(ctx, c)
	})
	return c.changes, err
}

// A bulk of devices with random ids changes a page of each tree for each
// device. With the small cache that is enough otherwise, SQLite writes and
// reads them again within the transaction; and the log is copied into the file
// after every single bulk, unless it may grow. Both shrink with the next single change.
const largeBatch = 64 // devices

var (
	smallPragmas = []string{"PRAGMA cache_size = -512", "PRAGMA wal_autocheckpoint = 1000"}    // KiB, pages
	largePragmas = []string{"PRAGMA cache_size = -32768", "PRAGMA wal_autocheckpoint = 16384"} // 32 and 64 MiB
)

func (c *conn) resize(ctx context.Context, large bool) error {
	if c.large == large {
		return nil
	}
	texts := smallPragmas
	if large {
		texts = largePragmas
	}
	for _, text := range texts {
		if _, err := c.sql.ExecContext(ctx, text); err != nil {
			return err
		}
	}
	c.large = large
	return nil
}

// Observe implements registry.Backend.
func (s *Store) Observe(f func(ctx context.Context, changes []registry.Change)) { s.observe = f }

func (c *conn) transact(ctx context.Context, f func(context.Context, *conn) error) (err error) {
	if _, err := c.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	done := false
	defer func() {
		if !done { // f failed or panicked
			c.exec(ctx, "ROLLBACK") // fails only where SQLite has rolled back already
		}
	}()
	if err := f(ctx, c); err != nil {
		return err
	}
	if _, err := c.exec(ctx, "COMMIT"); err != nil {
		return err
	}
	done = true
	return nil
}
