package notices

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/changes"
	"github.com/sluice-iot/sluice/internal/registry"
)

const (
	// Wait is how long the caller of a change waits for the routers at most.
	Wait = 500 * time.Millisecond
	// shortWait replaces Wait after nobody answered within it, so that a
	// bulk change does not stand still for every batch.
	shortWait = 100 * time.Millisecond
	// shortFor is how long that lasts.
	shortFor = 5 * time.Second
	// batch bounds the facts of one post.
	batch = 250
)

// Observer posts changes. It has no goroutine and no queue. Safe for concurrent use.
type Observer struct {
	poster   events.Poster
	log      *slog.Logger
	taken    atomic.Uint64
	left     atomic.Uint64
	slowTill atomic.Int64 // Unix nanoseconds
}

// New returns an observer that posts to p.
func New(p events.Poster, log *slog.Logger) *Observer {
	return &Observer{poster: p, log: log}
}

// Observe posts the changes of one transaction. It fits
// [registry.Backend].Observe: it returns when all are taken or after [Wait],
// whichever is first, and outlives the end of ctx, because the changes are
// committed by then.
func (o *Observer) Observe(ctx context.Context, committed []registry.Change) {
	if len(committed) == 0 {
		return
	}
	wait := Wait
	if time.Now().UnixNano() < o.slowTill.Load() {
		wait = shortWait
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait)
	defer cancel()
	var last error
	left, first := 0, uint64(0)
	for rest := committed; len(rest) > 0; {
		n := min(len(rest), batch)
		// One router that is away must not keep the others from the rest.
		if err := o.post(ctx, rest[:n]); err != nil {
			if left == 0 {
				first = rest[0].Sequence
			}
			last, left = err, left+n
		}
		rest = rest[n:]
	}
	o.taken.Add(uint64(len(committed) - left))
	o.left.Add(uint64(left))
	if left == 0 {
		return
	}
	if ctx.Err() != nil {
		o.slowTill.Store(time.Now().Add(shortFor).UnixNano())
	}
	o.log.WarnContext(ctx, "registry changes were not taken by every router; the feed keeps them",
		"tenant", string(committed[0].Tenant), "sequence", first, "changes", left, "err", last)
}

func (o *Observer) post(ctx context.Context, part []registry.Change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	facts := make([]events.Fact, len(part))
	for i := range part {
		facts[i] = changes.Fact(&part[i])
	}
	return o.poster.Post(ctx, facts)
}

// Counts returns how many changes every router took at once, and how many were
// left to the feed, since the start.
func (o *Observer) Counts() (taken, left uint64) { return o.taken.Load(), o.left.Load() }
