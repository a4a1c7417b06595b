package events

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// Dispatcher answers CloudEvents by the functions it was given: what every
// host that receives encoded calls shares. Safe for concurrent use.
type Dispatcher struct {
	name      string
	functions map[string]Function
	log       *slog.Logger
}

// NewDispatcher serves functions, at most one per type. name is the
// installation's name, the first part of every source.
func NewDispatcher(name string, log *slog.Logger, functions ...Function) (*Dispatcher, error) {
	d := &Dispatcher{name: name, functions: map[string]Function{}, log: log}
	for _, f := range functions {
		if _, known := Lookup(f.Type()); !known {
			return nil, fmt.Errorf("events: no call has the type %q", f.Type())
		}
		if _, twice := d.functions[f.Type()]; twice {
			return nil, fmt.Errorf("events: two functions for %s", f.Type())
		}
		d.functions[f.Type()] = f
	}
	return d, nil
}

// Serves reports whether a function answers calls of this type.
func (d *Dispatcher) Serves(typ string) bool {
	_, ok := d.functions[typ]
	return ok
}

// Serve answers one call: the reply, or a CloudEvent of type [TypeError]. It
// never panics. allow decides, before the data is looked at, whether the caller
// may ask this type; nil allows all.
func (d *Dispatcher) Serve(ctx context.Context, call *event.Event, allow func(typ string) error) event.Event {
	rep, err := d.run(ctx, call, allow)
	if err == nil {
		out, encodeErr := EncodeReply(call, d.source(call.Type()), rep, time.Now())
		if encodeErr == nil {
			return out
		}
		d.log.ErrorContext(ctx, "reply does not encode", "type", call.Type(), "err", encodeErr)
		err = status.ErrInternal
	}
	return d.Refuse(call, err)
}

// Refuse makes the answer to a call that never reached a function.
func (d *Dispatcher) Refuse(call *event.Event, err error) event.Event {
	return EncodeError(call, d.source(call.Type()), err, time.Now())
}

func (d *Dispatcher) run(ctx context.Context, call *event.Event, allow func(string) error) (Reply, error) {
	if call.SpecVersion() != SpecVersion {
		return nil, iot.Errorf(iot.ErrInvalid, "specversion is %.20q, want %s", call.SpecVersion(), SpecVersion)
	}
	if err := call.Validate(); err != nil {
		return nil, iot.Errorf(iot.ErrInvalid, "not a valid CloudEvent: %s", strings.TrimSpace(err.Error()))
	}
	f, ok := d.functions[call.Type()]
	if !ok {
		return nil, iot.Errorf(status.ErrUnknownType, "no function here answers the type %.80q", call.Type())
	}
	if allow != nil {
		if err := allow(call.Type()); err != nil {
			return nil, err
		}
	}
	budget, err := budgetOf(call)
	if err != nil {
		return nil, err
	}
	req, err := DecodeRequest(call)
	if err != nil {
		return nil, err
	}
	// The answer has to reach a caller who still waits: one who hears nothing
	// takes the host for dead, which an overloaded one is not.
	ctx, cancel := context.WithTimeout(ctx, budget-min(budget/10, answerTime))
	defer cancel()
	return f.Call(ctx, d.log, req)
}

// answerTime is how long before the caller gives up a function does.
const answerTime = 100 * time.Millisecond

// budgetOf returns what the caller allows, at most ten times the default.
func budgetOf(call *event.Event) (time.Duration, error) {
	v, ok := call.Extensions()[AttrTimeoutMS]
	if !ok {
		return DefaultBudget, nil
	}
	ms, err := types.ToInteger(v)
	if err != nil || ms <= 0 {
		return 0, iot.Errorf(iot.ErrInvalid, "attribute timeoutms is no integer above 0")
	}
	return min(time.Duration(ms)*time.Millisecond, 10*DefaultBudget), nil
}

// source names the function that answers calls of a type: its area.
func (d *Dispatcher) source(typ string) string {
	area := "host"
	if rest, ok := strings.CutPrefix(typ, "io.sluice."); ok {
		if _, known := Lookup(typ); known {
			area, _, _ = strings.Cut(rest, ".")
		}
	}
	return "//" + d.name + "/functions/" + area
}
