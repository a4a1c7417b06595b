package stored

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/forward"
)

const (
	// maxQueued is how many bytes may wait to be stored before deliveries are released;
	// senders get no credit from half of it on, until a quarter is left.
	maxQueued = 64 << 20
	// overhead is what a delivery costs besides its message.
	overhead = 256

	// appendTime bounds one append with its repetitions, and how long a delivery waits for its
	// turn. A sender that is told of a failure sends again, so a long wait would only fill the memory.
	appendTime  = 5 * time.Second
	appendRetry = 20 * time.Millisecond
	// maxAppendRetry is the longest pause between two tries.
	maxAppendRetry = 250 * time.Millisecond
	// maxParts is how many parts of a batch that was refused are tried: none for long of
	// those that wait behind it.
	maxParts = 128
)

// item is a delivery that is to be stored.
type item struct {
	deposit *forward.Deposit
	record  eventstore.Record
	since   time.Time
}

func (it *item) size() int64 { return int64(len(it.record.Message)) + overhead }

// appender brings records to the log, one append after the other.
type appender struct {
	s      *Server
	writer uint64

	mu      sync.Mutex
	queue   lines
	counter uint64
	running bool
}

// put queues items and returns those for which there is no room.
func (a *appender) put(items []item) (rest []item) {
	if len(items) == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.s.ctx.Err() != nil {
		return items
	}
	for i := range items {
		size := items[i].size()
		items[i].record.ID = eventstore.RecordID{Writer: a.writer, Counter: a.counter + 1}
		queued := a.s.queued.Add(size)
		if queued > maxQueued || !a.queue.put(items[i]) {
			a.s.queued.Add(-size)
			rest = items[i:]
			break
		}
		if a.counter++; queued > maxQueued/2 {
			a.s.full.Store(true)
		}
	}
	if !a.running && !a.queue.empty() {
		a.running = true
		a.s.goes(a.run)
	}
	return rest
}

// run appends until nothing is queued.
func (a *appender) run() {
	for {
		late, batch := a.next()
		if len(late) > 0 {
			a.s.m.failed.Add(int64(len(late)))
			a.answer(late, func(int) amqp.Raw { return amqp.StateReleased })
		}
		if len(batch) == 0 {
			return
		}
		a.append(batch)
	}
}

// next takes as much as one append may have, none when nothing waits, and what has waited for too long.
func (a *appender) next() (late, batch []item) {
	oldest := a.s.o.Now().Add(-appendTime)
	a.mu.Lock()
	defer a.mu.Unlock()
	if late, batch = a.queue.next(oldest); len(batch) == 0 {
		a.running = false
	}
	return late, batch
}

// answer tells the senders of items what became of them, and that there is room.
func (a *appender) answer(items []item, state func(i int) amqp.Raw) {
	s := a.s
	answers := make([]forward.Answered, len(items))
	freed := int64(0)
	for i := range items {
		answers[i] = forward.Answered{Deposit: items[i].deposit, State: state(i)}
		freed += items[i].size()
	}
	s.o.Router.Answer(answers)
	if left := s.queued.Add(-freed); left < maxQueued/4 && s.full.CompareAndSwap(true, false) {
		s.o.Router.Resume()
	}
}

// append stores a batch, tells the senders, and hands what is live to its tenant.
func (a *appender) append(batch []item) {
	parts := maxParts
	a.store(batch, &parts)
}

// store does so with a part of a batch; of one that is refused as a whole parts are tried, as many as
// parts says.
func (a *appender) store(batch []item, parts *int) {
	s := a.s
	began := time.Now()
	records := make([]eventstore.Record, len(batch))
	for i := range batch {
		records[i] = batch[i].record
	}
	result, err := a.call(records, appendTime-s.o.Now().Sub(batch[0].since))
	s.m.appends.Add(1)
	s.m.appendTime.Add(int64(time.Since(began)))
	if err == nil && len(result.Results) != len(records) {
		err = iot.Errorf(iot.ErrUnavailable, "%d results for %d records", len(result.Results), len(records))
	}
	switch {
	case err == nil:
		s.say(nil)
	case refusal(err):
		a.refused(batch, err, parts)
		return
	default:
		s.say(err)
		s.m.failed.Add(int64(len(batch)))
		state := stateOf(err)
		a.answer(batch, func(int) amqp.Raw { return state })
		return
	}
	a.answer(batch, func(i int) amqp.Raw { return a.outcome(&result.Results[i]) })
	s.stored(records, result)
}

// call appends, with repetitions for a while: the same records, so that nothing is stored twice.
func (a *appender) call(records []eventstore.Record, patience time.Duration) (*eventstore.AppendResult, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(a.s.ctx, appendTime)
	defer cancel()
	for wait := appendRetry; ; wait = min(2*wait, maxAppendRetry) {
		result, err := a.s.o.Log.Append(ctx, eventstore.AppendRequest{Records: records, Holder: a.s.holder})
		if err == nil || !errors.Is(err, iot.ErrUnavailable) && !errors.Is(err, iot.ErrTimeout) {
			return result, err
		}
		if time.Since(began)+wait > patience {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(wait):
		}
	}
}

// outcome is what the sender of a record hears.
func (a *appender) outcome(r *eventstore.Appended) amqp.Raw {
	switch {
	case r.Status == 200:
		a.s.m.accepted.Add(1)
		return amqp.StateAccepted
	case r.Status == 429:
		a.s.m.overQuota.Add(1)
		return amqp.AppendRejected(nil, &amqp.Error{Condition: amqp.CondResourceLimitExceeded, Description: r.Error})
	case r.Status == 413:
		a.s.m.refused.Add(1)
		return amqp.AppendRejected(nil, &amqp.Error{Condition: amqp.CondMessageSizeExceeded, Description: r.Error})
	case r.Status >= 500:
		a.s.m.failed.Add(1)
		return amqp.StateReleased
	}
	a.s.m.refused.Add(1)
	return amqp.AppendRejected(nil, &amqp.Error{Condition: amqp.CondInvalidField, Description: r.Error})
}

// stateOf is the outcome of records of which it is not known whether they are stored: that
// they may be sent again.
func stateOf(err error) amqp.Raw {
	if errors.Is(err, iot.ErrUnavailable) || errors.Is(err, iot.ErrTimeout) || errors.Is(err, context.Canceled) {
		return amqp.StateReleased
	}
	return amqp.AppendRejected(nil, &amqp.Error{Condition: amqp.CondInternalError, Description: err.Error()})
}

// stored tells holders of what was stored: this process, from memory, and others.
func (s *Server) stored(records []eventstore.Record, result *eventstore.AppendResult) {
	var t *tenant
	offered := map[*tenant]struct{}{}
	for i := range records {
		r, x := &records[i], &result.Results[i]
		if x.Status != 200 || x.Position == 0 {
			continue
		}
		if t == nil || t.name != r.Tenant {
			t = s.existing(r.Tenant)
		}
		if t == nil {
			continue
		}
		r.Position = x.Position
		if t.appended(x.Partition, r, x.Live) {
			offered[t] = struct{}{}
		}
	}
	for t := range offered {
		t.offer()
	}
	for _, h := range result.Holders {
		if h.Ingress != "" {
			s.tell(h)
			continue
		}
		if t := s.existing(h.Tenant); t != nil {
			t.freed()
		}
		s.tellAppended(h)
	}
}
