package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/registry"
)

var (
	_ registry.Backend   = (*Store)(nil)
	_ assertion.KeyStore = (*Store)(nil)
)

// Options tunes a [Store]; the zero value is right for one machine.
type Options struct {
	Readers int           // reading connections; 0 = 2
	Busy    time.Duration // how long to wait for another process's lock; 0 = 5 s
	// Indexes are the paths of members of devices that searches find quickly. One
	// that is new is filled when the file is opened, and one that is not named any
	// more is dropped then.
	Indexes [][]string
}

// Store is the registry in one SQLite file. Safe for concurrent use.
type Store struct {
	db      *sql.DB
	writer  chan *conn // the one writing connection
	readers chan *conn // readers that nobody uses now
	count   int        // of readers
	// searching has room for fewer searches than there are readers: they may take
	// long, and devices that log in must not wait for them.
	searching chan struct{}
	opened    bool // the writer exists
	closing   chan struct{}
	once      sync.Once

	pruned   time.Time // when the feed was last shortened; owned by the writer's holder
	unpruned int       // changes since then; likewise

	observe func(ctx context.Context, changes []registry.Change)
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
	if err := checkWritable(path); err != nil {
		return nil, fmt.Errorf("registry store: %w", err)
	}
	db, err := sql.Open("sqlite", dsn(path, o.Busy))
	if err != nil {
		return nil, fmt.Errorf("registry store: %s: %w", path, err)
	}
	s := &Store{db: db, writer: make(chan *conn, 1), readers: make(chan *conn, o.Readers), closing: make(chan struct{}),
		searching: make(chan struct{}, max(1, o.Readers-1))}
	err = s.connect(ctx, o.Readers)
	if err == nil {
		err = s.declare(ctx, o.Indexes)
	}
	if err != nil {
		return nil, fmt.Errorf("registry store: %s: %w", path, errors.Join(err, s.Close()))
	}
	return s, nil
}

// checkWritable says plainly what is wrong with a path before SQLite would in
// its own words: it needs the folder for its log, too.
func checkWritable(path string) error {
	dir := filepath.Dir(path)
	probe, err := os.CreateTemp(dir, ".registry-*")
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

func dsn(path string, busy time.Duration) string {
	q := url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busy.Milliseconds()),
		"journal_mode(WAL)",
		"synchronous(FULL)",
		"cache_size(-512)", // KiB for each connection
		"temp_store(MEMORY)",
	}}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}
	return u.String()
}

func (s *Store) connect(ctx context.Context, readers int) error {
	w, err := openConn(ctx, s.db)
	if err != nil {
		return err
	}
	s.writer <- w
	s.opened = true
	if err := w.migrate(ctx); err != nil {
		return err
	}
	for range readers {
		r, err := openConn(ctx, s.db)
		if err != nil {
			return err
		}
		s.readers <- r
		s.count++
	}
	return nil
}

// Close waits for calls in progress and closes the file. Later calls fail with
// iot.ErrUnavailable. Closing again does nothing.
func (s *Store) Close() (err error) {
	s.once.Do(func() {
		close(s.closing)
		for range s.count {
			(<-s.readers).close()
		}
		if s.opened {
			(<-s.writer).close()
		}
		err = s.db.Close()
	})
	return err
}
