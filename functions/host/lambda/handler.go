package lambda

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/host"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

const (
	// MaxPayloadBytes is the longest payload and result of a synchronous invocation.
	MaxPayloadBytes = 6 << 20
	// answerTime is kept back of the invocation's time, so that a function that
	// runs out of it is answered for, and not killed.
	answerTime = 100 * time.Millisecond
	// DefaultOverlap is how long a key verifies that a schedule's rotation retired:
	// as long as a token lives and a key set is kept.
	DefaultOverlap = 48 * time.Hour
)

// Config says what is hosted. Endpoint is required.
type Config struct {
	Endpoint *host.Endpoint
	Log      *slog.Logger // default: discard

	Accept Accept // nil = DefaultAccept
	// Direct are the kinds of components that invoke directly; nil = adapter and
	// router. IAM says who they are, so they may ask what any of these kinds may.
	Direct []host.Kind
	// Queued are the kinds that calls in queues and on buses come from; nil = none.
	// Calls that carry secrets are refused there whoever they are from.
	Queued []host.Kind
	// Facts takes the facts that come by queue or bus, such as those that a router
	// had not taken before; nil = refused. It must not bring them to the same queue again.
	Facts events.Poster
	// Maintain does what a schedule has done besides rotating keys; nil = nothing.
	Maintain func(context.Context) error
	// Overlap of the keys that a schedule rotates, 0 = DefaultOverlap.
	Overlap time.Duration
}

// Handler answers invocations; it implements the Handler of aws-lambda-go. Safe
// for concurrent use.
type Handler struct {
	cfg        Config
	dispatcher *events.Dispatcher
}

// New checks cfg.
func New(cfg Config) (*Handler, error) {
	if cfg.Endpoint == nil {
		return nil, errors.New("lambda host: an endpoint is required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Accept == nil {
		cfg.Accept = DefaultAccept
	}
	if cfg.Direct == nil {
		cfg.Direct = []host.Kind{host.Adapter, host.Router}
	}
	if cfg.Overlap <= 0 {
		cfg.Overlap = DefaultOverlap
	}
	return &Handler{cfg: cfg, dispatcher: cfg.Endpoint.Dispatcher()}, nil
}

// shape is the members by which payloads differ.
type shape struct {
	SpecVersion    *string `json:"specversion"`
	Version        string  `json:"version"`
	HTTPMethod     string  `json:"httpMethod"`
	DetailType     *string `json:"detail-type"`
	Source         string  `json:"source"`
	RequestContext *struct {
		HTTP *struct{} `json:"http"`
	} `json:"requestContext"`
	Records []struct {
		EventSource string `json:"eventSource"`
	} `json:"Records"`
}

// source tells what delivered a payload; "" for none that is known.
func (s *shape) source() Source {
	switch {
	case s.SpecVersion != nil:
		return Direct
	case s.RequestContext != nil && (s.RequestContext.HTTP != nil || s.HTTPMethod != ""):
		return HTTP
	case len(s.Records) > 0 && s.Records[0].EventSource == "aws:sqs":
		return Queue
	case s.DetailType != nil && *s.DetailType == scheduled && (s.Source == "aws.events" || s.Source == "aws.scheduler"):
		return Schedule
	case s.DetailType != nil:
		return Bus
	}
	return ""
}

// Invoke answers one invocation. Its errors are for Lambda, which repeats or
// tells its caller that the function failed; they hold nothing of the payload. It
// does not panic.
func (h *Handler) Invoke(ctx context.Context, payload []byte) (result []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			h.cfg.Log.ErrorContext(ctx, "function host panicked", "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			result, err = nil, status.ErrInternal
		}
	}()
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-answerTime))
		defer cancel()
	}
	var s shape
	if err := json.Unmarshal(payload, &s); err != nil {
		return h.encode(h.cfg.Endpoint.Refuse(iot.Errorf(status.ErrNotCloudEvent, "the payload is not a JSON object of a known form")))
	}
	source := s.source()
	if source == "" {
		return h.encode(h.cfg.Endpoint.Refuse(iot.Errorf(status.ErrNotCloudEvent, "want a structured CloudEvent, or an event of a function URL, API Gateway, SQS or EventBridge")))
	}
	if err := h.cfg.Accept.check(ctx, source); err != nil {
		h.cfg.Log.WarnContext(ctx, "invocation refused", "source", string(source), "alias", aliasOf(ctx), "err", err)
		return nil, err
	}
	switch source {
	case Direct:
		return h.direct(ctx, payload)
	case HTTP:
		return h.http(ctx, payload, s.HTTPMethod != "")
	case Queue:
		return h.queue(ctx, payload)
	case Schedule:
		return nil, h.schedule(ctx, payload)
	default:
		return nil, h.bus(ctx, payload)
	}
}

// direct answers a call by its reply or by io.sluice.error. What is refused for
// who asks is no CloudEvent: its caller must not take it for one about a device.
func (h *Handler) direct(ctx context.Context, payload []byte) ([]byte, error) {
	call, err := decode(payload)
	if err != nil {
		return h.encode(h.cfg.Endpoint.Refuse(err))
	}
	if h.dispatcher.Serves(call.Type()) {
		if err := host.Permit(call.Type(), h.cfg.Direct...); err != nil {
			h.cfg.Log.WarnContext(ctx, "call refused", "kinds", h.cfg.Direct, "type", call.Type())
			return nil, err
		}
	}
	return h.encode(h.dispatcher.Serve(ctx, &call, nil))
}

// decode reads a structured CloudEvent; errors are those of a call that is none.
func decode(payload []byte) (event.Event, error) {
	var object map[string]json.RawMessage
	if json.Unmarshal(payload, &object) != nil {
		return event.Event{}, iot.Errorf(status.ErrNotCloudEvent, "want a structured CloudEvent")
	}
	return events.ParseJSON(payload)
}

// encode writes an answer, within Lambda's limit.
func (h *Handler) encode(e event.Event) ([]byte, error) {
	b, err := e.MarshalJSON()
	if err != nil {
		return nil, status.ErrInternal
	}
	if len(b) > MaxPayloadBytes {
		tooLong := h.cfg.Endpoint.Refuse(iot.Errorf(iot.ErrTooLarge, "the answer has %d bytes, Lambda carries at most %d", len(b), MaxPayloadBytes))
		return tooLong.MarshalJSON()
	}
	return b, nil
}
