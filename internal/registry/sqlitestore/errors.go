package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"

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
		return iot.Errorf(iot.ErrTimeout, "registry did not answer in time")
	case errors.Is(err, context.Canceled):
		return err
	}
	var driver *sqlite.Error
	if errors.As(err, &driver) {
		return fmt.Errorf("registry store: sqlite code %d: %w", driver.Code(), unavailable(err))
	}
	return fmt.Errorf("registry store: %w", unavailable(err))
}

// cause is an iot.ErrUnavailable with the reason it stands for.
type cause struct {
	own *iot.Error
	err error
}

// retryAfter is what callers are told to wait while the file cannot be used.
const retryAfter = 2 * time.Second

func unavailable(err error) error {
	own := iot.Errorf(iot.ErrUnavailable, "the registry's store is not available")
	own.RetryAfter = retryAfter
	return &cause{own: own, err: err}
}

func (c *cause) Error() string   { return c.err.Error() }
func (c *cause) Unwrap() []error { return []error{c.own, c.err} }

var (
	errClosed   = errors.New("the store is closed")
	errNoTenant = iot.Errorf(iot.ErrNotFound, "tenant does not exist")
	errNoDevice = iot.Errorf(iot.ErrNotFound, "device not found")
	errVersion  = iot.Errorf(iot.ErrVersion, "resource version mismatch")
)
