package edge

import (
	"context"
	"os"
	"runtime/debug"
	"time"
)

// With many connections the heap is what they hold, and hot paths make no
// garbage: letting it grow by a fifth before collecting, and not to its double,
// costs next to nothing. With few, a small heap collected that often would cost time.
const (
	manyConnections = 1000
	gcPercentFew    = 100
	gcPercentMany   = 20
	memoryInterval  = 2 * time.Second
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
		want := gcPercentFew
		if n, _ := p.router.Counts(); n >= manyConnections {
			want = gcPercentMany
		}
		if want != percent {
			debug.SetGCPercent(want)
			percent = want
		}
	}
}
