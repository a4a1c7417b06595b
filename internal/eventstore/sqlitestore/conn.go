package sqlitestore

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"time"
)

// conn is one SQLite connection with its prepared statements. One goroutine
// at a time has it.
type conn struct {
	sql   *sql.Conn
	stmts map[string]*sql.Stmt
}

func openConn(ctx context.Context, db *sql.DB) (*conn, error) {
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{sql: c, stmts: map[string]*sql.Stmt{}}, nil
}

func (c *conn) close() {
	for _, s := range c.stmts {
		s.Close() // an error here has no consequence: the connection is closed next
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

func (c *conn) exec(ctx context.Context, text string, args ...any) (sql.Result, error) {
	s, err := c.prepare(ctx, text)
	if err != nil {
		return nil, err
	}
	return s.ExecContext(ctx, args...)
}

// row scans the first row of a result; sql.ErrNoRows when there is none.
func (c *conn) row(ctx context.Context, text string, args []any, dst ...any) error {
	s, err := c.prepare(ctx, text)
	if err != nil {
		return err
	}
	return s.QueryRowContext(ctx, args...).Scan(dst...)
}

// each calls f for the rows of a result, until it reports false.
func (c *conn) each(ctx context.Context, text string, args []any, f func(*sql.Rows) (bool, error)) error {
	s, err := c.prepare(ctx, text)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if more, err := f(rows); err != nil || !more {
			return err
		}
	}
	return rows.Err()
}

// The log is copied into the file by whoever commits, so it is not large; but what was
// removed before it is copied need not be: events that are taken at once cost no
// write of the file itself.
const (
	checkpointPages = 8192     // of 4 KiB
	logBytes        = 64 << 20 // that the log keeps after it was larger
	readerKiB       = 2 << 10  // what a reading connection keeps of the file
	writerKiB       = 24 << 10 // a transaction that changes more pages than that writes some of them twice
)

func dsn(path string, busy time.Duration) string {
	q := url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busy.Milliseconds()),
		"journal_mode(WAL)",
		"synchronous(FULL)",
		fmt.Sprintf("wal_autocheckpoint(%d)", checkpointPages),
		fmt.Sprintf("journal_size_limit(%d)", logBytes),
		fmt.Sprintf("cache_size(-%d)", readerKiB),
		"temp_store(MEMORY)",
	}}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}
	return u.String()
}
