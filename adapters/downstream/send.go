package downstream

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/iot"
)

// maxKept is the largest buffer that is kept for the next message.
const maxKept = 64 * 1024

// delivery is one message on its way.
type delivery struct {
	// The report of its end, written once, before the signal on done.
	reported atomic.Bool
	err      error
	final    bool // nobody will speak of it again: it may be used anew
	done     chan struct{}

	// Guarded by the target.
	queued     bool
	waited     bool // it was queued at some time
	prev, next *delivery
	link       *link
	sent       bool // unsettled, as id
	id         uint32
	sentAt     time.Time // when it was placed after waiting

	// What the sending goroutine keeps from message to message.
	out   peer.Outgoing
	buf   []byte
	keys  []string
	batch peer.Batch
	timer *time.Timer
}

// finish reports the end of a delivery; only the first report counts.
func (d *delivery) finish(err error, final bool) {
	if d.reported.CompareAndSwap(false, true) {
		d.err, d.final = err, final
		d.done <- struct{}{}
	}
}

func (s *Set) take() *delivery {
	if d, ok := s.pool.Get().(*delivery); ok {
		return d
	}
	// The timer is stopped before it fires: it has no other zero value.
	d := &delivery{done: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	d.timer.Stop()
	return d
}

// recycle keeps d for another message. Nobody else knows of it any more.
func (s *Set) recycle(d *delivery) {
	if cap(d.buf) > maxKept {
		d.buf = nil
	}
	clear(d.keys)
	d.reported.Store(false)
	d.err, d.final, d.waited, d.link, d.sent, d.sentAt = nil, false, false, nil, false, time.Time{}
	d.out = peer.Outgoing{}
	s.pool.Put(d)
}

// Send implements adapters.Downstream. Only messages of the endpoints
// telemetry and event are taken.
func (s *Set) Send(ctx context.Context, m *iot.Message) error {
	if m.Endpoint != iot.Telemetry && m.Endpoint != iot.Event {
		return iot.Errorf(iot.ErrInvalid, "endpoint %.40q: want telemetry or event", m.Endpoint)
	}
	if ctx.Err() != nil {
		return errTooLate
	}
	if !s.enter() {
		return errStopping
	}
	defer s.leave()
	d := s.take()
	if err := d.encode(m); err != nil {
		s.recycle(d)
		return err
	}
	d.out.Head = d.buf
	d.out.Settled = m.QoS == iot.AtMostOnce
	d.out.Token.Ref = d
	t := s.target(key{m.Endpoint, m.Tenant})
	p, err := t.enqueue(d)
	t.mu.Unlock()
	d.batch.Flush()
	if err != nil || p == placed && d.out.Settled {
		s.recycle(d)
		return err
	}
	if p == placed {
		d.timer.Reset(s.o.SendTimeout)
	} else {
		d.timer.Reset(s.o.CreditWait)
	}
	return s.await(ctx, t, d)
}

// enqueue places d, or lets it wait behind those that wait. t.mu is held.
func (t *target) enqueue(d *delivery) (placement, error) {
	t.used = true
	if len(t.s.ready.Load().conns) == 0 {
		return failed, errNoRouter
	}
	if t.first == nil {
		switch t.place(d, &d.batch) {
		case placed:
			return placed, nil
		case failed:
			return failed, d.err
		}
	}
	if !t.queue(d) {
		return failed, errTooManyWait
	}
	d.waited = true
	// A connection that became writable before d waited has told nobody.
	t.pump(&d.batch)
	return noCredit, nil
}

// await waits for the end of a delivery that waits for credit or for its
// outcome.
func (s *Set) await(ctx context.Context, t *target, d *delivery) error {
	for {
		select {
		case <-d.done:
			return s.ended(t, d)
		case <-ctx.Done():
			if t.abandon(d) {
				return s.uncredited(d)
			}
		case <-d.timer.C:
			if t.abandon(d) {
				return s.uncredited(d)
			}
			// Placed after waiting: its time counts from then.
			if left := s.o.SendTimeout - time.Since(d.sentAt); left > 0 {
				d.timer.Reset(left)
				continue
			}
		}
		return s.giveUp(t, d)
	}
}

// barrier returns once whoever had the target locked has let go of it.
func (t *target) barrier() {
	t.mu.Lock()
	defer t.mu.Unlock()
}

// ended is the end of a delivery that somebody reported.
func (s *Set) ended(t *target, d *delivery) error {
	d.timer.Stop()
	if d.waited {
		t.barrier() // whoever placed it is not through with it before
	}
	if d.sent {
		t.inflight.Add(-1)
	}
	err := d.err
	if d.final {
		s.recycle(d)
	}
	return err
}

// uncredited is the end of a delivery that found no credit in its time.
func (s *Set) uncredited(d *delivery) error {
	d.timer.Stop()
	s.recycle(d)
	if s.Connected() == 0 {
		return errNoRouter
	}
	return errNoConsumer
}

// reportGrace bounds the wait for a report that is on its way to us.
const reportGrace = time.Second

// giveUp settles a delivery that was awaited long enough with released, so
// that whoever has it learns that it does not count (contract: messaging 7.2).
func (s *Set) giveUp(t *target, d *delivery) error {
	if d.sent && d.link.release(d) {
		d.timer.Stop()
		t.inflight.Add(-1)
		return errNoOutcome
	}
	// It was settled or lost a moment ago.
	d.timer.Reset(reportGrace)
	select {
	case <-d.done:
		return s.ended(t, d)
	case <-d.timer.C:
		if d.sent {
			t.inflight.Add(-1)
		}
		return errNoOutcome
	}
}

// release settles an unsettled delivery; false when it is settled already.
func (lk *link) release(d *delivery) bool {
	pc := lk.c.pc
	pc.Lock()
	ours := lk.l.SettleSent(d.id, amqp.StateReleased)
	if ours {
		d.batch.Touch(pc)
	}
	pc.Unlock()
	d.batch.Flush()
	return ours
}
