package lambda

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	awsevents "github.com/aws/aws-lambda-go/events"
	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/host"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// scheduled is the detail-type of schedules.
const scheduled = "Scheduled Event"

// queue takes the messages of a batch one after the other and names those that
// failed: SQS keeps them, and after as many times as its redrive policy says, it
// brings them to the dead letters.
func (h *Handler) queue(ctx context.Context, payload []byte) ([]byte, error) {
	var in awsevents.SQSEvent
	if err := json.Unmarshal(payload, &in); err != nil {
		return nil, errors.New("the batch does not decode")
	}
	out := awsevents.SQSEventResponse{BatchItemFailures: []awsevents.SQSBatchItemFailure{}}
	for i := range in.Records {
		m := &in.Records[i]
		if err := h.deliver(ctx, []byte(m.Body)); err != nil {
			h.cfg.Log.WarnContext(ctx, "message not taken", "message", m.MessageId, "err", err)
			out.BatchItemFailures = append(out.BatchItemFailures, awsevents.SQSBatchItemFailure{ItemIdentifier: m.MessageId})
		}
	}
	return json.Marshal(out)
}

// bus takes the CloudEvent in an event's detail. An error has Lambda try again and
// then bring the event to its dead letters.
func (h *Handler) bus(ctx context.Context, payload []byte) error {
	var in awsevents.EventBridgeEvent
	if err := json.Unmarshal(payload, &in); err != nil {
		return errors.New("the event does not decode")
	}
	if err := h.deliver(ctx, in.Detail); err != nil {
		h.cfg.Log.WarnContext(ctx, "event not taken", "event", in.ID, "err", err)
		return err
	}
	return nil
}

// deliver has one CloudEvent done that nobody waits for.
func (h *Handler) deliver(ctx context.Context, body []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			h.cfg.Log.ErrorContext(ctx, "function host panicked", "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			err = status.ErrInternal
		}
	}()
	e, err := decode(body)
	if err != nil {
		return err
	}
	kind, call := events.Lookup(e.Type())
	switch {
	case !call && h.cfg.Facts == nil:
		return iot.Errorf(status.ErrUnknownType, "nobody here takes the type %.80q", e.Type())
	case !call:
		fact, err := events.DecodeFact(&e)
		if err != nil {
			return err
		}
		return h.cfg.Facts.Post(ctx, []events.Fact{fact})
	case kind.Secret:
		return iot.Errorf(iot.ErrForbidden, "%s carries secrets and comes by no queue or bus", e.Type())
	}
	reply := h.dispatcher.Serve(ctx, &e, func(typ string) error { return host.Permit(typ, h.cfg.Queued...) })
	return failure(&reply)
}

// failure is the error that a reply stands for.
func failure(reply *event.Event) error {
	if reply.Type() != events.TypeError {
		return nil
	}
	var d events.ErrorData
	if err := json.Unmarshal(reply.Data(), &d); err != nil {
		return status.ErrInternal
	}
	return d.Err()
}

// schedule rotates the keys that sign assertions, the one call that a schedule
// makes and that nobody else can, and has the store looked after. A function that
// signs nothing has no keys to rotate.
func (h *Handler) schedule(ctx context.Context, payload []byte) error {
	var in awsevents.EventBridgeEvent
	if err := json.Unmarshal(payload, &in); err != nil {
		return errors.New("the event does not decode")
	}
	rotates := h.dispatcher.Serves(events.TypeAssertionRotate)
	if !rotates && h.cfg.Maintain == nil {
		return iot.Errorf(status.ErrUnknownType, "nobody here does anything by a schedule")
	}
	if rotates {
		if err := h.rotate(ctx, in.Time); err != nil {
			h.cfg.Log.ErrorContext(ctx, "keys not rotated", "err", err)
			return err
		}
	}
	if h.cfg.Maintain == nil {
		return nil
	}
	err := h.cfg.Maintain(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		h.cfg.Log.WarnContext(ctx, "the store is not looked after to the end; the next schedule goes on")
		return nil
	case err != nil:
		h.cfg.Log.ErrorContext(ctx, "the store is not looked after", "err", err)
	}
	return err
}

// rotate replaces the signing key at a time; the zero one is now.
func (h *Handler) rotate(ctx context.Context, at time.Time) error {
	if at.IsZero() {
		at = time.Now()
	}
	budget := events.DefaultBudget
	if deadline, ok := ctx.Deadline(); ok {
		budget = time.Until(deadline)
	}
	call, err := events.EncodeRequest(
		events.AssertionRotate{OverlapSeconds: int(h.cfg.Overlap / time.Second), At: at},
		events.Envelope{Source: "//aws/schedule", ID: events.NewID(), Time: at, Timeout: budget})
	if err != nil {
		return events.ErrorOf(err)
	}
	reply := h.dispatcher.Serve(ctx, &call, nil)
	return failure(&reply)
}
