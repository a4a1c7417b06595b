package stored

import (
	"context"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
)

const (
	// maxTelling bounds the partitions whose holders are yet to be told.
	maxTelling = 10_000
	tellTime   = 2 * time.Second
	tellFor    = time.Minute // its holder's claim has long ended by then
	firstTell  = 50 * time.Millisecond
	longTell   = 5 * time.Second
)

// tell has the holder of a partition told that it has grown. Only the last word is
// kept for each partition.
func (s *Server) tell(h eventstore.Holding) {
	if s.o.Tell == nil || h.Ingress == "" {
		return
	}
	key := eventstore.Key{Tenant: h.Tenant, Partition: h.Partition}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, there := s.telling[key]
	if !there && (len(s.telling) >= maxTelling || s.closed) {
		return // the holder finds out by itself
	}
	if s.telling[key] = h; !there {
		s.goes(func() { s.telling1(key) })
	}
}

// telling1 tells until the last word was taken, or it is of no use any more.
func (s *Server) telling1(key eventstore.Key) {
	wait, began := firstTell, time.Now()
	for {
		s.mu.Lock()
		h := s.telling[key]
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(s.ctx, tellTime)
		err := s.o.Tell(ctx, h.Ingress, h)
		cancel()
		s.mu.Lock()
		if err == nil && s.telling[key] == h || time.Since(began) > tellFor || s.closed {
			delete(s.telling, key)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		if err == nil {
			wait = firstTell
			continue
		}
		select {
		case <-s.closing:
		case <-time.After(wait):
			wait = min(2*wait, longTell)
		}
	}
}
