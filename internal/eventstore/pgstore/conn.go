package pgstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// maxAttempts bounds how often a transaction is made that the database undid.
const maxAttempts = 6

// acquire takes a connection from the pool, at most for the statement's time.
func (s *Store) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.closed.Load() {
		return nil, errClosed
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.pool.Acquire(ctx)
}

// repeat calls f until its error is none that a repetition may mend.
func (s *Store) repeat(ctx context.Context, f func() error) error {
	for attempt := 1; ; attempt++ {
		err := f()
		if err == nil || attempt == maxAttempts || !repeatable(err) {
			return translate(ctx, err)
		}
		pause := time.NewTimer(time.Duration(1+rand.Int64N(10<<attempt)) * time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return translate(ctx, err)
		}
	}
}

// read runs f on a connection. f starts anew when it is called again.
func (s *Store) read(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	return s.repeat(ctx, func() error {
		c, err := s.acquire(ctx)
		if err != nil {
			return err
		}
		defer c.Release()
		ctx, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		return lost(c.Conn(), f(ctx, c.Conn()))
	})
}

// lost adds errLost to an error that came with the end of the connection.
func lost(c *pgx.Conn, err error) error {
	if err != nil && c.IsClosed() {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return err
}

// tx is one transaction: a batch that takes the locks and reads what the
// change depends on, perhaps one that removes, and one that writes and commits.
type tx struct {
	conn      *pgx.Conn
	timeout   time.Duration
	begun     bool
	committed bool
}

// change runs f as one transaction, which is undone when f fails or does not
// finish. f starts anew when it is called again.
//
// READ COMMITTED is enough, because every change of a partition takes the
// partition's row first and each statement after it sees what was committed
// until then; it also spares what SERIALIZABLE would undo and repeat under load.
func (s *Store) change(ctx context.Context, f func(context.Context, *tx) error) error {
	return s.repeat(ctx, func() error {
		c, err := s.acquire(ctx)
		if err != nil {
			return err
		}
		defer c.Release() // closes a connection that is still inside of a transaction
		t := &tx{conn: c.Conn(), timeout: s.timeout}
		err = f(ctx, t)
		if t.begun && !t.committed && !t.conn.IsClosed() {
			t.rollback(ctx)
		}
		if isCode(err, codeReadOnly) {
			t.close(ctx) // the next one may reach the server that has taken over
		}
		return err
	})
}

func (t *tx) rollback(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	t.conn.Exec(ctx, "ROLLBACK") // where it fails the connection is closed, which undoes the same
	t.begun = false
}

func (t *tx) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	t.conn.Close(ctx)
}

// load begins the transaction where it has not begun and runs b. It ends with
// the caller's ctx.
func (t *tx) load(ctx context.Context, b *pgx.Batch) error {
	if !t.begun {
		begin := &pgx.Batch{}
		begin.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
		begin.QueuedQueries = append(begin.QueuedQueries, b.QueuedQueries...)
		b = begin
	}
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	t.begun = true
	return lost(t.conn, t.conn.SendBatch(ctx, b).Close())
}

// finish runs b and commits. A caller that goes away gets its result all the
// same, so that nobody has to guess whether a change happened; nothing here
// waits for another transaction, so that it does not take long.
func (t *tx) finish(ctx context.Context, b *pgx.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.timeout)
	defer cancel()
	b.Queue("COMMIT").Exec(func(tag pgconn.CommandTag) error {
		t.committed = tag.String() == "COMMIT"
		return nil
	})
	switch err := t.conn.SendBatch(ctx, b).Close(); {
	case t.committed:
		return nil
	case t.conn.IsClosed():
		return fmt.Errorf("%w: %w", errUnknown, err)
	case err == nil:
		return errors.New("the database undid the transaction")
	default:
		return err
	}
}
