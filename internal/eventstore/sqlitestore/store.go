package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/sluice-iot/sluice/internal/eventstore"
)

var _ eventstore.Store = (*Store)(nil)

// Options tunes a [Store]; the zero value is right for one machine.
type Options struct {
	Readers int           // reading connections; 0 = 2
	Busy    time.Duration // how long to wait for another process's lock; 0 = 5 s
	// Cached is how many partitions' states are kept in memory, about 300 bytes each; 0 = 100,000.
	Cached int
}

// Store is the events in one SQLite file. Safe for concurrent use.
type Store struct {
	db      *sql.DB
	readers chan *conn // reading connections that nobody uses now; nil = to be opened
	count   int        // of readers
	cache   cache
	writer  *writer

	closing chan struct{}
	once    sync.Once
}

// Open opens the file at path, creates it with mode 0600 when it is missing,
// and brings its schema up to date. The folder must exist and be writable.
// The error is one line that names the path.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	if o.Readers <= 0 {
		o.Readers = 2
	}
	if o.Busy <= 0 {
		o.Busy = 5 * time.Second
	}
	if o.Cached <= 0 {
		o.Cached = 100_000
	}
	if err := checkWritable(path); err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	db, err := sql.Open("sqlite", dsn(path, o.Busy))
	if err != nil {
		return nil, fmt.Errorf("event store: %s: %w", path, err)
	}
	db.SetMaxIdleConns(-1) // one that we close is closed: it may be broken
	s := &Store{db: db, readers: make(chan *conn, o.Readers), count: o.Readers, cache: cache{max: o.Cached}, closing: make(chan struct{})}
	s.writer = newWriter(s)
	if err := s.writer.connect(ctx); err != nil {
		return nil, fmt.Errorf("event store: %s: %w", path, errors.Join(err, db.Close()))
	}
	for range o.Readers {
		s.readers <- nil
	}
	go s.writer.run()
	return s, nil
}

// checkWritable says plainly what is wrong with a path before SQLite would in
// its own words: it needs the folder for its log, too.
func checkWritable(path string) error {
	dir := filepath.Dir(path)
	probe, err := os.CreateTemp(dir, ".events-*")
	if err != nil {
		return fmt.Errorf("folder %s is not writable: %w", dir, reason(err))
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return fmt.Errorf("folder %s is not writable: %w", dir, reason(err))
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("file %s is not writable: %w", path, reason(err))
	}
	return f.Close()
}

// reason drops the path from an error of package os.
func reason(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// Close waits for calls in progress and closes the file. Later calls fail with
// iot.ErrUnavailable. Closing again does nothing.
func (s *Store) Close() (err error) {
	s.once.Do(func() {
		close(s.closing)
		<-s.writer.stopped
		for range s.count {
			if c := <-s.readers; c != nil {
				c.close()
			}
		}
		err = s.db.Close()
	})
	return err
}

// read runs f on a reading connection. Once begun it is not interrupted: the
// statements are short, and watching a context costs more than they do.
func (s *Store) read(ctx context.Context, f func(context.Context, *conn) error) error {
	c, err := s.take(ctx)
	if err != nil {
		return translate(err)
	}
	defer func() { s.readers <- c }()
	background := context.WithoutCancel(ctx)
	if c == nil {
		if c, err = openConn(background, s.db); err != nil {
			return translate(err)
		}
	}
	if err = f(background, c); err != nil && !errors.Is(err, sql.ErrNoRows) && !passing(err) {
		c.close()
		c = nil
	}
	return translate(err)
}

// closeReaders closes the reading connections that nobody uses now. While one is open,
// SQLite keeps the index of the write-ahead log as it was opened first in this process: for reading only, if it was then.
func (s *Store) closeReaders() {
	for range len(s.readers) {
		select {
		case c := <-s.readers:
			if c != nil {
				c.close()
			}
			s.readers <- nil
		default:
			return
		}
	}
}

// take waits for a reading connection.
func (s *Store) take(ctx context.Context) (*conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-s.closing: // wins over a connection that is free
		return nil, errClosed
	default:
	}
	select {
	case c := <-s.readers:
		return c, nil
	case <-s.closing:
		return nil, errClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
