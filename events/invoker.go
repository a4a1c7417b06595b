package events

import (
	"context"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Request is a call that a function answers: one Go type per call of the
// catalogue, each with its JSON shape.
type Request interface {
	// EventType is the CloudEvent type, such as io.sluice.admission.admit.
	EventType() string
	// Tenant is the tenant asked about, or "" where the call names none.
	Tenant() iot.TenantID
}

// Reply is what a function answers on success: one Go type per call.
type Reply interface {
	// MaxAge is how long the caller may cache the reply; 0 = not at all.
	MaxAge() time.Duration
}

// Invoker carries a request to the function that serves it and brings the
// reply back. An answer of type io.sluice.error comes back as an error that
// wraps one sentinel of internal/iot (see [iot.Error]), whichever invoker
// carried it. The deadline is that of ctx. Safe for concurrent use.
type Invoker interface {
	Invoke(ctx context.Context, req Request) (Reply, error)
}

// RequestOf is a Request whose reply has type R.
type RequestOf[R Reply] interface {
	Request
	ReplyType() R // only its type is used
}

// Call invokes req and returns its typed reply.
func Call[R Reply](ctx context.Context, inv Invoker, req RequestOf[R]) (R, error) {
	var zero R
	rep, err := inv.Invoke(ctx, req)
	if err != nil {
		return zero, err
	}
	r, ok := rep.(R)
	if !ok {
		return zero, iot.Errorf(iot.ErrUnavailable, "%s: reply has type %T, want %T", req.EventType(), rep, zero)
	}
	return r, nil
}
