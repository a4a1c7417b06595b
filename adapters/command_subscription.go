package adapters

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// announceTimeout is how long a subscription waits for routers to know of it.
const announceTimeout = 500 * time.Millisecond

// Subscribe is a device's wish for commands.
type Subscribe struct {
	// Who is of the device, or of one on whose behalf its gateway subscribes. A gateway
	// that may no longer act for the device is found out with the next command, which is
	// rejected; the subscription is closed then.
	Who     Admission
	All     bool      // also for the devices that Who's device may act for
	Until   time.Time // when it ends by itself; zero = when it is closed
	Notify  bool      // applications are told by notifications when the device can be reached and when no longer
	Address string    // orig_address of these notifications: filter or URI as the device wrote it
	// Deliver hands a command to the device. It must not block, and may be called
	// before [Pipeline.Subscribe] returns, and once more per command that was under
	// way while the subscription was closed. c and done are the protocol's: it calls
	// done once, on any goroutine, with the outcome as in [CommandHandler].
	Deliver func(c *Command, done func(error))
}

// CommandSubscription takes the commands of one device, or of all devices of a
// gateway. Of several for one device in this process the latest counts; once it is
// closed, the one before it does again.
type CommandSubscription struct {
	p       *Pipeline
	req     *Request // as in Admission
	session *Session
	e       atomic.Pointer[entry] // nil = the session's own, which may be renewed
	address string
	deliver func(*Command, func(error))

	at, until int64 // Unix time in ms; until 0 = it does not end by itself
	before    *CommandSubscription
	inFlight  atomic.Int32
	check     *commandCheck // under way; nil = none

	behalf     bool // by a gateway
	all        bool
	notify     bool
	told       bool // that the device can be reached
	closed     bool // this and the next, as before and check: the lock of the shard
	superseded bool // a router prefers another process's
}

var (
	errNoCommands           = iot.Errorf(iot.ErrUnavailable, "commands are not offered")
	errTooManySubscriptions = iot.Errorf(iot.ErrUnavailable, "too many subscriptions for commands")
	errTooManyOfDevice      = iot.Errorf(iot.ErrUnavailable, "the device has too many subscriptions for commands")
)

// Subscribe opens a subscription. When it returns, commands are taken, the routers
// that are connected know of it, or had 500 ms for it, and with Notify the
// applications have been told, or it goes on behind; with Notify, who subscribes again
// and again waits before. The error is ctx's, iot.ErrQuota where too many wait for the same
// device, or iot.ErrUnavailable at [MaxSubscriptions] or [MaxPerDevice] and where the
// pipeline has no Commands; then there is no subscription. Close it.
func (p *Pipeline) Subscribe(ctx context.Context, s Subscribe) (*CommandSubscription, error) {
	c := p.o.Commands
	if c == nil {
		return nil, errNoCommands
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.Notify && p.o.Presence != nil {
		if err := c.pace(ctx, s.Who); err != nil {
			return nil, err
		}
	}
	if c.open.Add(1) > MaxSubscriptions {
		c.open.Add(-1)
		return nil, errTooManySubscriptions
	}
	sub := &CommandSubscription{p: p, req: s.Who.req, session: s.Who.s, address: s.Address, deliver: s.Deliver, all: s.All, notify: s.Notify}
	if !s.Who.s.owns(s.Who.e) {
		sub.e.Store(s.Who.e)
		sub.behalf = s.Who.Gateway() != ""
	}
	if !s.Until.IsZero() {
		sub.until = max(s.Until.UnixMilli(), 1)
	}
	p.usedGateway(s.Who)
	known, ok := c.add(sub)
	if !ok {
		c.open.Add(-1)
		return nil, errTooManyOfDevice
	}
	if err := await(ctx, known, announceTimeout); err != nil {
		sub.Close(true)
		return nil, err
	}
	if err := sub.notifySubscribed(ctx); err != nil {
		sub.Close(false)
		return nil, err
	}
	return sub, nil
}

// pace waits for who's turn to subscribe.
func (s *Commands) pace(ctx context.Context, who Admission) error {
	wait := s.paces.Add(subscriber{commandKey{who.Tenant(), who.Device()}, who.Gateway()}, time.Now())
	switch {
	case wait == 0:
		return nil
	case wait >= subscribeOver*subscribeEvery:
		return &iot.Error{Sentinel: iot.ErrQuota, Text: "too many subscriptions of this device at once", RetryAfter: wait}
	}
	never := make(chan struct{})
	return await(ctx, never, wait)
}

// await waits for done, at most d; the error is ctx's.
func await(ctx context.Context, done <-chan struct{}, d time.Duration) error {
	if done == nil {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Close ends the subscription; it does not wait, and a second call does nothing.
// Later commands are released; those handed over keep their done. quiet leaves out
// the notification that the device can no longer be reached: because it or its
// tenant was removed, or the adapter stops. It is left out as well where a later
// subscription, here or in another process, has taken the place of this one, or an
// earlier one goes on to take commands.
func (s *CommandSubscription) Close(quiet bool) {
	gone, closed := s.p.o.Commands.remove(s)
	if closed && gone && !quiet {
		s.notifyUnsubscribed()
	}
}

// admission is by what the device is let in now.
func (s *CommandSubscription) admission() Admission {
	e := s.e.Load()
	if e == nil {
		e = s.session.own.Load()
	}
	return Admission{req: s.req, e: e, s: s.session}
}

func (s *CommandSubscription) key() commandKey {
	who := s.admission()
	return commandKey{who.Tenant(), who.Device()}
}

// ended reports whether the subscription has ended by itself.
func (s *CommandSubscription) ended(now time.Time) bool {
	return s.until != 0 && now.UnixMilli() >= s.until
}

// inForce is s, or the one before it that has not ended by itself; nil = none. The
// shard is locked.
func (s *CommandSubscription) inForce(now time.Time) *CommandSubscription {
	for s != nil && s.ended(now) {
		s = s.before
	}
	return s
}

func (s *CommandSubscription) announcement(k commandKey) Announcement {
	return Announcement{Tenant: k.tenant, Device: k.device, At: s.at, Until: s.until, Adapter: s.p.o.Type, All: s.all}
}

// add makes sub the latest of its device; known is told when routers know, nil = there
// are none. It does not where the device has as many as one may have.
func (s *Commands) add(sub *CommandSubscription) (known <-chan struct{}, ok bool) {
	k, now := sub.key(), time.Now()
	sh := s.shard(k)
	sh.mu.Lock()
	if now.Sub(sh.swept) >= forgetEvery {
		s.sweep(sh, now)
	}
	if sh.latest[k].count() >= MaxPerDevice {
		sh.mu.Unlock()
		s.tell.flush()
		return nil, false
	}
	sub.at, sub.before = now.UnixMilli(), sh.latest[k]
	if sub.before != nil {
		sub.at = max(sub.at, sub.before.at+1)
	}
	sh.latest[k] = sub
	known = s.tell.add(sub.announcement(k), true)
	sh.mu.Unlock()
	s.tell.flush()
	return known, true
}

// count counts s and those before it. The shard is locked.
func (s *CommandSubscription) count() (n int) {
	for ; s != nil; s = s.before {
		n++
	}
	return n
}

// remove takes sub out. closed is false where it is out already; gone says that
// with it the device can no longer be reached, as far as it has told anybody.
func (s *Commands) remove(sub *CommandSubscription) (gone, closed bool) {
	k := sub.key()
	sh := s.shard(k)
	sh.mu.Lock()
	if sub.closed {
		sh.mu.Unlock()
		return false, false
	}
	sub.closed = true
	latest := s.unlink(sh, k, sub)
	gone = sub.told && latest && !sub.superseded
	for left := sh.latest[k]; left != nil; left = left.before {
		gone = gone && !left.notify
	}
	sh.mu.Unlock()
	s.tell.flush()
	return gone, true
}

// unlink takes sub out of its shard, which is locked, and reports whether it was the
// latest of its device: then routers are to be told who follows.
func (s *Commands) unlink(sh *commandShard, k commandKey, sub *CommandSubscription) (latest bool) {
	first := sh.latest[k]
	if first != sub {
		for at := first; at != nil; at = at.before {
			if at.before == sub {
				at.before, sub.before = sub.before, nil
				s.open.Add(-1)
				break
			}
		}
		return false
	}
	s.open.Add(-1)
	next := sub.before
	sub.before = nil
	if next == nil {
		delete(sh.latest, k)
		s.tell.add(Announcement{Tenant: k.tenant, Device: k.device, Gone: true}, false)
		return true
	}
	sh.latest[k] = next
	s.tell.add(next.announcement(k), false)
	return true
}

// sweep forgets subscriptions that have ended by themselves. sh is locked; the
// caller flushes.
func (s *Commands) sweep(sh *commandShard, now time.Time) {
	sh.swept = now
	for k, sub := range sh.latest {
		for sub != nil {
			next := sub.before
			if sub.ended(now) {
				s.unlink(sh, k, sub)
			}
			sub = next
		}
	}
}
