package pgstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

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
	codeCharacter     = "22021" // a byte that the encoding does not have
	codeEscape        = "22P05" // \u0000 in a document that the database reads
)

var (
	errClosed   = errors.New("the store is closed")
	errNoTenant = iot.Errorf(iot.ErrNotFound, "tenant does not exist")
	errNoDevice = iot.Errorf(iot.ErrNotFound, "device not found")
	errVersion  = iot.Errorf(iot.ErrVersion, "resource version mismatch")
	errExists   = iot.Errorf(iot.ErrExists, "device already exists")
	errText     = iot.Errorf(iot.ErrInvalid, "a text holds U+0000 or is not UTF-8, which the store cannot keep")
)

// errUnknown marks a commit that was sent and not answered.
var errUnknown = errors.New("the connection was lost during the commit")

// translate turns what the driver says into the platform's errors. Errors of
// our own pass unchanged. The details stay in the text for the log; the
// *iot.Error inside has the text for callers. ctx is the caller's.
func translate(ctx context.Context, err error) error {
	var own *iot.Error
	switch {
	case err == nil, errors.As(err, &own):
		return err
	case errors.Is(err, errUnknown):
		return away(err, "the registry's store went away during the change, which may or may not have been made")
	case isCode(err, codeCharacter, codeEscape):
		return errText
	}
	switch ended := ctx.Err(); {
	case errors.Is(ended, context.DeadlineExceeded):
		return iot.Errorf(iot.ErrTimeout, "registry did not answer in time")
	case ended != nil:
		return fmt.Errorf("registry store: %w", ended)
	}
	return away(err, "the registry's store is not available")
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
	return "registry store: " + strings.Join(strings.Fields(c.err.Error()), " ")
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
// deadlock, or a pooled connection had died unnoticed. It is not asked about a
// commit without an answer, nor about a connection that could not be made.
func repeatable(err error) bool {
	var connect *pgconn.ConnectError
	var own *iot.Error
	var said *pgconn.PgError
	switch {
	case errors.Is(err, errUnknown), errors.As(err, &connect), errors.As(err, &own), errors.Is(err, errClosed):
		return false
	case errors.As(err, &said):
		return isCode(err, codeSerialization, codeDeadlock, codeShutdown, codeCrash)
	}
	return !pgconn.Timeout(err) && !errors.Is(err, context.Canceled) && errors.Is(err, errLost)
}

// errLost marks what went wrong when the connection was gone afterwards.
var errLost = errors.New("the connection was lost")

// storable reports whether a text can be in the database at all.
func storable(texts ...string) bool {
	for _, s := range texts {
		if strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) {
			return false
		}
	}
	return true
}

// text is a parameter to look for: what cannot be stored equals nothing.
func text[T ~string](s T) any {
	if !storable(string(s)) {
		return nil
	}
	return string(s)
}
