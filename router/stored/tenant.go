package stored

import (
	"sync"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/forward"
)

const (
	// prefetchRecords and prefetchBytes bound what waits in memory for a tenant's
	// receivers, and totalPrefetch for all.
	prefetchRecords = 2000
	prefetchBytes   = 2 << 20
	totalPrefetch   = 128 << 20
	// maxInFlight bounds what a tenant's receivers may hold unsettled.
	maxInFlight = 20_000
	// offerRecords is how many messages go to the forwarder at a time.
	offerRecords = 128
)

// tenant is one whose events somebody listens to, or just did.
type tenant struct {
	s       *Server
	name    iot.TenantID
	address string

	turn sync.Mutex // whose turn it is to offer: what is ready goes out in order

	mu        sync.Mutex
	receivers int
	credit    bool      // a receiver has some, as far as is known
	wants     uint64    // counts the times that a receiver said so
	since     time.Time // without credit
	drain     bool
	claims    map[eventstore.PartitionID]*claim
	ready     queue
	inFlight  int // with receivers
	unsaid    int // settled by receivers, but not yet in the store
	running   bool
	again     bool // something happened while step ran
	claiming  claiming
	pause     time.Duration // after a failure
	timer     *time.Timer
}

// entry is an event in memory.
type entry struct {
	c        *claim
	message  []byte
	position uint64
	expires  int64
	attempt  uint16
	fresh    bool // it was never read before
}

func newTenant(s *Server, name iot.TenantID) *tenant {
	return &tenant{s: s, name: name, address: prefix + string(name), claims: map[eventstore.PartitionID]*claim{}}
}

// setReceivers notes how many receivers there are.
func (t *tenant) setReceivers(n int) {
	t.mu.Lock()
	if t.receivers == 0 && n > 0 {
		t.since = t.s.o.Now()
	}
	if n > t.receivers {
		t.claiming.again = time.Time{} // a new one may be here because another router has gone
		t.claiming.asked = time.Time{}
	}
	t.receivers = n
	if n == 0 {
		t.credit, t.drain = false, false
	}
	t.wake()
	t.mu.Unlock()
}

// want notes that a receiver has credit.
func (t *tenant) want(drain bool) {
	t.mu.Lock()
	t.credit, t.drain = true, t.drain || drain
	t.wants++
	t.wake()
	t.mu.Unlock()
}

// grown notes that a partition has more, which is to be read.
func (t *tenant) grown(p eventstore.PartitionID, end uint64) {
	t.mu.Lock()
	if c := t.claims[p]; c != nil && end > c.end {
		c.end = end
		t.wake()
	}
	t.mu.Unlock()
}

// appended notes a record that was just stored, and reports whether it is ready to be
// offered: it is the next one of a partition that is held, and there is room.
func (t *tenant) appended(p eventstore.PartitionID, r *eventstore.Record, live bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.claims[p]
	if c == nil {
		return false
	}
	c.end = max(c.end, r.Position+1)
	if !live || c.reading || c.wanted || r.Position != c.next || !t.room() {
		t.wake()
		return false
	}
	c.next++
	t.push(&entry{c: c, message: r.Message, position: r.Position, expires: r.Expires, fresh: true})
	t.s.m.live.Add(1)
	return true
}

// room reports whether more may wait in memory. The tenant is locked.
func (t *tenant) room() bool {
	return t.ready.len() < prefetchRecords && t.ready.bytes < prefetchBytes &&
		(t.s.prefetched.Load() < totalPrefetch || t.ready.len() == 0)
}

func (t *tenant) push(e *entry) {
	t.ready.push(e)
	t.s.prefetched.Add(int64(len(e.message)))
}

// offer hands what is ready to receivers, as far as they have credit.
func (t *tenant) offer() {
	t.turn.Lock()
	defer t.turn.Unlock()
	var list []forward.Offer
	var batch []*entry
	for {
		var wants uint64
		batch, list, wants = t.head(batch[:0], list[:0])
		if len(batch) == 0 {
			return
		}
		taken, more := t.s.o.Router.Offer(t.address, list)
		t.mu.Lock()
		t.back(batch[taken:])
		if !more && t.credit && t.wants == wants {
			t.credit, t.since = false, t.s.o.Now()
			t.wake() // its claims are given back after a while
		}
		again := t.credit
		t.mu.Unlock()
		t.s.m.delivered.Add(int64(taken))
		if !again {
			return
		}
	}
}

// head takes the first of what is ready as on its way to receivers. What has expired
// is settled instead.
func (t *tenant) head(batch []*entry, list []forward.Offer) ([]*entry, []forward.Offer, uint64) {
	now := t.s.o.Now().UnixMilli()
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.credit {
		return batch, list, t.wants
	}
	for len(batch) < offerRecords && t.inFlight+t.unsaid < maxInFlight {
		e := t.ready.pop()
		if e == nil {
			break
		}
		t.s.prefetched.Add(-int64(len(e.message)))
		if e.c.lost {
			continue
		}
		if e.expires != 0 && e.expires <= now {
			t.s.m.expired.Add(1)
			t.settled(e, eventstore.Settlement{Outcome: eventstore.Accepted})
			continue
		}
		t.inFlight++
		e.c.inFlight++
		h, tail := head(e.message, e.attempt, e.expires, now)
		batch, list = append(batch, e), append(list, forward.Offer{Head: h, Tail: tail, Taker: e})
	}
	return batch, list, t.wants
}

// back puts what nobody took where it was. The tenant is locked.
func (t *tenant) back(rest []*entry) {
	for i := len(rest) - 1; i >= 0; i-- {
		t.inFlight--
		rest[i].c.inFlight--
		t.ready.unpop(rest[i])
		t.s.prefetched.Add(int64(len(rest[i].message)))
	}
}

// Outcome implements [forward.Taker].
func (e *entry) Outcome(state amqp.Raw) { e.end(settlement(state)) }

// Lost implements [forward.Taker]: another receiver may have it at once.
func (e *entry) Lost() {
	e.end(eventstore.Settlement{Outcome: eventstore.Modified, DeliveryFailed: true, AtOnce: true})
}

func (e *entry) end(s eventstore.Settlement) {
	t := e.c.t
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inFlight--
	e.c.inFlight--
	e.message = nil
	t.settled(e, s)
}

// settled notes what is to be told to the store. The tenant is locked.
func (t *tenant) settled(e *entry, s eventstore.Settlement) {
	if e.c.lost {
		return
	}
	s.From, s.To, s.Attempt = e.position, e.position, e.attempt
	if e.c.unsaid = append(e.c.unsaid, s); len(e.c.unsaid) == 1 {
		e.c.said = t.s.o.Now()
	}
	if t.unsaid++; len(e.c.unsaid) == 1 || len(e.c.unsaid) == settleRecords {
		t.wake()
	}
}

// settlement makes a receiver's word one for the store.
func settlement(state amqp.Raw) (s eventstore.Settlement) {
	v, _ := amqp.DecodeState(state)
	switch v := v.(type) {
	case amqp.Accepted:
		s.Outcome = eventstore.Accepted
	case *amqp.Rejected:
		s.Outcome = eventstore.Rejected
		if v.Error != nil {
			s.Reason = string(v.Error.Condition)
			if v.Error.Description != "" {
				s.Reason += ": " + v.Error.Description
			}
		}
	case *amqp.Modified:
		s.Outcome, s.DeliveryFailed, s.UndeliverableHere = eventstore.Modified, v.DeliveryFailed, v.UndeliverableHere
	default: // released, or a word that is none
		s.Outcome = eventstore.Released
	}
	return s
}

// queue is what is ready for receivers, in order.
type queue struct {
	items []*entry
	first int
	bytes int
}

func (q *queue) len() int { return len(q.items) - q.first }

func (q *queue) push(e *entry) {
	q.items = append(q.items, e)
	q.bytes += len(e.message)
}

func (q *queue) pop() *entry {
	if q.len() == 0 {
		q.items, q.first = nil, 0
		return nil
	}
	e := q.items[q.first]
	q.items[q.first] = nil
	q.bytes -= len(e.message)
	if q.first++; q.first > 256 && q.first*2 > len(q.items) {
		q.items = append([]*entry(nil), q.items[q.first:]...)
		q.first = 0
	}
	return e
}

// unpop puts back what was popped last.
func (q *queue) unpop(e *entry) {
	q.bytes += len(e.message)
	if q.first > 0 {
		q.first--
		q.items[q.first] = e
		return
	}
	q.items = append([]*entry{e}, q.items...)
}
