package adapters

import (
	"errors"

	"github.com/sluice-iot/sluice/internal/iot"
)

// The texts that devices are shown for failures on our side (contract:
// adapters 7.5). A [Downstream] uses TextNotProcessed for released and
// modified.
const (
	TextNoConsumer   = "no consumer available"
	TextNotProcessed = "consumer didn't process the message"
	TextNoOutcome    = "consumer failed to indicate in time whether it has processed the message"
	TextUnavailable  = "temporarily unavailable"
	TextNoEvents     = "events cannot be stored now"
)

// shownError shows devices one text and keeps the cause for the log.
type shownError struct {
	shown *iot.Error
	cause error
}

func (e *shownError) Error() string   { return e.cause.Error() }
func (e *shownError) Unwrap() []error { return []error{e.shown, e.cause} }

// downstreamError gives err the text that belongs to it, where it came without.
func downstreamError(err error) error {
	if err == nil {
		return nil // before e, which costs an allocation
	}
	var e *iot.Error
	if errors.As(err, &e) && e.Text != "" {
		return err
	}
	for _, row := range [...]struct {
		sentinel error
		text     string
	}{
		{iot.ErrNoCredit, TextNoConsumer},
		{iot.ErrTimeout, TextNoOutcome},
		{iot.ErrUnavailable, TextUnavailable},
		{iot.ErrInvalid, "message was rejected"},
		{iot.ErrTooLarge, "message is too large"},
	} {
		if errors.Is(err, row.sentinel) {
			return &shownError{shown: iot.Errorf(row.sentinel, "%s", row.text), cause: err}
		}
	}
	return err
}
