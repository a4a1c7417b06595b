package stored

import (
	"strings"
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
	// leastRead is what one read brings though receivers take less: they renew their credit.
	leastRead     = 64
	totalPrefetch = 128 << 20
	// maxInFlight bounds what a tenant's receivers may hold unsettled.
	maxInFlight = 20_000
	// maxReason bounds what is kept of a receiver's words, in bytes.
	maxReason = 500
	// offerRecords is how many messages go to the forwarder at a time.
	offerRecords = 128
)

// tenant is one whose events somebody listens to, or just did.
type tenant struct {
	s       *Server
	name    iot.TenantID
	address string // its receivers'

	turn sync.Mutex // whose turn it is to offer: what is ready goes out in order

	mu        sync.Mutex
	receivers int
	credit    bool      // a receiver has some, as far as is known
	amount    int       // how much all of them have, then
	wants     uint64    // counts the times that a receiver said so
	since     time.Time // without credit
	drains    uint64    // counts the times that a receiver asked for what there is now
	drained   uint64    // those that were answered
	claims    map[eventstore.PartitionID]*claim
	grew      map[eventstore.PartitionID]uint64 // the ends of others, as heard while claims are asked for; nil = they are not
	ready     queue
	inFlight  int // with receivers
	unsaid    int // settled by receivers, but not yet in the store
	running   bool
	again     bool // something happened while step ran
	claiming  claiming
	pause     time.Duration // after a failure
	paused    time.Time     // until then the store is left alone
	timer     *time.Timer
}

// entry is an event in memory.
type entry struct {
	c        *claim
	message  []byte
	position uint64
	expires  int64
	attempt  uint16
	fresh    bool // it is read for the first time
}

func newTenant(s *Server, name iot.TenantID, address string) *tenant {
	return &tenant{s: s, name: name, address: address, claims: map[eventstore.PartitionID]*claim{}}
}

// setReceivers notes how many receivers there are.
func (t *tenant) setReceivers(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.receivers == 0 || n == 0 && t.credit {
		t.since = t.s.o.Now()
	}
	if n > t.receivers && (len(t.claims) == 0 || t.claiming.others > 0) {
		// A new one may be here because another router has gone.
		t.claiming.now, t.claiming.again, t.claiming.knock = true, time.Time{}, true
	}
	if t.receivers = n; n == 0 {
		t.credit, t.drained = false, t.drains
	}
	t.wake()
}

// want notes how much credit receivers have.
func (t *tenant) want(amount int, drain bool) {
	credit := amount > 0
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.receivers == 0 {
		return
	}
	was := t.credit
	if t.credit, t.amount = credit, amount; credit {
		t.wants++
	} else if was {
		t.since = t.s.o.Now()
	}
	if drain {
		t.drains++
	}
	if drain || was != credit || credit && t.ready.len() > 0 {
		t.wake()
	}
}

// grown notes that a partition has more, which is to be read.
func (t *tenant) grown(p eventstore.PartitionID, end uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.claims[p]; c == nil {
		t.elsewhere(p, end)
	} else if end > c.end {
		c.end = end
		c.stir(t.s.o.Now())
		t.wake()
	}
}

// elsewhere notes that a partition has more that is not this process's, as far as is
// known. The tenant is locked.
func (t *tenant) elsewhere(p eventstore.PartitionID, end uint64) {
	k := &t.claiming
	switch {
	case t.grew != nil: // what is asked just now decides
		t.grew[p] = max(t.grew[p], end)
	case k.now || k.pending > 0:
	default:
		wait := k.wait
		if k.others == 0 || len(t.claims) > 0 { // else it asks for its share sooner
			wait = claimTime
		}
		// Its holder may be gone, or hears of it just now.
		k.pending, k.freeAt = 1, later(k.last.Add(wait), t.s.o.Now().Add(firstWait))
		if t.credit {
			t.wake()
		}
	}
}

// appended notes a record that was just stored, and reports whether it is ready to be
// offered: it is the next one of a partition that is held, and there is room.
func (t *tenant) appended(p eventstore.PartitionID, r *eventstore.Record, live bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.claims[p]
	if c == nil {
		t.elsewhere(p, r.Position+1)
		return false
	}
	behind := c.next < c.end
	c.end = max(c.end, r.Position+1)
	if !live || c.reading || c.wanted || r.Position != c.next || !t.room() {
		if !behind {
			c.stir(t.s.o.Now())
			t.wake()
		}
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

// short reports whether so little waits in memory, for the credit there is, that more is to be read, and
// how many. The tenant is locked.
func (t *tenant) short() (records int, short bool) {
	enough := min(max(2*t.amount, leastRead), prefetchRecords)
	n := t.ready.len()
	return enough - n, n < enough/2 && t.room()
}

func (t *tenant) push(e *entry) {
	t.ready.push(e)
	t.s.prefetched.Add(int64(len(e.message)))
}

// offer hands what is ready to receivers, as far as they have credit.
func (t *tenant) offer() {
	t.turn.Lock()
	defer t.turn.Unlock()
	var o offering
	for {
		t.head(&o)
		if len(o.batch) == 0 {
			return
		}
		taken, left := t.s.o.Router.Offer(t.address, o.list)
		t.mu.Lock()
		for _, e := range o.batch[:taken] {
			e.message = nil // the store has it for the next time
		}
		t.back(o.batch[taken:])
		if t.wants == o.wants {
			t.amount = left
		}
		if left == 0 && t.credit && t.wants == o.wants {
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

// offering is what is on its way to receivers.
type offering struct {
	batch []*entry
	list  []forward.Offer
	heads []byte // of the messages
	wants uint64 // as it was before
}

// head takes the first of what is ready as on its way to receivers. What has expired
// is settled instead.
func (t *tenant) head(o *offering) {
	o.batch, o.list, o.heads = o.batch[:0], o.list[:0], o.heads[:0]
	now := t.s.o.Now().UnixMilli()
	t.mu.Lock()
	defer t.mu.Unlock()
	o.wants = t.wants
	if !t.credit {
		return
	}
	for len(o.batch) < offerRecords && !t.laden() {
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
		var x forward.Offer
		x.Head, x.Tail, o.heads = head(o.heads, e.message, e.attempt, e.expires, now)
		x.Taker = e
		o.batch, o.list = append(o.batch, e), append(o.list, x)
	}
}

// laden reports whether receivers, and the store, owe so many answers that they get no
// more. The tenant is locked.
func (t *tenant) laden() bool { return t.inFlight+t.unsaid >= maxInFlight }

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
	t.settled(e, s)
	if t.receivers == 0 && t.inFlight == 0 {
		t.wake() // to leave
	}
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
			if len(s.Reason) > maxReason {
				s.Reason = strings.ToValidUTF8(s.Reason[:maxReason], "")
			}
		}
	case *amqp.Modified:
		s.Outcome, s.DeliveryFailed, s.UndeliverableHere = eventstore.Modified, v.DeliveryFailed, v.UndeliverableHere
	default: // released, or a word that is none
		s.Outcome = eventstore.Released
	}
	return s
}
