package invoke

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

const (
	tries        = 3
	firstBackoff = 50 * time.Millisecond
	// slowTry is how long a try must have lasted for its deadline to tell of the
	// host and not of a caller in a hurry.
	slowTry = time.Second
)

// Limits where [Options] names none.
const (
	DefaultInFlight = 64
	DefaultWaiting  = 10_000
)

// Outcome is what one try tells about the way to a function.
type Outcome uint8

// The outcomes of a try.
const (
	// Answered: the host or the function answered, be it with an error.
	Answered Outcome = iota
	// Lost: nobody answered, or something in between did in the host's place.
	Lost
	// Aborted: the caller gave up; it is not known what would have come.
	Aborted
)

// Try asks once. env is that of the whole call, with the time that is left.
type Try func(ctx context.Context, env events.Envelope) (events.Reply, Outcome, error)

// Options says who asks. Source is required.
type Options struct {
	Source string       // CloudEvents source: //I/<component>/<instance>
	Log    *slog.Logger // default: discard
	// InFlight bounds tries under way, 0 = [DefaultInFlight]; Waiting bounds those
	// that wait for their turn inside their deadline, 0 = [DefaultWaiting].
	// Further calls fail at once.
	InFlight, Waiting int
	Breaker           BreakerOptions
}

// Guard stands before one function host. Safe for concurrent use.
type Guard struct {
	source  string
	log     *slog.Logger
	turns   chan struct{}
	waiting chan struct{}
	breaker *Breaker
}

// NewGuard returns a guard whose circuit is closed.
func NewGuard(o Options) *Guard {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.InFlight <= 0 {
		o.InFlight = DefaultInFlight
	}
	if o.Waiting <= 0 {
		o.Waiting = DefaultWaiting
	}
	return &Guard{
		source: o.Source, log: o.Log, breaker: NewBreaker(o.Breaker, o.Log),
		turns: make(chan struct{}, o.InFlight), waiting: make(chan struct{}, o.InFlight+o.Waiting),
	}
}

// Do asks up to three times inside the deadline of ctx ([events.DefaultBudget]
// where it has none), all with one id, with full-jitter back-off from 50 ms, or
// after the time that the answer names. While the circuit is open it returns
// iot.ErrUnavailable with a time to come again, without asking.
func (g *Guard) Do(ctx context.Context, req events.Request, try Try) (events.Reply, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, events.DefaultBudget)
		defer cancel()
	}
	env := events.Envelope{Source: g.source, ID: events.NewID(), Time: time.Now()}
	for n := 1; ; n++ {
		rep, asked, err := g.once(ctx, env, try)
		if err == nil {
			return rep, nil
		}
		if !asked || n == tries || ctx.Err() != nil || !again(err, n) {
			return nil, err
		}
		if !pause(ctx, backoff(n, iot.RetryAfter(err))) {
			return nil, err // the deadline would pass first: what is known now is the answer
		}
		g.log.DebugContext(ctx, "function call repeated", "type", req.EventType(), "try", n+1, "err", err)
	}
}

// once makes one try when its turn comes. asked is false where none was made.
func (g *Guard) once(ctx context.Context, env events.Envelope, try Try) (rep events.Reply, asked bool, err error) {
	select {
	case g.waiting <- struct{}{}:
		defer func() { <-g.waiting }()
	default:
		return nil, false, &iot.Error{Sentinel: iot.ErrUnavailable, Text: "too many calls are waiting", RetryAfter: time.Second}
	}
	select {
	case g.turns <- struct{}{}:
		defer func() { <-g.turns }()
	case <-ctx.Done():
		return nil, false, events.ErrorOf(ctx.Err())
	}
	pass, err := g.breaker.Enter()
	if err != nil {
		return nil, false, err
	}
	outcome := Aborted // of a try that panics
	defer func() { g.breaker.Leave(pass, outcome) }()
	began := time.Now()
	deadline, _ := ctx.Deadline()
	env.Timeout = deadline.Sub(began)
	rep, outcome, err = try(ctx, env)
	if outcome == Aborted && errors.Is(ctx.Err(), context.DeadlineExceeded) && time.Since(began) >= slowTry {
		outcome = Lost
	}
	return rep, true, err
}

// Gone is the error and outcome of a try that ended without an answer because
// ctx did; outcome is Lost, and err nil, where ctx goes on.
func Gone(ctx context.Context) (Outcome, error) {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return Aborted, iot.Errorf(iot.ErrTimeout, "timed out")
	case ctx.Err() != nil:
		return Aborted, events.ErrorOf(ctx.Err())
	}
	return Lost, nil
}

// again reports whether a call that failed with err may be repeated: a quota
// only after the time it names, an unknown error once.
func again(err error, try int) bool {
	row := status.Of(err)
	switch {
	case row.Once:
		return try == 1
	case row.Err == iot.ErrQuota:
		return iot.RetryAfter(err) > 0
	}
	return row.Retry
}

// backoff returns how long to wait after a failed try.
func backoff(try int, retryAfter time.Duration) time.Duration {
	return max(retryAfter, rand.N(firstBackoff<<(try-1)))
}

// pause waits for d and reports false at once where ctx ends earlier.
func pause(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
