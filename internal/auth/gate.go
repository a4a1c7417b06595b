package auth

import (
	"context"
	"net/netip"
	"runtime"
	"slices"
	"sync"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Log-ins wait for their turn to be checked; more than these are turned away, to
// come again, rather than kept waiting beyond their own deadline.
const (
	maxWaiting     = 256
	maxWaitingFrom = 64 // from one address
)

// gate bounds how many secrets are checked at one time, because each check is meant
// to be expensive and the processor is needed for messages too. Addresses take
// turns, so that whoever guesses from one of them waits for himself.
type gate struct {
	mu      sync.Mutex
	free    int // checks that may begin
	waiting int
	queues  map[netip.Addr][]chan struct{} // first come first; no empty ones
	turns   []netip.Addr                   // the keys of queues, next first
}

func newGate() *gate {
	return &gate{free: max(1, runtime.GOMAXPROCS(0)/2), queues: map[netip.Addr][]chan struct{}{}}
}

// enter takes one check, which leave gives back. All whose address is not known
// count as one.
func (g *gate) enter(ctx context.Context, from netip.Addr) error {
	turn, err := g.line(from)
	if turn == nil || err != nil {
		return err
	}
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		if !g.giveUp(from, turn) {
			g.leave() // the turn came at the same moment
		}
		return errTooManyLogins()
	}
}

// line returns nil where a check may begin at once, or else what is closed when it may.
func (g *gate) line(from netip.Addr) (turn chan struct{}, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.free > 0 {
		g.free--
		return nil, nil
	}
	queue := g.queues[from]
	if g.waiting >= maxWaiting || len(queue) >= maxWaitingFrom {
		return nil, errTooManyLogins()
	}
	if len(queue) == 0 {
		g.turns = append(g.turns, from)
	}
	turn = make(chan struct{})
	g.queues[from] = append(queue, turn)
	g.waiting++
	return turn, nil
}

// leave hands the check to the next address.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.turns) == 0 {
		g.free++
		return
	}
	from := g.turns[0]
	g.turns = g.turns[1:]
	close(g.queues[from][0])
	if g.remove(from, 0) {
		g.turns = append(g.turns, from)
	}
}

// giveUp reports whether turn was still waiting.
func (g *gate) giveUp(from netip.Addr, turn chan struct{}) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.queues[from], turn)
	if i < 0 {
		return false
	}
	if !g.remove(from, i) {
		g.turns = slices.DeleteFunc(g.turns, func(a netip.Addr) bool { return a == from })
	}
	return true
}

// remove takes one out of a queue and reports whether others are left in it.
func (g *gate) remove(from netip.Addr, i int) bool {
	g.waiting--
	queue := slices.Delete(g.queues[from], i, i+1)
	if len(queue) == 0 {
		delete(g.queues, from)
		return false
	}
	g.queues[from] = queue
	return true
}

func errTooManyLogins() error { return iot.Errorf(iot.ErrUnavailable, "too many log-ins at once") }
