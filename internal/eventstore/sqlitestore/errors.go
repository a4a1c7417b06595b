package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/sluice-iot/sluice/internal/iot"
)

// translate turns what the driver says into the platform's errors. Errors of
// our own pass unchanged. The details stay in the text for the log; the
// *iot.Error inside has the text for callers.
func translate(err error) error {
	var own *iot.Error
	switch {
	case err == nil, errors.As(err, &own):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return iot.Errorf(iot.ErrTimeout, "the event store did not answer in time")
	case errors.Is(err, context.Canceled):
		return err
	}
	var driver *sqlite.Error
	if errors.As(err, &driver) {
		return fmt.Errorf("event store: sqlite code %d: %w", driver.Code(), unavailable(err))
	}
	return fmt.Errorf("event store: %w", unavailable(err))
}

// cause is an iot.ErrUnavailable with the reason it stands for.
type cause struct {
	own *iot.Error
	err error
}

// retryAfter is what callers are told to wait while the file cannot be used.
const retryAfter = 2 * time.Second

func unavailable(err error) error {
	own := iot.Errorf(iot.ErrUnavailable, "the event store is not available")
	own.RetryAfter = retryAfter
	return &cause{own: own, err: err}
}

func (c *cause) Error() string   { return c.err.Error() }
func (c *cause) Unwrap() []error { return []error{c.own, c.err} }

// passing reports whether a connection that met this error is as good as before.
func passing(err error) bool {
	var driver *sqlite.Error
	if !errors.As(err, &driver) {
		return false
	}
	switch driver.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM:
		return true
	}
	return false
}

// readOnly reports whether the file, or what is beside it, could not be written to at that moment: it was
// opened for reading only, or the index of the write-ahead log, which is mapped into memory, became so
// meanwhile. The latter is a fault of the processor (SIGBUS), which the driver handles.
func readOnly(err error) bool {
	var driver *sqlite.Error
	return errors.As(err, &driver) && (driver.Code()&0xff == sqlite3.SQLITE_READONLY || driver.Code() == sqlite3.SQLITE_IOERR_IN_PAGE)
}

var errClosed = errors.New("the store is closed")

// noRoom refuses one change, not those that are committed with it.
func noRoom() error {
	return translate(errors.New("the file has no numbers left for partitions or positions"))
}
