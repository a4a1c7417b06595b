package mqtt

import (
	"context"
	"slices"
	"time"
)

// How connections are told to go: in parts, so that not all of their devices
// knock elsewhere in the same moment, but soon.
const (
	leaveParts   = 20
	leaveAtLeast = 500 // connections in a part
	leavePause   = 25 * time.Millisecond
)

// Shutdown closes all listeners, reads no further messages, lets those in
// flight be acknowledged and then closes their connections, those of MQTT 5
// with a DISCONNECT; wills are not published. When ctx ends first it cuts them
// off and returns ctx's error.
func (a *Adapter) Shutdown(ctx context.Context) error {
	conns := a.stop()
	done := make(chan struct{})
	go func() {
		a.wg.Wait()
		close(done)
	}()
	a.leave(ctx, conns)
	select {
	case <-done:
		a.cancel()
		return nil
	case <-ctx.Done():
	}
	a.cancel()
	for _, c := range conns {
		c.abort()
	}
	return ctx.Err()
}

// stop takes nothing new in from now on.
func (a *Adapter) stop() []*conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopping = true
	for ln := range a.listeners {
		ln.Close()
	}
	for key := range a.wills {
		a.forgetWill(key)
	}
	conns := make([]*conn, 0, len(a.conns))
	for c := range a.conns {
		conns = append(conns, c)
	}
	return conns
}

func (a *Adapter) leave(ctx context.Context, conns []*conn) {
	part := max(leaveAtLeast, len(conns)/leaveParts+1)
	for i, some := range slices.Collect(slices.Chunk(conns, part)) {
		if i > 0 {
			select {
			case <-time.After(leavePause):
			case <-ctx.Done():
				return
			}
		}
		for _, c := range some {
			c.leave()
		}
	}
}
