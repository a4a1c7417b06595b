package eventstore

import (
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
)

// maxReason bounds the reason of a dead letter.
const maxReason = 500

// settling applies settlements to a partition.
type settling struct {
	fence       uint64
	settlements []Settlement
	most        uint16 // failed deliveries before an event is given up; 0 = never
	now         int64
	// records are those that may become dead letters, encoded, by position; ones that are
	// missing have expired unless lacks is told of them.
	records map[uint64][]byte
	known   map[uint64]bool

	// What the last apply found.
	lacks []Span // records that are needed and not known
	dead  []DeadLetter
	bytes int  // of the dead letters
	more  bool // not all found room: the same settlements are to be applied again
}

func (s *settling) apply(p *Partition, w *Writes) error {
	s.lacks, s.dead, s.bytes, s.more = nil, nil, 0, false
	if err := p.fenced(s.fence); err != nil {
		return err
	}
	changed := false
	for i := range s.settlements {
		x := &s.settlements[i]
		for _, r := range p.delivered(Span{x.From, x.To}, x.Attempt) {
			changed = true
			s.settle(p, w, x, r)
		}
	}
	if len(s.lacks) > 0 {
		return errLacks
	}
	p.Seen, w.Unchanged = s.now, !changed
	return nil
}

var errLacks = iot.Errorf(iot.ErrUnavailable, "records of dead letters are not at hand")

// settle settles a run of positions that were delivered with one attempt.
func (s *settling) settle(p *Partition, w *Writes, x *Settlement, r Run) {
	span := Span{r.From, r.To}
	failed := r.Failed
	if x.DeliveryFailed {
		failed++
	}
	switch {
	case x.Outcome == Accepted:
		p.finish(span)
	case x.Outcome == Rejected || s.most > 0 && failed >= s.most:
		s.bury(p, w, x, r)
	default:
		p.Runs = cutRuns(p.Runs, span)
		r.Attempt, r.Failed, r.Next, r.Out = min(r.Attempt, 1<<16-2)+1, failed, s.now, false
		if !x.AtOnce {
			r.Next += backoff(r.Attempt)
		}
		p.Runs = addRun(p.Runs, r)
	}
}

// bury makes dead letters, as many as one change may have.
func (s *settling) bury(p *Partition, w *Writes, x *Settlement, r Run) {
	reason := x.Reason
	switch {
	case reason == "" && x.Outcome == Rejected:
		reason = "rejected"
	case reason == "":
		reason = "delivered too often without success"
	}
	for at := r.From; at <= r.To; at++ {
		if len(s.dead)+s.lacking() >= MaxChangeDead || s.bytes >= MaxBatchBytes {
			s.more = true
			p.finish(Span{r.From, at - 1})
			return
		}
		if !s.known[at] {
			s.lacks = cover(s.lacks, Span{at, at})
			continue
		}
		record, there := s.records[at]
		if !there {
			continue // expired meanwhile
		}
		expires := (&DeadLetter{Record: record}).expires()
		if expires != 0 && expires <= s.now {
			continue // just now
		}
		letter := DeadLetter{Position: at, At: s.now, Attempts: min(r.Attempt, 1<<16-2) + 1, Reason: cut(reason), Record: record}
		w.Dead, s.dead, s.bytes = append(w.Dead, letter), append(s.dead, letter), s.bytes+len(record)
		p.buried(len(record), expires)
	}
	p.finish(Span{r.From, r.To})
}

// lacking counts the records that are needed and not known.
func (s *settling) lacking() (n int) {
	for _, span := range s.lacks {
		n += int(span.To - span.From + 1)
	}
	return n
}

func cut(reason string) string {
	if len(reason) <= maxReason {
		return reason
	}
	for n := maxReason; ; n-- {
		if reason[n]&0xc0 != 0x80 { // not in the middle of a character
			return reason[:n]
		}
	}
}

// delivered returns what of a span was delivered with the attempt and is not settled.
func (p *Partition) delivered(s Span, attempt uint16) []Run {
	var out []Run
	for _, r := range p.Runs {
		if r.To >= s.From && r.From <= s.To && r.Attempt == attempt {
			r.From, r.To = max(r.From, s.From), min(r.To, s.To)
			out = append(out, r)
		}
	}
	if attempt == 0 {
		s.To = min(s.To, p.Mark-1)
		p.plain(s, func(f Span) { out = append(out, Run{From: f.From, To: f.To}) })
		slices.SortFunc(out, func(a, b Run) int { return int(a.From) - int(b.From) })
	}
	return out
}

// Check refuses settlements that say nothing: iot.ErrInvalid.
func (x *Settlement) Check() error {
	switch x.Outcome {
	case Accepted, Rejected, Released, Modified:
	default:
		return iot.Errorf(iot.ErrInvalid, "outcome is %.40q, want accepted, rejected, released or modified", x.Outcome)
	}
	if x.From == 0 || x.From > x.To {
		return iot.Errorf(iot.ErrInvalid, "a settlement of positions %d to %d", x.From, x.To)
	}
	return nil
}
