package downstream

import (
	"sync"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// refusedFor is how long a router that refused a link is not asked again.
const refusedFor = time.Second

// target is an address: a link to each ready router, and the deliveries to it
// that have not ended.
type target struct {
	s       *Set
	address string
	part    int // of MaxWaiting, that is left to it whatever the others do

	mu      sync.Mutex // guards what follows
	gen     uint64     // of the view that links belong to; 0 = look again
	links   []*link    // one per connection of the view; nil = none to be had
	next    uint       // where the next search for credit starts
	refusal error      // the latest refusal among links
	retry   time.Time
	used    bool // since the last sweep
	unused  int  // sweeps since the last use
	dead    bool // no longer in Set.targets

	waiting queue         // for credit
	waits   int           // how many are in it
	placed  queue         // on a link, for the outcome
	late    queue         // for the report of an outcome that has come
	timer   *time.Timer   // of all three; nil = not made yet
	alarm   time.Duration // when it fires; 0 = it does not
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
	failed                    // the error says why
)

// place puts d, encoded as message, on the first link with credit, beginning at
// another one each time. t.mu is held.
func (t *target) place(d *delivery, message []byte, b *peer.Batch) (placement, error) {
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
		switch lk.send(d, message, b) {
		case peer.Sent:
			return placed, nil
		case peer.TooLarge:
			return failed, errTooLarge
		}
	}
	if live == 0 && t.refusal != nil {
		return failed, t.refusal
	}
	return noCredit, nil
}

func (lk *link) send(d *delivery, message []byte, b *peer.Batch) peer.SendResult {
	out := peer.Outgoing{Settled: d.settled, Head: message}
	if !d.settled { // else it ends now, and may be another message soon
		out.Token.Ref = d
	}
	pc := lk.c.pc
	pc.Lock()
	defer pc.Unlock()
	r := lk.l.Send(&out)
	if r == peer.Sent {
		d.link, d.id = lk, lk.l.LastID()
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
func (t *target) detached(lk *link, err *amqp.Error, b *peer.Batch, e *ended) {
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
	t.pump(b, e)
}

// credited offers what waits to links whose credit changed, and gives back the
// rest of a drained link's.
func (t *target) credited(l *peer.Link, b *peer.Batch, e *ended) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pump(b, e)
	pc := l.Conn()
	pc.Lock()
	defer pc.Unlock()
	if l.Drain() && t.waiting.first == nil {
		l.Drained()
		b.Touch(pc)
	}
}

// expire detaches the links of a target that was not used for LinkIdle and
// reports whether the target is dead.
func (t *target) expire(b *peer.Batch) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unused++
	if t.used || t.busy() {
		t.used, t.unused = false, 0
	}
	if t.unused < sweepsPerIdle {
		return false
	}
	t.retire(b)
	return true
}

// busy reports whether something is under way. t.mu is held.
func (t *target) busy() bool {
	return t.waiting.first != nil || t.placed.first != nil || t.late.first != nil
}

// retire detaches the links: nothing is sent to t any more. t.mu is held.
func (t *target) retire(b *peer.Batch) {
	t.dead = true
	if t.timer != nil {
		t.timer.Stop()
	}
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
}
