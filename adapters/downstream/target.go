package downstream

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// refusedFor is how long a router that refused a link is not asked again.
const refusedFor = time.Second

// target is an address: a link to each ready router, and what waits for
// credit. Its fields are guarded by mu, inflight excepted.
type target struct {
	s       *Set
	address string

	mu       sync.Mutex
	gen      uint64  // of the view that links belong to; 0 = look again
	links    []*link // one per connection of the view; nil = none to be had
	next     uint    // where the next search for credit starts
	refusal  error   // the latest refusal among links
	retry    time.Time
	used     bool // since the last sweep
	unused   int  // sweeps since the last use
	dead     bool // no longer in Set.targets
	inflight atomic.Int64

	first, last *delivery // waiting for credit, in order
}

// link is a sending link to one router, or its refusal.
type link struct {
	t       *target
	c       *conn
	l       *peer.Link // nil when it could not even be asked for
	refused error      // not nil: there is no link
	until   time.Time  // when a refused one is tried again
}

// placement says what became of an attempt to place a delivery.
type placement uint8

const (
	noCredit placement = iota // nowhere; it may wait
	placed                    // on a link
	failed                    // delivery.err says why
)

// place puts d on the first link with credit, beginning at another one each
// time. t.mu is held.
func (t *target) place(d *delivery, b *peer.Batch) placement {
	v := t.s.ready.Load()
	if t.gen != v.gen || t.refusal != nil && !time.Now().Before(t.retry) {
		t.relink(v, b)
	}
	n := uint(len(t.links))
	start := t.next
	t.next++
	live := 0
	for i := range n {
		lk := t.links[(start+i)%n]
		if lk == nil || lk.refused != nil {
			continue
		}
		live++
		switch lk.send(d, b) {
		case peer.Sent:
			return placed
		case peer.TooLarge:
			d.err = errTooLarge
			return failed
		}
	}
	if live == 0 && t.refusal != nil {
		d.err = t.refusal
		return failed
	}
	return noCredit
}

func (lk *link) send(d *delivery, b *peer.Batch) peer.SendResult {
	pc := lk.c.pc
	d.link = lk // before an outcome can come
	pc.Lock()
	defer pc.Unlock()
	r := lk.l.Send(&d.out)
	if r == peer.Sent {
		if !d.out.Settled {
			d.id, d.sent = lk.l.LastID(), true
			lk.t.inflight.Add(1)
		}
		b.Touch(pc)
	}
	return r
}

// relink matches the links to the ready connections: it keeps those that
// stand, and attaches where there is none. t.mu is held.
func (t *target) relink(v *view, b *peer.Batch) {
	now := time.Now()
	links := make([]*link, len(v.conns))
	t.refusal, t.retry = nil, time.Time{}
	for i, c := range v.conns {
		lk := t.linkOn(c)
		if lk == nil || lk.refused != nil && !now.Before(lk.until) {
			lk = c.attach(t, now, b)
		}
		links[i] = lk
		if lk != nil && lk.refused != nil {
			t.noteRefusal(lk)
		}
	}
	t.links, t.gen = links, v.gen
}

func (t *target) linkOn(c *conn) *link {
	for _, lk := range t.links {
		if lk != nil && lk.c == c {
			return lk
		}
	}
	return nil
}

func (t *target) noteRefusal(lk *link) {
	t.refusal = lk.refused
	if t.retry.IsZero() || lk.until.Before(t.retry) {
		t.retry = lk.until
	}
}

// detached takes note that a link is gone; err is the router's reason, if it
// gave one. What waits goes elsewhere or learns that it cannot.
func (t *target) detached(lk *link, err *amqp.Error, b *peer.Batch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if lk.refused != nil || t.linkOn(lk.c) != lk {
		return // given up by us
	}
	if err != nil {
		lk.refused, lk.until = refusal(t.address, err), time.Now().Add(refusedFor)
		t.noteRefusal(lk)
	} else {
		for i := range t.links {
			if t.links[i] == lk {
				t.links[i] = nil
			}
		}
		t.gen = 0
	}
	t.pump(b)
}

// credited offers what waits to links whose credit changed, and gives back the
// rest of a drained link's.
func (t *target) credited(l *peer.Link, b *peer.Batch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pump(b)
	pc := l.Conn()
	pc.Lock()
	defer pc.Unlock()
	if l.Drain() && t.first == nil {
		l.Drained()
		b.Touch(pc)
	}
}

// pump places waiting deliveries in order, as far as credit goes. t.mu is held.
func (t *target) pump(b *peer.Batch) {
	for d := t.first; d != nil; d = t.first {
		switch t.place(d, b) {
		case noCredit:
			return
		case placed:
			t.unqueue(d)
			d.sentAt = time.Now()
			if d.out.Settled {
				d.finish(nil, true)
			}
		case failed:
			t.unqueue(d)
			d.finish(d.err, true)
		}
	}
}

// queue makes d the last to wait. It reports false when too many wait in the
// process. t.mu is held.
func (t *target) queue(d *delivery) bool {
	s := t.s
	if s.waiting.Add(1) > int64(s.o.MaxWaiting) {
		s.waiting.Add(-1)
		return false
	}
	d.queued, d.prev, d.next = true, t.last, nil
	if t.last != nil {
		t.last.next = d
	} else {
		t.first = d
		s.waitMu.Lock()
		s.waiters[t] = struct{}{}
		s.waitMu.Unlock()
	}
	t.last = d
	return true
}

// unqueue ends d's wait. t.mu is held.
func (t *target) unqueue(d *delivery) {
	if d.prev != nil {
		d.prev.next = d.next
	} else {
		t.first = d.next
	}
	if d.next != nil {
		d.next.prev = d.prev
	} else {
		t.last = d.prev
	}
	d.queued, d.prev, d.next = false, nil, nil
	s := t.s
	s.waiting.Add(-1)
	if t.first == nil {
		s.waitMu.Lock()
		delete(s.waiters, t)
		s.waitMu.Unlock()
	}
}

// abandon ends d's wait if it still waits.
func (t *target) abandon(d *delivery) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !d.queued {
		return false
	}
	t.unqueue(d)
	return true
}

// expire detaches the links of a target that was not used for LinkIdle and
// reports whether the target is dead.
func (t *target) expire(b *peer.Batch) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unused++
	if t.used || t.first != nil || t.inflight.Load() > 0 {
		t.used, t.unused = false, 0
	}
	if t.unused < sweepsPerIdle {
		return false
	}
	t.dead = true
	for _, lk := range t.links {
		if lk == nil || lk.refused != nil {
			continue
		}
		pc := lk.c.pc
		pc.Lock()
		lk.l.Detach(nil)
		b.Touch(pc)
		pc.Unlock()
	}
	t.links = nil
	return true
}
