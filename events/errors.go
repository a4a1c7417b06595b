package events

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// TypeError is the answer to every call that failed (contract: events, section 3).
const TypeError = "io.sluice.error"

// ErrorData is the data of a CloudEvent of type [TypeError].
type ErrorData struct {
	Status            int    `json:"status"`
	Code              string `json:"code"`
	Error             string `json:"error"` // for people; no internals
	RetryAfterSeconds int    `json:"retry-after-seconds,omitempty"`
}

// ErrorDataOf returns the data that err is told by.
func ErrorDataOf(err error) ErrorData {
	e := ErrorOf(err)
	row := status.Of(e)
	return ErrorData{
		Status: row.Status, Code: row.Code, Error: e.Error(),
		RetryAfterSeconds: int(e.RetryAfter / time.Second),
	}
}

// Err returns the error that d tells of. Code decides, and Status where the
// code is unknown or stands for several.
func (d ErrorData) Err() *iot.Error {
	sentinel, ok := status.FromCode(d.Code)
	if byStatus := status.FromStatus(d.Status); !ok || status.Of(byStatus).Code == d.Code {
		sentinel = byStatus
	}
	e := &iot.Error{Sentinel: sentinel, Text: d.Error}
	if d.RetryAfterSeconds > 0 {
		e.RetryAfter = time.Duration(d.RetryAfterSeconds) * time.Second
	}
	return e
}

// EncodeError makes the answer to a call that failed with err. request may be
// the zero event where the call was none.
func EncodeError(request *event.Event, source string, err error, now time.Time) event.Event {
	d := ErrorDataOf(err)
	e := answer(request, TypeError, source, now)
	if request.ID() == "" {
		e.SetID(NewID())
		e.SetExtension(AttrCausationID, nil)
	}
	e.SetExtension(AttrStatusCode, int32(d.Status))
	_ = setJSON(&e, d) // numbers and strings always encode
	return e
}

func decodeError(e *event.Event) *iot.Error {
	var d ErrorData
	if json.Unmarshal(e.Data(), &d) != nil || d.Status == 0 {
		if code, err := types.ToInteger(e.Extensions()[AttrStatusCode]); err == nil {
			d.Status = int(code)
		}
	}
	return d.Err()
}

// StatusCode returns the attribute statuscode of a reply or error, or 500
// where it has none.
func StatusCode(e *event.Event) int {
	code, err := types.ToInteger(e.Extensions()[AttrStatusCode])
	if err != nil || code < 200 || code > 599 {
		return 500
	}
	return int(code)
}

func asType[T error](err error, target *T) bool { return errors.As(err, target) }
