package dynamostore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/smithy-go"

	"github.com/sluice-iot/sluice/internal/iot"
)

// retryAfter is what callers are told when the table cannot be reached or is
// throttled.
const retryAfter = time.Second

var (
	errClosed   = errors.New("the store is closed")
	errNoTenant = iot.Errorf(iot.ErrNotFound, "tenant does not exist")
	errNoDevice = iot.Errorf(iot.ErrNotFound, "device not found")
	errVersion  = iot.Errorf(iot.ErrVersion, "resource version mismatch")
)

// translate turns what the SDK says into the platform's errors; ctx is the
// caller's. Errors of our own pass unchanged. The details stay in the text for
// the log; the *iot.Error inside has the text for callers.
func (s *Store) translate(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var own *iot.Error
	if errors.As(err, &own) {
		return err
	}
	switch end := ctx.Err(); {
	case errors.Is(end, context.DeadlineExceeded):
		return iot.Errorf(iot.ErrTimeout, "registry did not answer in time")
	case end != nil:
		return end
	case s.closing.Err() != nil:
		err = errClosed
	}
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() == "ValidationException" && strings.Contains(api.ErrorMessage(), "size") {
		return fmt.Errorf("registry store: %w", &cause{own: errItemSize(), err: err})
	}
	return fmt.Errorf("registry store: %w", unavailable(err))
}

func errItemSize() *iot.Error {
	return iot.Errorf(iot.ErrTooLarge, "the entity is larger than the registry's store keeps (%d KB)", maxItem/1024)
}

// cause is an error for callers with the reason it stands for.
type cause struct {
	own *iot.Error
	err error
}

func unavailable(err error) error {
	own := iot.Errorf(iot.ErrUnavailable, "the registry's store is not available")
	own.RetryAfter = retryAfter
	return &cause{own: own, err: err}
}

func (c *cause) Error() string   { return c.err.Error() }
func (c *cause) Unwrap() []error { return []error{c.own, c.err} }

// hasCode reports whether DynamoDB answered with one of the error codes.
func hasCode(err error, codes ...string) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	for _, code := range codes {
		if api.ErrorCode() == code {
			return true
		}
	}
	return false
}
