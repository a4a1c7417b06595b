package downstream

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
)

// descriptionNoDevice tells, with amqp:precondition-failed, that the router
// took the assertion for void.
const descriptionNoDevice = "device non-existent/disabled"

// maxDescription is how many bytes of an application's words are passed on.
const maxDescription = 256

// failure shows devices one text and keeps what happened for the log.
type failure struct {
	shown *iot.Error
	cause string
}

func (f *failure) Error() string { return f.cause }
func (f *failure) Unwrap() error { return f.shown }

func unavailable(text, cause string) error {
	return &failure{&iot.Error{Sentinel: iot.ErrUnavailable, Text: text}, cause}
}

var (
	errNoConsumer error = iot.Errorf(iot.ErrNoCredit, "%s", adapters.TextNoConsumer)
	errNoOutcome  error = iot.Errorf(iot.ErrTimeout, "%s", adapters.TextNoOutcome)
	errTooLarge   error = iot.Errorf(iot.ErrTooLarge, "message is too large")
	errForbidden  error = iot.Errorf(iot.ErrForbidden, "%s", descriptionNoDevice)

	errNoRouter  = unavailable(adapters.TextUnavailable, "no router is connected")
	errStopping  = unavailable(adapters.TextUnavailable, "the way to the routers is being closed")
	errReleased  = unavailable(adapters.TextNotProcessed, "the application released the message")
	errModified  = unavailable(adapters.TextNotProcessed, "the application did not process the message (modified)")
	errLost      = unavailable(adapters.TextNotProcessed, "link or connection was lost before the outcome came")
	errNoHandles = unavailable(adapters.TextUnavailable, "the router allows no more links on its connection")

	errTooLate error = &failure{iot.Errorf(iot.ErrTimeout, "%s", adapters.TextNoOutcome), "the caller gave up before the message was sent"}

	errTooManyTargets error = &failure{
		&iot.Error{Sentinel: iot.ErrUnavailable, Text: adapters.TextUnavailable, RetryAfter: time.Second},
		"command responses to too many addresses are under way",
	}

	errTooManyWait error = &failure{
		&iot.Error{Sentinel: iot.ErrUnavailable, Text: adapters.TextUnavailable, RetryAfter: time.Second},
		"too many messages wait for credit",
	}
)

// outcome makes an error of the receiver's state; nil for accepted.
func outcome(state amqp.Raw) error {
	switch state.StateKind() {
	case amqp.DescAccepted:
		return nil
	case amqp.DescReleased:
		return errReleased
	case amqp.DescModified:
		return errModified
	case amqp.DescRejected:
		if v, err := amqp.DecodeState(state); err == nil {
			return rejection(v.(*amqp.Rejected).Error)
		}
	}
	return unavailable(adapters.TextNotProcessed, fmt.Sprintf("the message was settled with state %v", state.StateKind()))
}

func rejection(e *amqp.Error) error {
	if e == nil {
		e = &amqp.Error{}
	}
	switch e.Condition {
	case amqp.CondPreconditionFailed:
		if e.Description == descriptionNoDevice {
			return errForbidden
		}
	case amqp.CondMessageSizeExceeded:
		return errTooLarge
	case amqp.CondResourceLimitExceeded, amqp.CondInternalError, amqp.CondUnauthorizedAccess:
		return unavailable(adapters.TextUnavailable, "message rejected: "+shorten(e.Error()))
	}
	text := shorten(e.Description)
	if text == "" {
		text = "message was rejected"
	}
	return iot.Errorf(iot.ErrInvalid, "%s", text)
}

// refusal makes an error of why a router has no link for an address.
func refusal(address string, e *amqp.Error) error {
	return unavailable(adapters.TextUnavailable, fmt.Sprintf("router refused the link to %s: %s", address, shorten(e.Error())))
}

// shorten bounds what others wrote and makes it valid text of one line.
func shorten(s string) string {
	if len(s) > maxDescription {
		n := maxDescription
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
