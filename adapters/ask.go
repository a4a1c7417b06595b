package adapters

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/attempts"
	"github.com/sluice-iot/sluice/internal/iot"
)

// question is a request on its way to the admission function.
type question struct {
	Request
	address  netip.Addr // that of Remote which counts
	asked    int64      // Admissions.age
	position uint64     // in the log of notices
	renewal  bool       // of who is in already: a refusal is no failed attempt
}

func (a *Admissions) question(r *Request, renewal bool) *question {
	return &question{
		Request: *r, address: attempts.Address(r.Remote), renewal: renewal,
		asked: a.age(time.Now()), position: a.follow.recent.position(),
	}
}

// inTurn runs f in a goroutine of its own, so that it outlives the request that
// happened to come first; false when there are too many, or after Close.
func (a *Admissions) inTurn(ctx context.Context, f func(ctx context.Context)) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.calls >= a.o.MaxCalls {
		return false
	}
	a.calls++
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.o.Timeout)
	a.wg.Go(func() {
		defer cancel()
		defer context.AfterFunc(a.base, cancel)()
		f(ctx)
		a.mu.Lock()
		a.calls--
		a.mu.Unlock()
	})
	return true
}

// start asks r for all who wait for c. The answer is cached only if keep says
// so.
func (a *Admissions) start(ctx context.Context, k key, c *call, r *Request, keep bool) {
	q := a.question(r, r.renewal)
	c.position = q.position
	ok := a.inTurn(ctx, func(ctx context.Context) {
		n, err := a.ask(ctx, k, q)
		var e *entry
		if err == nil {
			e = &entry{answer: n}
		}
		if a.cache.finish(k, c, e, err, keep) && a.follow.recent.concerned(e, q.position) {
			a.drop(e) // it may tell how things were before the change
		}
	})
	if !ok {
		a.cache.finish(k, c, nil, errTooBusy, false)
	}
}

var errTooBusy = iot.Errorf(iot.ErrUnavailable, TextUnavailable)

// ask waits for its turn under the limits and invokes. The auth-id comes first:
// its few places may wait for the address's many, never the other way round.
func (a *Admissions) ask(ctx context.Context, k key, q *question) (answer, error) {
	if q.renewal {
		return a.asked(ctx, k, q)
	}
	id := authKey(&q.Request)
	if err := a.auth.Begin(ctx, id); err != nil {
		return answer{}, admissionError(err)
	}
	if err := a.address.Begin(ctx, q.address); err != nil {
		a.auth.End(id, false)
		return answer{}, admissionError(err)
	}
	n, err := a.asked(ctx, k, q)
	failed := errors.Is(err, iot.ErrUnauthenticated)
	a.address.End(q.address, failed)
	a.auth.End(id, failed)
	return n, err
}

func (a *Admissions) asked(ctx context.Context, k key, q *question) (answer, error) {
	admitted, err := a.invoke(ctx, &q.Request)
	if err != nil {
		return answer{}, admissionError(err)
	}
	return a.answer(k, q.asked, admitted, q.address), nil
}

// invoke calls the function and refuses answers that would send a message
// nowhere. A panic of an in-process function must not take the adapter along.
func (a *Admissions) invoke(ctx context.Context, r *Request) (admitted *events.Admitted, err error) {
	defer func() {
		if p := recover(); p != nil {
			a.o.Logger.Error("admission panicked", "tenant", r.Admit.TenantRef.ID, "adapter", r.Admit.Adapter, "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			admitted, err = nil, errors.New("admission panicked")
		}
	}()
	if err := r.expand(); err != nil {
		return nil, err
	}
	admitted, err = events.Call(ctx, a.o.Invoker, r.Admit)
	switch {
	case err != nil:
		return nil, err
	case admitted == nil || admitted.TenantObject.ID == "" || admitted.DeviceID == "":
		return nil, errors.New("admission answered without tenant or device")
	}
	return admitted, nil
}

// admissionError shows devices no more of a failure on our side than that there
// is one, and turns the end of our own patience into ErrUnavailable.
func admissionError(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) && !errors.Is(err, iot.ErrUnavailable) && !errors.Is(err, iot.ErrTimeout) {
		return err
	}
	shown := iot.Errorf(iot.ErrUnavailable, TextUnavailable)
	var e *iot.Error
	if errors.As(err, &e) {
		shown.RetryAfter = e.RetryAfter
	}
	return &shownError{shown: shown, cause: fmt.Errorf("admission: %w", err)}
}
