package inproc

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// Invoker calls functions of the same process. Safe for concurrent use.
type Invoker struct {
	functions map[string]events.Function
	log       *slog.Logger
}

var _ events.Invoker = (*Invoker)(nil)

// New returns an invoker of functions, at most one per type.
func New(log *slog.Logger, functions ...events.Function) (*Invoker, error) {
	inv := &Invoker{functions: map[string]events.Function{}, log: log}
	for _, f := range functions {
		if _, twice := inv.functions[f.Type()]; twice {
			return nil, fmt.Errorf("inproc: two functions for %s", f.Type())
		}
		inv.functions[f.Type()] = f
	}
	return inv, nil
}

// Invoke implements [events.Invoker]. A context without deadline gets
// [events.DefaultBudget]. Request and reply are handed over, not copied:
// neither side changes what it gave away.
func (i *Invoker) Invoke(ctx context.Context, req events.Request) (events.Reply, error) {
	f, ok := i.functions[req.EventType()]
	if !ok {
		return nil, iot.Errorf(status.ErrUnknownType, "no function here answers the type %.80q", req.EventType())
	}
	return f.Call(ctx, i.log, req)
}

// Encoded is an invoker that sends each call and reply through its JSON form
// as a CloudEvent: tests use it to show that nothing is lost at a process
// boundary.
type Encoded struct{ dispatcher *events.Dispatcher }

var _ events.Invoker = (*Encoded)(nil)

// NewEncoded returns an invoker of functions that encodes.
func NewEncoded(log *slog.Logger, functions ...events.Function) (*Encoded, error) {
	d, err := events.NewDispatcher("sluice.local", log, functions...)
	return &Encoded{d}, err
}

// Invoke implements [events.Invoker].
func (i *Encoded) Invoke(ctx context.Context, req events.Request) (events.Reply, error) {
	if err := ctx.Err(); err != nil {
		return nil, events.ErrorOf(err)
	}
	left := events.DefaultBudget
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline)
	}
	call, err := events.EncodeRequest(req, events.Envelope{
		Source: "//sluice.local/adapters/test", ID: events.NewID(), Time: time.Now(), Timeout: left,
	})
	if err != nil {
		return nil, events.ErrorOf(err)
	}
	arrived, err := roundTrip(call)
	if err != nil {
		return nil, err
	}
	answer, err := roundTrip(i.dispatcher.Serve(ctx, &arrived, nil))
	if err != nil {
		return nil, err
	}
	return events.DecodeReply(req, &answer)
}

func roundTrip(e event.Event) (event.Event, error) {
	b, err := e.MarshalJSON()
	if err != nil {
		return event.Event{}, err
	}
	var out event.Event
	err = out.UnmarshalJSON(b)
	return out, err
}
