package peer

import (
	"context"
	"sync"
	"time"
)

// wheelTick is how exact heartbeats and idle time-outs are.
const wheelTick = 250 * time.Millisecond

// Wheel is the one timer of all connections that share it. Connections lie in
// buckets by the tick at which they want to be looked at.
type Wheel struct {
	start   time.Time // ticks count from here, by the clock that is never set
	mu      sync.Mutex
	buckets map[int64][]*seat
	next    int64 // first tick not yet served
}

// seat is a connection's place in the buckets. A connection that has ended leaves
// it empty: the bucket may come long after, and must not hold it till then.
type seat struct{ c *Conn }

// NewWheel returns a wheel; it turns while Run does.
func NewWheel() *Wheel {
	return &Wheel{start: time.Now(), buckets: map[int64][]*seat{}}
}

func (w *Wheel) tickOf(t time.Time) int64 { return int64(t.Sub(w.start) / wheelTick) }

func (w *Wheel) add(x *seat, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tick := max(w.tickOf(at)+1, w.next)
	w.buckets[tick] = append(w.buckets[tick], x)
}

// leave empties a seat for good.
func (w *Wheel) leave(x *seat) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x.c = nil
}

// Run serves the connections until ctx ends.
func (w *Wheel) Run(ctx context.Context) {
	t := time.NewTicker(wheelTick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			w.turn(time.Now())
		}
	}
}

// turn serves every bucket that is due.
func (w *Wheel) turn(now time.Time) {
	var due []*Conn
	take := func(seats []*seat) {
		for _, x := range seats {
			if x.c != nil {
				due = append(due, x.c)
			}
		}
	}
	w.mu.Lock()
	tick := w.tickOf(now)
	if tick-w.next > 1000 {
		// Nobody turned it for long: look at what there is.
		for k, seats := range w.buckets {
			if k <= tick {
				take(seats)
				delete(w.buckets, k)
			}
		}
	} else {
		for k := w.next; k <= tick; k++ {
			take(w.buckets[k])
			delete(w.buckets, k)
		}
	}
	w.next = tick + 1
	w.mu.Unlock()
	var b Batch
	for _, c := range due {
		c.tick(now, &b)
	}
	b.Flush()
}
