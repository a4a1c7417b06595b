package eventstore

import (
	"cmp"
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// DefaultClaim is how long a claim lasts, in ms.
	DefaultClaim = 10_000
	maxClaim     = 300_000
	// present is how long, in ms, a holder that needs nothing counts as one that waits:
	// it asks every 5 minutes.
	present = 330_000
)

var errFence = iot.Errorf(iot.ErrExists, "the partition is held under a later fence")

// fenced refuses whoever holds the partition no longer.
func (p *Partition) fenced(fence uint64) error {
	if p.Holder == "" || p.Fence != fence {
		return errFence
	}
	return nil
}

// free reports whether the partition may be claimed by another: nobody has it, or its
// holder was not heard of in time and left something undone. A holder
// that has nothing to do need not renew, and keeps it.
func (p *Partition) free(now int64) bool {
	return p.Holder == "" || p.Until < now && (p.Cursor < p.End || p.Seen+present < now)
}

// take makes the partition the holder's. What the one before left unsettled comes
// again, at once.
func (p *Partition) take(holder, ingress string, until, now int64) {
	if p.Holder != "" {
		p.giveBack(p.Mark, true, now)
	}
	p.Fence++
	p.Holder, p.Ingress, p.Until, p.Seen, p.Wanted = holder, ingress, until, now, ""
}

// giveBack makes what is not settled due: what was read below undelivered counts
// as delivered, the rest comes as if for the first time.
func (p *Partition) giveBack(undelivered uint64, failed bool, now int64) {
	var out []Run
	p.plain(Span{p.Cursor, p.Mark - 1}, func(s Span) {
		if s.From < undelivered {
			r := Run{From: s.From, To: min(s.To, undelivered-1), Attempt: 1, Next: now}
			if failed {
				r.Failed = 1
			}
			out = append(out, r)
		}
		if s.To >= undelivered {
			out = append(out, Run{From: max(s.From, undelivered), To: s.To, Next: now})
		}
	})
	for i := range p.Runs {
		p.Runs[i].Next = now
	}
	for _, r := range out {
		p.Runs = addRun(p.Runs, r)
	}
}

// shares decides what a holder of a tenant gets.
type shares struct {
	holder string
	now    int64
	states []Stored // every partition of the tenant
	asked  []PartitionID
}

// decide returns what to take and what to ask others for. With other holders
// about, everybody gets an equal share, rounded up for whoever is first.
func (s *shares) decide() (take, want []PartitionID) {
	counts := map[string]int{s.holder: 0}
	for i := range s.states {
		p := &s.states[i].State
		if p.Holder == s.holder || p.Holder != "" && !p.free(s.now) {
			counts[p.Holder]++
		}
	}
	total, holders := len(s.states), len(counts)
	most, least := (total+holders-1)/holders, total/holders
	mine := counts[s.holder]
	for i := range s.states {
		p := &s.states[i].State
		if mine < most && p.Holder != s.holder && p.free(s.now) && s.wants(s.states[i].ID) {
			take, mine = append(take, s.states[i].ID), mine+1
		}
	}
	for mine < least {
		i := s.victim(counts, least)
		if i < 0 {
			break
		}
		p := &s.states[i].State
		want, mine = append(want, s.states[i].ID), mine+1
		counts[p.Holder]--
		p.Wanted = s.holder // of the copy
	}
	return take, want
}

func (s *shares) wants(id PartitionID) bool {
	return len(s.asked) == 0 || slices.Contains(s.asked, id)
}

// victim is a partition of whoever has most, of those that nobody waits for.
func (s *shares) victim(counts map[string]int, least int) int {
	best := -1
	for i := range s.states {
		p := &s.states[i].State
		if p.Holder == "" || p.Holder == s.holder || p.Wanted != "" || counts[p.Holder] <= least || !s.wants(s.states[i].ID) {
			continue
		}
		if best < 0 || cmp.Compare(counts[p.Holder], counts[s.states[best].State.Holder]) > 0 {
			best = i
		}
	}
	return best
}

// retry is when the next event before Mark is due; 0 = none is.
func (p *Partition) retry() int64 {
	next := int64(0)
	for i := range p.Runs {
		if next == 0 || p.Runs[i].Next < next {
			next = p.Runs[i].Next
		}
	}
	return next
}
