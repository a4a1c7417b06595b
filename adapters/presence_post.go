package adapters

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/events"
)

// factQueue brings facts to subscribers, in their order, while nobody waits for
// that. A fact is brought once: whoever takes facts for subscribers repeats them.
type factQueue struct {
	poster events.Poster
	log    *slog.Logger
	base   context.Context // ends with close
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu           sync.Mutex
	closed       bool
	working      bool
	queue        []events.Fact
	posted, lost uint64
	quiet        time.Time     // nothing is logged before
	empty        chan struct{} // closed when closed and nothing is left
}

func newFactQueue(poster events.Poster, log *slog.Logger) *factQueue {
	q := &factQueue{poster: poster, log: log, empty: make(chan struct{})}
	q.base, q.stop = context.WithCancel(context.Background())
	return q
}

// add puts facts behind those that wait; the oldest make room.
func (q *factQueue) add(facts []events.PresenceFact) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		q.lost += uint64(len(facts))
		return
	}
	for _, f := range facts {
		q.queue = append(q.queue, f)
	}
	if n := len(q.queue) - PresenceQueue; n > 0 {
		clear(q.queue[:n])
		q.queue = q.queue[n:]
		q.lost += uint64(n)
		q.say("facts about devices are dropped: subscribers take them too slowly", nil)
	}
	if !q.working && len(q.queue) > 0 {
		q.working = true
		q.wg.Go(q.work)
	}
}

func (q *factQueue) work() {
	for batch := q.next(); batch != nil; batch = q.next() {
		ctx, cancel := context.WithTimeout(q.base, events.DefaultBudget)
		err := q.poster.Post(ctx, batch)
		cancel()
		q.mu.Lock()
		if err == nil {
			q.posted += uint64(len(batch))
		} else {
			q.lost += uint64(len(batch))
			q.say("facts about devices are not brought to subscribers", err)
		}
		q.mu.Unlock()
	}
}

// next takes what is posted at once; nil = nothing is left, and who asked is done.
func (q *factQueue) next() []events.Fact {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.queue), events.MaxPresenceChanges)
	if n == 0 || q.base.Err() != nil {
		q.working = false
		q.checkEmpty()
		return nil
	}
	batch := append([]events.Fact(nil), q.queue[:n]...)
	clear(q.queue[:n])
	if q.queue = q.queue[n:]; len(q.queue) == 0 {
		q.queue = nil
	}
	return batch
}

// say logs what is likely to come again soon, once a minute. q.mu is held.
func (q *factQueue) say(text string, err error) {
	now := time.Now()
	if now.Before(q.quiet) {
		return
	}
	q.quiet = now.Add(time.Minute)
	args := []any{"lost", q.lost}
	if err != nil {
		args = append(args, "err", err)
	}
	q.log.Warn(text, args...)
}

// checkEmpty lets close go on when nothing is left. q.mu is held.
func (q *factQueue) checkEmpty() {
	if !q.closed || q.working {
		return
	}
	select {
	case <-q.empty:
	default:
		close(q.empty)
	}
}

func (q *factQueue) counts() (posted, lost uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.posted, q.lost
}

// close refuses later facts and lets the others go until the time is over.
func (q *factQueue) close(over <-chan struct{}) {
	q.mu.Lock()
	q.closed = true
	q.checkEmpty()
	q.mu.Unlock()
	select {
	case <-q.empty:
	case <-over:
	}
	q.stop()
	q.wg.Wait()
	q.mu.Lock()
	q.lost += uint64(len(q.queue))
	q.queue = nil
	q.mu.Unlock()
}
