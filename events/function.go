package events

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"runtime/debug"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// DefaultBudget is the time a call gets whose caller names none (contract:
// events, section 3): a function may have to start first.
const DefaultBudget = 10 * time.Second

// Function answers one type of call. Made by [NewFunction].
type Function struct {
	typ    string
	handle func(context.Context, Request) (Reply, error)
}

// NewFunction makes a function of a handler of one request type. The handler
// may be called from many goroutines, stops when its context ends, and returns
// a non-nil reply or an error that wraps a sentinel of internal/iot; every
// other error answers as internal and is logged.
func NewFunction[Q RequestOf[R], R Reply](handle func(context.Context, Q) (R, error)) Function {
	var zero Q
	return Function{
		typ: zero.EventType(),
		handle: func(ctx context.Context, req Request) (Reply, error) {
			q, ok := req.(Q)
			if !ok {
				return nil, fmt.Errorf("request has type %T, want %T", req, zero)
			}
			r, err := handle(ctx, q)
			if err != nil {
				return nil, err
			}
			if v := reflect.ValueOf(r); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
				return nil, fmt.Errorf("%s: neither reply nor error", zero.EventType())
			}
			return r, nil
		},
	}
}

// Type is the CloudEvent type that the function answers.
func (f Function) Type() string { return f.typ }

// Call runs the function in the caller's goroutine. A context without deadline
// gets [DefaultBudget]. Whatever fails, a panic included, comes back as
// [ErrorOf] shows it; what must not be shown goes to log.
func (f Function) Call(ctx context.Context, log *slog.Logger, req Request) (rep Reply, err error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultBudget)
		defer cancel()
	}
	if err := ctx.Err(); err != nil {
		return nil, ErrorOf(err)
	}
	defer func() {
		if p := recover(); p != nil {
			// The value may hold what the request held, so only its kind is logged.
			log.ErrorContext(ctx, "function panicked", "type", f.typ, "panic", panicText(p), "stack", string(debug.Stack()))
			rep, err = nil, ErrorOf(status.ErrInternal)
		}
	}()
	rep, err = f.handle(ctx, req)
	if err == nil {
		return rep, nil
	}
	if status.Sentinel(err) == status.ErrInternal {
		log.ErrorContext(ctx, "function failed", "type", f.typ, "tenant", string(req.Tenant()), "err", err)
	}
	return nil, ErrorOf(err)
}

func panicText(p any) string {
	if err, ok := p.(interface {
		error
		RuntimeError()
	}); ok {
		return err.Error()
	}
	return fmt.Sprintf("%T", p)
}

// ErrorOf reduces err to what crosses a process boundary: its sentinel, the
// text that may be shown, and the retry delay in whole seconds where the
// status has one (429 and 503). iot.ErrNoCredit never crosses one and becomes
// iot.ErrUnavailable.
func ErrorOf(err error) *iot.Error {
	row := status.Of(err)
	e := &iot.Error{Sentinel: row.Err, Text: status.Text(err)}
	if row.Err == iot.ErrNoCredit {
		e.Sentinel = iot.ErrUnavailable
	}
	if row.Status == 429 || row.Status == 503 {
		e.RetryAfter = wholeSeconds(iot.RetryAfter(err))
	}
	return e
}

// wholeSeconds rounds up: a retry that comes too early is refused again.
func wholeSeconds(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return (d + time.Second - 1) / time.Second * time.Second
}
