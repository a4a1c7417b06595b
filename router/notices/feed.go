package notices

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// gapWait is how long a missing fact may still come by itself.
	gapWait      = time.Second
	confirmAfter = 50 * time.Second
	// overlap is asked for again each time: a change's time is that of its
	// writer, and before its commit.
	overlap = 60 * time.Second
	// reach is how far back the feed goes (contract: events, 4.2).
	reach = 25 * time.Hour
	// tokenLife is how long a token lives (contract: events, 4.1), with what
	// clocks may differ.
	tokenLife = 24*time.Hour + time.Minute

	callTimeout  = 10 * time.Second
	firstBackoff = 200 * time.Millisecond
	maxBackoff   = 10 * time.Second
)

// feedState is where Run stands in the feed.
type feedState struct {
	now       time.Time    // by the clock of the function: nothing is missing before; zero = never asked
	confirmed time.Time    // by ours, when that was
	age       atomic.Int64 // confirmed in Unix ms, for metrics; 0 = never
	followed  time.Time    // since when nothing was missed
	backoff   time.Duration
	gapPause  time.Duration
	gapNext   time.Time // no gap is asked for earlier
	limited   bool
}

// Run sends notifications and asks the feed until ctx ends. It is called once.
func (f *Follower) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { f.announce.run(ctx) })
	if f.o.Invoker == nil {
		return
	}
	f.feed.limited = true
	next := time.Now() // of a confirmation
	var use <-chan struct{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.gapped:
		case <-timer.C:
		case <-use:
			use = nil
			next = f.confirm(ctx)
		}
		now := time.Now()
		if use == nil && !next.After(now) {
			if f.feed.now.IsZero() {
				next = f.confirm(ctx) // the first is asked for whether or not tokens are in use
			} else if f.o.Verifier != nil {
				use = f.o.Verifier.NextUse()
			} else {
				next = now.Add(reach) // nobody depends on it
			}
		}
		wait := f.fillGaps(ctx)
		if use == nil {
			wait = min(wait, time.Until(next))
		}
		timer.Reset(max(wait, 0))
	}
}

// confirm asks for what no fact told of, and returns when to ask again.
func (f *Follower) confirm(ctx context.Context) (next time.Time) {
	began, from := time.Now(), fromFeed
	since := f.feed.now.Add(-overlap)
	if f.feed.now.IsZero() {
		since, from = began.Add(-reach), fromStart
	}
	_, now, err := f.read(ctx, events.RegistryChanges{Since: since}, from)
	switch {
	case err == nil && from == fromStart:
		f.feed.followed = began.Add(-reach)
	case errors.Is(err, errTooMany) && !now.IsZero():
		// Nothing is known for sure of what was before, but all that follows will be.
		f.log.Warn("too many tenants changed to catch up: tokens from before are refused", "err", err)
		f.feed.followed, err = began, nil
	}
	if err != nil {
		return f.unconfirmed(ctx, err)
	}
	f.feed.now, f.feed.confirmed, f.feed.backoff = now, began, 0
	f.feed.age.Store(began.UnixMilli())
	f.m.confirmations.Add(1)
	f.trust(began)
	return began.Add(f.o.ConfirmAfter)
}

// trust lets tokens live as long as the changes since their issue are known.
func (f *Follower) trust(now time.Time) {
	known := now.Sub(f.feed.followed)
	if known >= tokenLife {
		if f.feed.limited {
			f.log.Info("registry changes are followed")
		}
		f.feed.limited = false
		f.limit(0)
		return
	}
	f.feed.limited = true
	f.limit(max(known, UnfollowedAge))
}

// unconfirmed notes a failure, and returns when to ask again.
func (f *Follower) unconfirmed(ctx context.Context, err error) time.Time {
	now := time.Now()
	if ctx.Err() != nil {
		return now.Add(maxBackoff)
	}
	f.m.failures.Add(1)
	if f.feed.backoff == 0 {
		f.log.Warn("registry changes are not confirmed", "err", err)
	}
	if !f.feed.limited && now.Sub(f.feed.confirmed) >= UnfollowedAge {
		f.feed.limited = true
		f.limit(UnfollowedAge)
		f.log.Error("registry changes cannot be followed: older tokens are refused", "age", UnfollowedAge, "err", err)
	}
	f.feed.backoff = min(max(2*f.feed.backoff, firstBackoff), maxBackoff)
	return now.Add(f.feed.backoff)
}

// fillGaps asks for what has been missing for long enough, and returns how long
// nothing need be done.
func (f *Follower) fillGaps(ctx context.Context) (wait time.Duration) {
	now := time.Now()
	if pause := f.feed.gapNext.Sub(now); pause > 0 {
		return pause
	}
	f.mu.Lock()
	due, next := f.positions.due(now, gapWait, events.MaxPositions)
	f.mu.Unlock()
	if len(due) == 0 {
		if next.IsZero() {
			return reach // until a gap is seen
		}
		return next.Sub(now)
	}
	f.m.gaps.Add(int64(len(due)))
	after := make(map[iot.TenantID]uint64, len(due))
	for tenant, s := range due {
		after[tenant] = s.from
	}
	tops, _, err := f.read(ctx, events.RegistryChanges{Sequences: after}, fromFeed)
	if err != nil {
		f.feed.gapPause = min(max(2*f.feed.gapPause, firstBackoff), maxBackoff)
		f.feed.gapNext = now.Add(f.feed.gapPause)
		if ctx.Err() == nil {
			f.m.failures.Add(1)
			f.log.Warn("missing registry changes are not found", "tenants", len(due), "err", err)
		}
		return f.feed.gapPause
	}
	f.feed.gapPause = 0
	f.mu.Lock()
	for tenant, s := range due {
		f.positions.settle(tenant, tops[tenant], s.to, now)
	}
	f.mu.Unlock()
	return 0
}

var errTooMany = fmt.Errorf("more than %d tenants", events.MaxPositions)

// read applies all that the feed has after a position, and returns where each
// tenant then stands. now is the function's time when it began; it is there with
// errTooMany as well.
func (f *Follower) read(ctx context.Context, q events.RegistryChanges, from origin) (tops map[iot.TenantID]uint64, now time.Time, err error) {
	q.Max = events.MaxChanges
	q.Sequences = maps.Clone(q.Sequences)
	if q.Sequences == nil {
		q.Sequences = map[iot.TenantID]uint64{}
	}
	for {
		found, err := f.ask(ctx, q)
		if err != nil {
			return nil, now, err
		}
		if now.IsZero() {
			now = found.Now
		}
		if err := f.apply(ctx, found.Changes, from); err != nil {
			return nil, now, err
		}
		moved := false
		for i := range found.Changes {
			c := &found.Changes[i]
			if c.Sequence > q.Sequences[c.TenantID] {
				q.Sequences[c.TenantID], moved = c.Sequence, true
			}
		}
		switch {
		case !found.More:
			return q.Sequences, now, nil
		case !moved:
			return nil, now, errors.New("the feed says that there is more, and does not go on")
		case len(q.Sequences) > events.MaxPositions:
			return nil, now, errTooMany
		}
	}
}

// ask makes one call. The map is the call's: a function of this process gets it as it is.
func (f *Follower) ask(ctx context.Context, q events.RegistryChanges) (*events.ChangesFound, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	q.Sequences = maps.Clone(q.Sequences)
	f.m.calls.Add(1)
	found, err := events.Call(ctx, f.o.Invoker, q)
	switch {
	case errors.Is(err, iot.ErrTooLarge):
		return nil, errTooMany // long names of many tenants
	case err != nil:
		return nil, err
	case found.Now.IsZero():
		return nil, errors.New("the feed does not say what time it is")
	}
	return found, nil
}
