package stored

import (
	"context"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// maxTelling bounds the partitions whose holders are yet to be told.
	maxTelling = 10_000
	tellTime   = 2 * time.Second
	tellFor    = time.Minute // its holder's claim has long ended by then
	firstTell  = 50 * time.Millisecond
	longTell   = 5 * time.Second
	// tellAllTime is how often all are told of what nobody holds of a tenant.
	tellAllTime = 10 * time.Second
)

// unheld is the end that a fact says of a partition that nobody holds: it is for those that wait, and
// they hear of what is in it when they claim it.
const unheld = 1

// tellKey is what one goroutine tells.
type tellKey struct {
	eventstore.Key
	ingress string
}

// told is the last word of it, and which one that is.
type told struct {
	eventstore.Holding
	n uint64
}

// tellFree has everybody told that partitions of a tenant were given back; one stands for all.
func (s *Server) tellFree(tenant iot.TenantID, p eventstore.PartitionID) {
	s.tell(eventstore.Holding{Tenant: tenant, Partition: p, End: unheld})
}

// tellAppended has everybody told that there is something that nobody holds, now and then: one
// that waits for it was told already, unless the fact was lost.
func (s *Server) tellAppended(h eventstore.Holding) {
	if s.o.Tell == nil {
		return
	}
	now := s.o.Now()
	s.mu.Lock()
	if now.Sub(s.toldAll[h.Tenant]) < tellAllTime {
		s.mu.Unlock()
		return
	}
	if len(s.toldAll) >= maxTelling {
		clear(s.toldAll)
	}
	s.toldAll[h.Tenant] = now
	s.mu.Unlock()
	s.tellFree(h.Tenant, h.Partition)
}

// tell has the holder of a partition told that it has grown. Only the last word is
// kept for each partition.
func (s *Server) tell(h eventstore.Holding) {
	if s.o.Tell == nil {
		return
	}
	key := tellKey{eventstore.Key{Tenant: h.Tenant, Partition: h.Partition}, h.Ingress}
	s.mu.Lock()
	defer s.mu.Unlock()
	last, there := s.telling[key]
	if !there && (len(s.telling) >= maxTelling || s.ctx.Err() != nil) {
		return // the holder finds out by itself
	}
	if s.telling[key] = (told{h, last.n + 1}); !there {
		s.goes(func() { s.telling1(key) })
	}
}

// telling1 tells until the last word was taken, or it is of no use any more: when this process ends, once.
func (s *Server) telling1(key tellKey) {
	wait, began := firstTell, time.Now()
	for {
		s.mu.Lock()
		h := s.telling[key]
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(s.ctx, tellTime)
		err := s.o.Tell(ctx, h.Ingress, h.Holding)
		cancel()
		s.mu.Lock()
		same := s.telling[key] == h
		if same && (err == nil || s.closed) || time.Since(began) > tellFor || s.ctx.Err() != nil {
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
