package invoke

import (
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Limits where [BreakerOptions] names none.
const (
	DefaultFailures = 8
	DefaultOpen     = time.Second
	DefaultMaxOpen  = 15 * time.Second
)

// BreakerOptions tune a [Breaker]; the zero value is right for a function host.
type BreakerOptions struct {
	Failures int           // tries lost in a row that open the circuit; 0 = DefaultFailures
	Open     time.Duration // at most how long it stays open the first time; 0 = DefaultOpen
	MaxOpen  time.Duration // it doubles with each probe that is lost, up to this; 0 = DefaultMaxOpen
}

// Breaker is a circuit breaker. Tries lost in a row open it; after a time
// between half and the whole of the stated one, it lets one probe through,
// whose outcome closes it or opens it for longer. An answer closes it, even if
// the answer is an error. Safe for concurrent use.
type Breaker struct {
	o   BreakerOptions
	log *slog.Logger

	mu      sync.Mutex
	lost    int       // in a row, while closed
	opened  int       // times in a row; 0 = closed
	until   time.Time // probes are let through from then on
	probing bool
}

// Pass is what [Breaker.Enter] gives and [Breaker.Leave] takes back.
type Pass struct{ probe bool }

// NewBreaker returns a closed one.
func NewBreaker(o BreakerOptions, log *slog.Logger) *Breaker {
	if o.Failures <= 0 {
		o.Failures = DefaultFailures
	}
	if o.Open <= 0 {
		o.Open = DefaultOpen
	}
	if o.MaxOpen <= 0 {
		o.MaxOpen = DefaultMaxOpen
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Breaker{o: o, log: log}
}

// Enter asks to make a try. While the circuit is open, the error wraps
// iot.ErrUnavailable and says when to come again, in whole seconds. Every pass
// must be given back by Leave.
func (b *Breaker) Enter() (Pass, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.opened == 0 {
		return Pass{}, nil
	}
	left := time.Until(b.until)
	if left <= 0 && !b.probing {
		b.probing = true
		return Pass{probe: true}, nil
	}
	return Pass{}, events.ErrorOf(&iot.Error{
		Sentinel: iot.ErrUnavailable, Text: "temporarily unavailable", RetryAfter: max(left, time.Millisecond),
	})
}

// Leave tells how the try went.
func (b *Breaker) Leave(p Pass, o Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.probe {
		b.probing = false
	}
	switch {
	case o == Answered:
		if b.opened > 0 {
			b.log.Info("function host answers again")
		}
		b.lost, b.opened = 0, 0
	case o == Lost && (p.probe || b.opened == 0):
		b.lost++
		if p.probe || b.lost >= b.o.Failures {
			b.open()
		}
	}
}

// open refuses tries from now on, for longer each time in a row.
func (b *Breaker) open() {
	d := min(b.o.Open<<min(b.opened, 30), b.o.MaxOpen)
	if d <= 0 {
		d = b.o.MaxOpen
	}
	if b.opened == 0 {
		b.log.Warn("function host does not answer: calls fail at once for now", "lost", b.lost)
	}
	b.opened++
	b.lost = 0
	b.until = time.Now().Add(d/2 + rand.N(d/2+1))
}
