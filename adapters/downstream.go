package adapters

import (
	"context"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Downstream is the way to the applications: a set of routers.
type Downstream interface {
	// Send hands m to a router that has credit for m's address and reports
	// what became of it. With AtMostOnce it returns nil once a router took the
	// transfer; with AtLeastOnce when the application settled it. Errors wrap
	//
	//	iot.ErrNoCredit     nobody consumes the address (after the credit wait)
	//	iot.ErrInvalid      the application rejected it; the text is its description
	//	iot.ErrForbidden    the router refused the assertion: admit the device anew
	//	iot.ErrTooLarge     larger than the router takes
	//	iot.ErrUnavailable  released, modified, link or connection lost
	//	iot.ErrTimeout      no outcome in time
	//
	// Send bounds its own waiting (credit-wait, send-timeout) and also ends with ctx.
	// m's slices are not kept after it returns.
	Send(ctx context.Context, m *iot.Message) error
	// Start is Send for who does not wait: it returns once m is on its way or
	// waits in line, and done is told what became of it, with Send's errors in
	// Send's time. done is called exactly once, maybe before Start returns, on
	// any goroutine, and must not block. Messages that are started one after the other to
	// one address leave in that order. m is Start's until done.
	Start(m *iot.Message, done func(error))
	// Ready reports whether at least one router is connected.
	Ready() bool
}
