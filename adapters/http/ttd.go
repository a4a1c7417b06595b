package http

import (
	"context"
	nethttp "net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

// windowSlack is for how long routers may count on a request beyond the time that
// it waits: its upload takes a part of it.
const windowSlack = time.Second

// errNotWaiting releases a command.
var errNotWaiting = iot.Errorf(iot.ErrUnavailable, "the device does not wait for a command any more")

// ttd is for how many seconds the request waits for a command, 0 = it does not
// (contract: adapters 5.4). A connection would not outlive a wait that is as long as
// its own idle timeout, so that 80 % of it are the most; without one nothing waits.
func (a *Adapter) ttd(r *nethttp.Request, who adapters.Admission) int {
	text := parameter(r, headerTTD, "hono-ttd")
	if text == "" || a.leaving.Load() {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return 0
	}
	idle := int64(a.o.IdleTimeout/time.Second) * 80 / 100
	return int(max(0, min(n, idle, int64(who.MaxTTD(Type)/time.Second))))
}

// window is the time in which a request waits for a command. It takes one.
type window struct {
	taken atomic.Bool // nothing more is taken
	got   chan delivery
}

func newWindow() *window { return &window{got: make(chan delivery, 1)} }

// deliver implements [adapters.Subscribe].Deliver. What no answer can be made of
// leaves the window open for the next one.
func (w *window) deliver(c *adapters.Command, done func(error)) {
	d, err := newDelivery(c, done)
	switch {
	case err != nil:
		done(err)
	case !w.taken.CompareAndSwap(false, true):
		done(errNotWaiting)
	default:
		w.got <- d
	}
}

// close ends the window and returns the command that was still taken, if any. It is
// not for who had one from got.
func (w *window) close() (d delivery, ok bool) {
	if w.taken.CompareAndSwap(false, true) {
		return delivery{}, false
	}
	return <-w.got, true
}

// wait returns the first command. There is none, and none will come, when the time is
// over, the client is gone or the adapter stops.
func (a *Adapter) wait(ctx context.Context, w *window, over <-chan time.Time) (d delivery, ok bool) {
	select {
	case d = <-w.got:
		return d, true
	case <-over:
	case <-ctx.Done():
	case <-a.stopping:
	}
	return w.close()
}

// publishAndWait opens s, so that a command that comes at once finds the device, sends
// up and waits for a command for as long as up.TTD says (contract: adapters 7.7). With
// ok, d is the caller's to answer. The subscription has ended when it returns.
func (a *Adapter) publishAndWait(ctx context.Context, s adapters.Subscribe, up *adapters.Upload) (d delivery, ok bool, err error) {
	w, wait := newWindow(), time.Duration(*up.TTD)*time.Second
	s.Until, s.Deliver = time.Now().Add(wait+windowSlack), w.deliver
	sub, err := a.o.Pipeline.Subscribe(ctx, s)
	if err != nil {
		if d, ok = w.close(); ok { // one came before the client was gone
			d.done(errNotWaiting)
		}
		return delivery{}, false, err
	}
	defer sub.Close(true)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	if err = a.o.Pipeline.Publish(ctx, s.Who, up); err != nil {
		d, ok = w.close()
	} else {
		d, ok = a.wait(ctx, w, timer.C)
	}
	if ok && (err != nil || ctx.Err() != nil) {
		d.done(errNotWaiting)
		return delivery{}, false, err
	}
	return d, ok, err
}
