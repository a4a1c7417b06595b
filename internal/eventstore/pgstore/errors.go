package pgstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// retryAfter is what callers are told to wait when the database is away.
const retryAfter = 2 * time.Second

// SQLSTATE codes that mean something to the store.
const (
	codeSerialization = "40001"
	codeDeadlock      = "40P01"
	codeShutdown      = "57P01"
	codeCrash         = "57P02"
	codeReadOnly      = "25006" // after a failover: the connection is to a standby
)

var (
	errClosed = errors.New("the store is closed")
	// errUnknown marks a commit that was sent and not answered.
	errUnknown = errors.New("the connection was lost during the commit")
	// errLost marks what went wrong when the connection was gone afterwards.
	errLost = errors.New("the connection was lost")
	// errVanished is a row that another made and undid, or removed, while this one looked for it.
	errVanished = errors.New("the row of a partition is not there")

	errTenant = iot.Errorf(iot.ErrInvalid, "the name of the tenant holds U+0000 or is not UTF-8, which the store cannot keep")
	errTwice  = iot.Errorf(iot.ErrInvalid, "a partition is named twice in one update")
)

// translate turns what the driver says into the platform's errors. Errors of
// our own pass unchanged. The details stay in the text for the log; the
// *iot.Error inside has the text for callers. ctx is the caller's.
func translate(ctx context.Context, err error) error {
	var own *iot.Error
	switch {
	case err == nil, errors.As(err, &own):
		return err
	case errors.Is(err, errUnknown):
		return away(err, "the event store went away during the change, which may or may not have been made")
	}
	switch ended := ctx.Err(); {
	case errors.Is(ended, context.DeadlineExceeded):
		return iot.Errorf(iot.ErrTimeout, "the event store did not answer in time")
	case ended != nil:
		return fmt.Errorf("event store: %w", ended)
	}
	return away(err, "the event store is not available")
}

// cause is an iot.ErrUnavailable with the reason it stands for.
type cause struct {
	own *iot.Error
	err error
}

func away(err error, text string) error {
	own := iot.Errorf(iot.ErrUnavailable, "%s", text)
	own.RetryAfter = retryAfter
	return &cause{own: own, err: err}
}

// Error is one line: the driver lists what it tried over several.
func (c *cause) Error() string {
	return "event store: " + strings.Join(strings.Fields(c.err.Error()), " ")
}

func (c *cause) Unwrap() []error {
	// A deadline of our own is no deadline of the caller.
	if errors.Is(c.err, context.DeadlineExceeded) || errors.Is(c.err, context.Canceled) {
		return []error{c.own}
	}
	return []error{c.own, c.err}
}

// repeatable reports an error after which nothing was changed and the same
// transaction may well succeed: the database chose it as the victim of a
// deadlock, another server has taken over, or a pooled connection had died
// unnoticed. It is not asked about a commit without an answer, nor about a
// connection that could not be made.
func repeatable(err error) bool {
	var connect *pgconn.ConnectError
	var own *iot.Error
	var said *pgconn.PgError
	switch {
	case errors.Is(err, errUnknown), errors.As(err, &connect), errors.As(err, &own), errors.Is(err, errClosed):
		return false
	case errors.Is(err, errVanished):
		return true
	case errors.As(err, &said):
		return isCode(err, codeSerialization, codeDeadlock, codeShutdown, codeCrash, codeReadOnly)
	}
	return !pgconn.Timeout(err) && !errors.Is(err, context.Canceled) && errors.Is(err, errLost)
}

func isCode(err error, codes ...string) bool {
	var said *pgconn.PgError
	return errors.As(err, &said) && slices.Contains(codes, said.Code)
}

// corrupt is a state that a program of another kind wrote.
func corrupt(key eventstore.Key, err error) error {
	return away(fmt.Errorf("the state of partition %s of tenant %q: %w", key.Partition, string(key.Tenant), err), "the state of a partition cannot be read")
}

// storable reports whether the database can hold a tenant's name at all.
func storable(t iot.TenantID) bool {
	return strings.IndexByte(string(t), 0) < 0 && utf8.ValidString(string(t))
}
