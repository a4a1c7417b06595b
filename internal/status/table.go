package status

import (
	"context"
	"errors"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Errors that are no sentinel of iot because no rule decides on them: they
// say that a part of the platform itself is at fault.
var (
	// ErrInternal is what an unknown error or a panic looks like to a caller.
	ErrInternal = errors.New("internal error")
	// ErrNotCloudEvent is a call in no form of CloudEvents.
	ErrNotCloudEvent = errors.New("not a CloudEvent")
	// ErrUnknownType is a CloudEvent of a type that nobody serves here.
	ErrUnknownType = errors.New("unknown type of CloudEvent")
)

// Op names an operation whose answers differ from the table in a row.
type Op uint8

// The operations with rows of their own.
const (
	Any    Op = iota
	Upload    // telemetry and event sent by a device
)

// Row is one error in every protocol.
type Row struct {
	Err error // the sentinel; nil in the row of unknown errors
	Op  Op    // Any, or the operation this row is an exception for

	Code   string // CloudEvent error code (contract: events 3)
	Status int    // CloudEvent statuscode and the HTTP status of a function

	HTTP    int    // HTTP status towards devices and operators, and "status" of AMQP service replies
	CoAP    uint8  // class<<5 | detail
	MQTT    uint8  // MQTT 5 reason code of a CONNACK
	MQTT311 uint8  // MQTT 3.1.1 return code of a CONNACK
	AMQP    string // error condition of a rejected delivery, a link or a connection
	Release bool   // an AMQP delivery is released instead of rejected

	Retry bool // the caller may try again
	Once  bool // but only one time
}

// AMQP error conditions (AMQP 1.0 Part 2, 2.8.15 to 2.8.18; messaging 1.3).
const (
	BadRequest         = "hono:bad-request"
	UnauthorizedAccess = "amqp:unauthorized-access"
	NotFound           = "amqp:not-found"
	PreconditionFailed = "amqp:precondition-failed"
	LimitExceeded      = "amqp:resource-limit-exceeded"
	SizeExceeded       = "amqp:link:message-size-exceeded"
	InternalError      = "amqp:internal-error"
)

// Table is searched from the top: an exception for one operation stands before
// the row it differs from.
var Table = []Row{
	{Err: ErrInternal, Op: Upload, Code: "internal", Status: 500, HTTP: 503, CoAP: coap(5, 0), MQTT: 0x80, MQTT311: 5, AMQP: InternalError, Release: true, Retry: true, Once: true},

	{Err: iot.ErrInvalid, Code: "invalid", Status: 400, HTTP: 400, CoAP: coap(4, 0), MQTT: 0x87, MQTT311: 5, AMQP: BadRequest},
	{Err: iot.ErrUnauthenticated, Code: "unauthenticated", Status: 401, HTTP: 401, CoAP: coap(4, 1), MQTT: 0x86, MQTT311: 4, AMQP: UnauthorizedAccess},
	{Err: iot.ErrForbidden, Code: "forbidden", Status: 403, HTTP: 403, CoAP: coap(4, 3), MQTT: 0x87, MQTT311: 5, AMQP: UnauthorizedAccess},
	{Err: iot.ErrNotFound, Code: "not-found", Status: 404, HTTP: 404, CoAP: coap(4, 4), MQTT: 0x86, MQTT311: 4, AMQP: NotFound},
	{Err: iot.ErrExists, Code: "exists", Status: 409, HTTP: 409, CoAP: coap(4, 9), MQTT: 0x87, MQTT311: 5, AMQP: PreconditionFailed},
	{Err: iot.ErrVersion, Code: "version-mismatch", Status: 412, HTTP: 412, CoAP: coap(4, 12), MQTT: 0x87, MQTT311: 5, AMQP: PreconditionFailed},
	{Err: iot.ErrTooLarge, Code: "too-large", Status: 413, HTTP: 413, CoAP: coap(4, 13), MQTT: 0x95, MQTT311: 5, AMQP: SizeExceeded},
	{Err: iot.ErrQuota, Code: "quota-exceeded", Status: 429, HTTP: 429, CoAP: coap(4, 29), MQTT: 0x97, MQTT311: 5, AMQP: LimitExceeded, Retry: true},
	{Err: iot.ErrUnavailable, Code: "unavailable", Status: 503, HTTP: 503, CoAP: coap(5, 3), MQTT: 0x88, MQTT311: 3, AMQP: InternalError, Release: true, Retry: true},
	{Err: iot.ErrNoCredit, Code: "unavailable", Status: 503, HTTP: 503, CoAP: coap(5, 3), MQTT: 0x88, MQTT311: 3, AMQP: InternalError, Release: true, Retry: true},
	{Err: iot.ErrTimeout, Code: "timeout", Status: 504, HTTP: 503, CoAP: coap(5, 3), MQTT: 0x88, MQTT311: 3, AMQP: InternalError, Release: true, Retry: true},

	{Err: ErrUnknownType, Code: "unsupported", Status: 422, HTTP: 500, CoAP: coap(5, 0), MQTT: 0x80, MQTT311: 5, AMQP: InternalError, Release: true},
	{Err: ErrNotCloudEvent, Code: "unsupported", Status: 415, HTTP: 500, CoAP: coap(5, 0), MQTT: 0x80, MQTT311: 5, AMQP: InternalError, Release: true},
	{Err: ErrInternal, Code: "internal", Status: 500, HTTP: 500, CoAP: coap(5, 0), MQTT: 0x80, MQTT311: 5, AMQP: InternalError, Release: true, Retry: true, Once: true},
}

func coap(class, detail uint8) uint8 { return class<<5 | detail }

// Of returns the row of err. A nil err has no row: asking for it is a mistake
// of the caller and answers as internal, like every unknown error.
func Of(err error) Row { return For(Any, err) }

// For is [Of] for one operation, whose exceptions win.
func For(op Op, err error) Row {
	sentinel := Sentinel(err)
	for _, r := range Table {
		if r.Err == sentinel && (r.Op == Any || r.Op == op) {
			return r
		}
	}
	panic("status: the table has no row for " + sentinel.Error()) // a test walks all
}

// Sentinel returns the error of the table that err wraps. A passed deadline
// counts as iot.ErrTimeout, a cancelled context as iot.ErrUnavailable, and
// whatever is unknown, nil included, as ErrInternal.
func Sentinel(err error) error {
	for _, r := range Table {
		if errors.Is(err, r.Err) {
			return r.Err
		}
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return iot.ErrTimeout
	case errors.Is(err, context.Canceled):
		return iot.ErrUnavailable
	}
	return ErrInternal
}

// HTTP returns the HTTP status of err towards devices and operators.
func HTTP(err error) int { return Of(err).HTTP }

// Text returns what may be shown of err: the text of the [iot.Error] it
// carries, else no more than the sentinel's.
func Text(err error) string {
	sentinel := Sentinel(err)
	var e *iot.Error
	if sentinel != ErrInternal && errors.As(err, &e) {
		return e.Error()
	}
	return sentinel.Error()
}

// FromCode returns the sentinel of a CloudEvent error code; false where the
// code is none of the table.
func FromCode(code string) (error, bool) {
	for _, r := range Table {
		if r.Code == code {
			return r.Err, true
		}
	}
	return nil, false
}

// FromStatus returns the sentinel nearest to a status of events, section 3,
// for answers that carry no code.
func FromStatus(status int) error {
	for _, r := range Table {
		if r.Op == Any && r.Status == status {
			return r.Err
		}
	}
	switch {
	case status == 408:
		return iot.ErrTimeout
	case status == 502:
		return iot.ErrUnavailable
	case status >= 400 && status < 500:
		return iot.ErrInvalid
	}
	return ErrInternal
}
