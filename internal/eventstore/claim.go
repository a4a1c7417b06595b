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
	// reserve is how long, in ms, what was released for a holder that waits is kept for it: it
	// asks every claim-ms.
	reserve = 20_000
	// wantAge is how long, in ms, one that asked for a partition with events counts as one that waits, and
	// wantAgain after what time it is noted once more that it does.
	wantAge   = 3 * DefaultClaim
	wantAgain = DefaultClaim
)

var errFence = iot.Errorf(iot.ErrExists, "the partition is held under a later fence")

// fenced refuses whoever holds the partition no longer.
func (p *Partition) fenced(fence uint64) error {
	if p.Holder == "" || p.Fence != fence {
		return errFence
	}
	return nil
}

// free reports whether a holder may claim the partition of another: nobody has it and it is
// not kept for somebody else, or its holder was not heard of in time and left something undone. A
// holder that has nothing to do need not renew, and keeps it.
func (p *Partition) free(holder string, now int64) bool {
	if p.Holder == "" {
		return p.Wanted == "" || p.Wanted == holder || p.Until < now
	}
	return p.Until < now && (p.Cursor < p.End || p.Seen+present < now)
}

// release gives a claim back, to whoever waits for it.
func (p *Partition) release(now int64) {
	if !p.wanted(now) {
		p.Wanted = ""
	}
	if p.Holder, p.Ingress, p.Until, p.Seen, p.WantedAt = "", "", 0, 0, 0; p.Wanted != "" {
		p.Until = now + reserve
	}
}

// forgo has nobody wait for the partition, nor keeps it for somebody.
func (p *Partition) forgo() {
	if p.Wanted, p.WantedAt = "", 0; p.Holder == "" {
		p.Until = 0
	}
}

// take makes the partition the holder's. What the one before left unsettled comes
// again, at once.
func (p *Partition) take(holder, ingress string, until, now int64) {
	if p.Holder != "" {
		p.giveBack(p.Mark, true, now)
	}
	p.Fence++
	p.Holder, p.Ingress, p.Until, p.Seen = holder, ingress, until, now
	p.Wanted, p.WantedAt = "", 0
}

// giveBack makes what is not settled due: what was read below undelivered counts
// as delivered, the rest is read as if for the first time.
func (p *Partition) giveBack(undelivered uint64, failed bool, now int64) {
	p.Mark = max(p.Cursor, min(p.Mark, undelivered))
	again := func(r Run) Run {
		if r.Next = now; r.Out {
			r.Out, r.Attempt = false, min(r.Attempt, 1<<16-2)+1
			if failed {
				r.Failed = min(r.Failed, 1<<16-2) + 1
			}
		}
		return r
	}
	var out []Run
	for _, r := range p.Runs {
		out = addRun(out, again(r))
	}
	p.plain(Span{p.Cursor, p.Mark - 1}, func(s Span) {
		out = addRun(out, again(Run{From: s.From, To: s.To, Out: true}))
	})
	p.Runs = out
}

// shares decides what a holder of a tenant gets.
type shares struct {
	holder string
	now    int64
	states []Stored // every partition of the tenant
	asked  []PartitionID
}

// decision is what a holder does with partitions that it does not hold.
type decision struct {
	take []PartitionID
	want []PartitionID // to be asked of others, or once more
	drop []PartitionID // was asked of others, and is too much
}

// decide returns what to take and what to ask others for. With other holders
// about, everybody gets an equal share, rounded up for whoever is first. What is on its way to somebody
// counts for that one, so that whoever waits does not ask for more.
func (s *shares) decide() (d decision) {
	counts := map[string]int{s.holder: 0}
	for i := range s.states {
		p := &s.states[i].State
		if p.Holder != "" && (p.Holder == s.holder || !p.free(s.holder, s.now)) {
			counts[p.Holder] += 0
		}
		if owner := s.owner(p); owner != "" {
			counts[owner]++
		}
	}
	total, holders := len(s.states), len(counts)
	most, least := (total+holders-1)/holders, total/holders
	mine := counts[s.holder]
	for i := range s.states {
		p, id := &s.states[i].State, s.states[i].ID
		if p.Holder == s.holder || !p.free(s.holder, s.now) || !s.wants(id) {
			continue
		}
		// What was kept for somebody in vain, or is left by one whose claim has ended, with
		// something in it, is for whoever asks: what a holder that has died has without events
		// still counts as its share for a while.
		left := p.Cursor < p.End && (p.Holder != "" || p.Wanted != "")
		switch {
		case s.owner(p) == s.holder:
			d.take = append(d.take, id)
		case mine < most || left:
			d.take, mine = append(d.take, id), mine+1
		}
	}
	for i := range s.states {
		p, id := &s.states[i].State, s.states[i].ID
		switch {
		case p.Holder == "" || p.Holder == s.holder || s.owner(p) != s.holder:
		case mine > most:
			d.drop, mine = append(d.drop, id), mine-1
		case p.WantedAt+wantAgain <= s.now:
			d.want = append(d.want, id)
		}
	}
	for mine < least {
		i := s.victim(counts, least)
		if i < 0 {
			break
		}
		p := &s.states[i].State
		d.want, mine = append(d.want, s.states[i].ID), mine+1
		counts[p.Holder]--
		p.Wanted, p.WantedAt = s.holder, s.now // of the copy
	}
	return d
}

// owner is whose share a partition belongs to: its holder's where that is who asks, else
// that of whoever waits for it, else its holder's; "" = it is free.
func (s *shares) owner(p *Partition) string {
	switch {
	case p.Holder == s.holder || p.Holder == "" && p.Wanted == s.holder:
		return s.holder
	case p.free(s.holder, s.now):
		return ""
	case p.Holder == "" || p.wanted(s.now):
		return p.Wanted
	}
	return p.Holder
}

func (s *shares) wants(id PartitionID) bool {
	return len(s.asked) == 0 || slices.Contains(s.asked, id)
}

// victim is a partition of whoever has most, of those that nobody waits for.
func (s *shares) victim(counts map[string]int, least int) int {
	best := -1
	for i := range s.states {
		p := &s.states[i].State
		owner := s.owner(p)
		if p.Holder == "" || owner == s.holder || owner != p.Holder || counts[owner] <= least || !s.wants(s.states[i].ID) {
			continue
		}
		if best < 0 || cmp.Compare(counts[owner], counts[s.states[best].State.Holder]) > 0 {
			best = i
		}
	}
	return best
}

// wanted reports whether another waits for the partition of a holder, and was heard of lately: it asks
// about as often as its own claims end while there is something in it, and seldom else.
func (p *Partition) wanted(now int64) bool {
	age := int64(wantAge)
	if p.Cursor == p.End {
		age = present
	}
	return p.Wanted != "" && p.Wanted != p.Holder && p.WantedAt+age >= now
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
