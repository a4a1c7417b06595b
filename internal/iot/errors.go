package iot

import (
	"errors"
	"fmt"
	"time"
)

// The sentinel errors. Code decides with [errors.Is]; the text after a wrapped
// sentinel is for people. internal/status maps each to the protocols.
var (
	ErrNotFound        = errors.New("not found")
	ErrExists          = errors.New("exists already")
	ErrInvalid         = errors.New("invalid")
	ErrUnauthenticated = errors.New("not authenticated")
	ErrForbidden       = errors.New("forbidden")
	ErrVersion         = errors.New("version mismatch")
	ErrTooLarge        = errors.New("too large")
	ErrQuota           = errors.New("quota exceeded")
	ErrNoCredit        = errors.New("no consumer available")
	ErrUnavailable     = errors.New("temporarily unavailable")
	ErrTimeout         = errors.New("timed out")
)

// Sentinels lists every sentinel error, for tables that must cover them all.
var Sentinels = []error{
	ErrNotFound, ErrExists, ErrInvalid, ErrUnauthenticated, ErrForbidden, ErrVersion,
	ErrTooLarge, ErrQuota, ErrNoCredit, ErrUnavailable, ErrTimeout,
}

// Error is a sentinel with the text that may be shown to the caller and,
// for ErrQuota and ErrUnavailable, the time after which a retry makes sense.
type Error struct {
	Sentinel   error         // one of the sentinels above
	Text       string        // shown to callers; no internals
	RetryAfter time.Duration // 0 = not stated
}

// Errorf returns an *Error with the formatted text; it unwraps to sentinel.
func Errorf(sentinel error, format string, args ...any) *Error {
	return &Error{Sentinel: sentinel, Text: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string {
	if e.Text == "" {
		return e.Sentinel.Error()
	}
	return e.Text
}

// Unwrap makes errors.Is(err, ErrX) hold.
func (e *Error) Unwrap() error { return e.Sentinel }

// RetryAfter returns the retry delay that err carries, or 0.
func RetryAfter(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}
