package dynamostore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/smithy-go"

	"github.com/sluice-iot/sluice/internal/iot"
)

// retryAfter is what callers are told when the table cannot be reached or is
// throttled.
const retryAfter = time.Second

var (
	errClosed = errors.New("the store is closed")
	// errMoved says that the partition changed since its state was read.
	errMoved = errors.New("another change came first")
	// errBusy says that another transaction on the same items is under way.
	errBusy = errors.New("another transaction is under way")
	// errDoubtful says that a write may have happened and nothing tells any more.
	errDoubtful = errors.New("the answer to a write was lost, and others wrote after it")
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
		return iot.Errorf(iot.ErrTimeout, "the event store did not answer in time")
	case end != nil:
		return end
	case s.closing.Err() != nil:
		err = errClosed
	}
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() == "ValidationException" && strings.Contains(api.ErrorMessage(), "size") {
		return tooLarge(err)
	}
	return unavailable(err)
}

// cause is an error for callers with the reason it stands for.
type cause struct {
	own *iot.Error
	err error
}

func (c *cause) Error() string   { return "event store: " + c.err.Error() }
func (c *cause) Unwrap() []error { return []error{c.own, c.err} }

func unavailable(err error) error {
	own := iot.Errorf(iot.ErrUnavailable, "the event store is not available")
	own.RetryAfter = retryAfter
	return &cause{own: own, err: err}
}

func tooLarge(err error) error {
	return &cause{own: iot.Errorf(iot.ErrTooLarge, "the change is larger than the event store takes at once (%d MB)", maxTransaction>>20), err: err}
}

// corrupt is an item that this program did not write so.
func corrupt(k key, err error) error {
	return unavailable(fmt.Errorf("item %q %q: %w", k.pk, k.sk, err))
}

// hasCode reports whether DynamoDB answered with one of the error codes.
func hasCode(err error, codes ...string) bool {
	var api smithy.APIError
	return errors.As(err, &api) && slices.Contains(codes, api.ErrorCode())
}

// refused reports whether DynamoDB says itself that it did not do a write.
func refused(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	if hasCode(err, "ValidationException", "AccessDeniedException", "UnrecognizedClientException", "ThrottlingException") {
		return true
	}
	return api.ErrorFault() == smithy.FaultClient && !hasCode(err, "TransactionInProgressException")
}

// throttled reports whether the same request may succeed in a moment.
func throttled(err error) bool {
	return hasCode(err, "ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded",
		"LimitExceededException", "TransactionInProgressException")
}
