package edge

import (
	"context"
	"os"
	"runtime/debug"
	"time"
)

// With many connections the heap is what they hold, and the router's hot paths make no
// garbage: letting it grow by a fifth before collecting, and not to its double,
// costs next to nothing. Adapters make some for each message, so that with many devices it
// may grow by a half. With few, a small heap collected that often would cost time.
const (
	manyConnections  = 1000
	gcPercentFew     = 100
	gcPercentDevices = 50
	gcPercentMany    = 20
	memoryInterval   = 2 * time.Second
)

// tuneMemory follows the number of connections until ctx ends, unless GOGC says
// what to do.
func (p *Process) tuneMemory(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	t := time.NewTicker(memoryInterval)
	defer t.Stop()
	percent := gcPercentFew
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		want := p.gcPercent()
		if want != percent {
			debug.SetGCPercent(want)
			percent = want
		}
	}
}

// gcPercent is how much garbage fits the connections of now.
func (p *Process) gcPercent() int {
	if p.router != nil {
		if n, _ := p.router.Counts(); n >= manyConnections {
			return gcPercentMany
		}
	}
	if p.sessions != nil && p.sessions.Len() >= manyConnections {
		return gcPercentDevices
	}
	return gcPercentFew
}
