package downstream

import "github.com/sluice-iot/sluice/internal/amqp/peer"

// ownPart is the part of MaxWaiting that is left to each address whatever the
// others do: one tenant that floods an address without consumers must not take
// from the others what they need where credit is short for a moment.
const ownPart = 50

// enqueue places d, or lets it wait behind those that wait. t.mu is held.
func (t *target) enqueue(d *delivery, x *scratch, e *ended) {
	t.used = true
	if len(t.s.ready.Load().conns) == 0 {
		e.add(d, errNoRouter, true)
		return
	}
	if t.waiting.first == nil {
		if p, err := t.place(d, x.buf, &x.batch); p != noCredit {
			t.went(d, p, err, e)
			return
		}
	}
	if !t.queue(d, x) {
		e.add(d, errTooManyWait, true)
		return
	}
	// A connection that became writable before d waited has told nobody.
	t.pump(&x.batch, e)
}

// pump places waiting deliveries in order, as far as credit goes. t.mu is held.
func (t *target) pump(b *peer.Batch, e *ended) {
	for d := t.waiting.first; d != nil; d = t.waiting.first {
		p, err := t.place(d, d.buf, b)
		if p == noCredit {
			return
		}
		t.unqueue(d)
		t.went(d, p, err, e)
	}
}

// went goes on with a delivery that need not wait for credit. t.mu is held.
func (t *target) went(d *delivery, p placement, err error, e *ended) {
	if p == failed || d.settled {
		e.add(d, err, true)
		return
	}
	t.await(&t.placed, d, t.s.o.SendTimeout)
}

// queue makes d the last to wait. It reports false when too many wait in the
// process, and enough at this address. t.mu is held.
func (t *target) queue(d *delivery, x *scratch) bool {
	s := t.s
	if s.waiting.Add(1) > int64(s.o.MaxWaiting) && t.waits >= s.o.MaxWaiting/t.part {
		s.waiting.Add(-1)
		return false
	}
	t.waits++
	d.buf, x.buf = x.buf, d.buf[:0]
	if t.waiting.first == nil {
		s.waitMu.Lock()
		s.waiters[t] = struct{}{}
		s.waitMu.Unlock()
	}
	t.await(&t.waiting, d, s.o.CreditWait)
	return true
}

// unqueue ends d's wait. t.mu is held.
func (t *target) unqueue(d *delivery) {
	t.waiting.remove(d)
	t.waits--
	s := t.s
	s.waiting.Add(-1)
	if t.waiting.first == nil {
		s.waitMu.Lock()
		delete(s.waiters, t)
		s.waitMu.Unlock()
	}
}
