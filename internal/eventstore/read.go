package eventstore

import "slices"

const (
	// lease is how long, in ms, an event that was read again is not read once more: its
	// holder has it, or has lost the answer.
	lease = 60_000

	firstRetry = 500    // ms, until a released event is delivered again
	lastRetry  = 60_000 // the longest such wait
)

// reading is what one read found: the change of the state that it makes.
type reading struct {
	fence uint64
	now   int64
	again []Span // were due, and are handed out
	gone  []Span // have expired
	next  uint64 // what was never read begins here now

	expired int64 // what the last apply found: of gone, those that were not done
}

func (r *reading) apply(p *Partition, w *Writes) error {
	if err := p.fenced(r.fence); err != nil {
		return err
	}
	changed, before := false, p.Waiting()
	for _, s := range r.gone {
		p.finish(s)
		changed = true
	}
	r.expired = before - p.Waiting()
	for _, s := range r.again {
		p.lease(s, r.now)
		changed = true
	}
	if r.next > p.Mark {
		p.Mark, changed = min(r.next, p.End), true
	}
	p.Seen, w.Unchanged = r.now, !changed
	return nil
}

// lease hands out what was due.
func (p *Partition) lease(s Span, now int64) {
	for _, r := range slices.Clone(p.Runs) {
		if r.To < s.From || r.From > s.To || r.Next > now {
			continue
		}
		r.From, r.To, r.Next, r.Out = max(r.From, s.From), min(r.To, s.To), now+lease, true
		p.Runs = addRun(cutRuns(p.Runs, Span{r.From, r.To}), r)
	}
}

// due returns the runs to be delivered again now, up to max positions together.
func (p *Partition) due(now int64, max int) []Run {
	var out []Run
	left := uint64(max)
	for _, r := range p.Runs {
		if left == 0 {
			break
		}
		if r.Next > now {
			continue
		}
		r.To = min(r.To, r.From+left-1)
		left -= r.To - r.From + 1
		out = append(out, r)
	}
	return out
}

// fresh reports whether a position is to be read as
// one that never was read: it is neither done nor in a run.
func (p *Partition) fresh(position uint64) bool {
	fresh := false
	p.plain(Span{position, position}, func(Span) { fresh = true })
	return fresh
}

// full reports whether nothing new is to be read before more is settled.
func (p *Partition) full() bool { return len(p.Runs) >= maxRuns || len(p.Done) >= maxDone }

// backoff is how long, in ms, an event rests after so many deliveries.
func backoff(attempts uint16) int64 {
	if attempts == 0 {
		return 0
	}
	return min(int64(firstRetry)<<min(attempts-1, 10), lastRetry)
}
