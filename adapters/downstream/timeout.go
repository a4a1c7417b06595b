package downstream

import (
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// reportGrace bounds the wait for a report that is on its way to us.
const reportGrace = time.Second

// now is the time on the clock that is never set.
func (s *Set) now() time.Duration { return time.Since(s.began) }

// await makes d wait in one of the target's queues, where every wait is as
// long. One timer serves all: it is set again when it fires, not with each
// message. t.mu is held.
func (t *target) await(q *queue, d *delivery, wait time.Duration) {
	now := t.s.now()
	d.due = now + wait
	q.push(d)
	if t.alarm == 0 || d.due < t.alarm {
		t.setAlarm(d.due, now)
	}
}

func (t *target) setAlarm(due, now time.Duration) {
	t.alarm = due
	if t.timer == nil {
		t.timer = time.AfterFunc(due-now, t.timeout)
	} else {
		t.timer.Reset(due - now)
	}
}

// timeout ends what has waited long enough.
func (t *target) timeout() {
	var b peer.Batch
	var e ended
	t.expireDue(&b, &e)
	b.Flush()
	t.s.conclude(&e)
}

func (t *target) expireDue(b *peer.Batch, e *ended) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.s.now()
	for d := t.waiting.first; d != nil && d.due <= now; d = t.waiting.first {
		t.unqueue(d)
		e.add(d, t.s.uncredited(), true)
	}
	for d := t.late.first; d != nil && d.due <= now; d = t.late.first {
		t.late.remove(d)
		e.add(d, errNoOutcome, false)
	}
	for d := t.placed.first; d != nil && d.due <= now; d = t.placed.first {
		t.giveUp(d, b, e)
	}
	t.alarm = 0
	for _, q := range []*queue{&t.waiting, &t.placed, &t.late} {
		if d := q.first; d != nil && (t.alarm == 0 || d.due < t.alarm) {
			t.setAlarm(d.due, now)
		}
	}
}

// uncredited is the end of a message that found no credit in its time.
func (s *Set) uncredited() error {
	if s.Connected() == 0 {
		return errNoRouter
	}
	return errNoConsumer
}

// giveUp settles a delivery that was awaited long enough with released, so
// that whoever has it learns that it does not count (contract: messaging 7.2).
// One that was settled or lost a moment ago is awaited a little longer: the
// report of that is on its way. t.mu is held.
func (t *target) giveUp(d *delivery, b *peer.Batch, e *ended) {
	d.in.remove(d)
	if d.link.release(d.id, b) {
		e.add(d, errNoOutcome, false)
		return
	}
	t.await(&t.late, d, reportGrace)
}

// release settles an unsettled delivery; false when it is settled already.
func (lk *link) release(id uint32, b *peer.Batch) bool {
	pc := lk.c.pc
	pc.Lock()
	defer pc.Unlock()
	ours := lk.l.SettleSent(id, amqp.StateReleased)
	if ours {
		b.Touch(pc)
	}
	return ours
}

// cancel ends d as a time-out would, if it has not ended.
func (d *delivery) cancel() {
	var b peer.Batch
	var e ended
	t := d.t
	t.mu.Lock()
	switch d.in {
	case &t.waiting:
		t.unqueue(d)
		e.add(d, t.s.uncredited(), true)
	case &t.placed:
		t.giveUp(d, &b, &e)
	}
	t.mu.Unlock()
	b.Flush()
	t.s.conclude(&e)
}

// end takes note of the word on a delivery that was sent. t.mu is held.
func (t *target) end(d *delivery, err error, final bool, e *ended) {
	if d.in == nil {
		return // given up
	}
	d.in.remove(d)
	e.add(d, err, final)
}

// endAll ends whatever there still is when no connection is left.
func (t *target) endAll(e *ended) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for d := t.waiting.first; d != nil; d = t.waiting.first {
		t.unqueue(d)
		e.add(d, errStopping, true)
	}
	for _, q := range []*queue{&t.placed, &t.late} {
		for d := q.first; d != nil; d = q.first {
			t.end(d, errLost, false, e)
		}
	}
	if t.timer != nil {
		t.timer.Stop()
	}
	t.alarm = 0
}
