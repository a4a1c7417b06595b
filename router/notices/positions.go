package notices

import (
	"container/list"
	"slices"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// maxSpans bounds what is kept about one tenant. One beyond the first is a
// fact that came before others.
const maxSpans = 64

// span is a run of sequence numbers that were seen, both ends included.
type span struct{ from, to uint64 }

// position is what was seen of one tenant: spans in order, with at least one
// number missing between two of them. What lies before the first is not
// known to have been missed: it may be older than this process.
type position struct {
	tenant iot.TenantID
	spans  []span
	gap    time.Time // since when a number is missing; zero = none is
}

// positions knows them for the tenants whose facts came last.
type positions struct {
	max   int
	m     map[iot.TenantID]*list.Element
	order *list.List // of *position, the one used last in front
	gaps  map[iot.TenantID]*position
}

func newPositions(limit int) *positions {
	return &positions{max: limit, m: map[iot.TenantID]*list.Element{}, order: list.New(), gaps: map[iot.TenantID]*position{}}
}

// seen reports whether a fact was there before.
func (p *positions) seen(tenant iot.TenantID, sequence uint64) bool {
	e := p.m[tenant]
	if e == nil {
		return false
	}
	spans := e.Value.(*position).spans
	i, _ := slices.BinarySearchFunc(spans, sequence, func(s span, n uint64) int {
		if s.to < n {
			return -1
		}
		return 1
	})
	return i < len(spans) && spans[i].from <= sequence
}

// add notes a fact.
func (p *positions) add(tenant iot.TenantID, sequence uint64, now time.Time) {
	p.cover(tenant, span{sequence, sequence}, now)
}

// settle is told that the feed was read: it has nothing of a tenant beyond top. What
// is missing up to there will not come any more, and what was seen up to asked,
// but is not in the feed, did not happen: nobody must be able to hide changes that
// are to come.
func (p *positions) settle(tenant iot.TenantID, top, asked uint64, now time.Time) {
	e := p.m[tenant]
	if e == nil {
		return
	}
	x := e.Value.(*position)
	if first := x.spans[0]; top > first.to {
		x.cover(span{first.from, top})
	}
	x.spans = slices.DeleteFunc(x.spans, func(s span) bool { return s.from > top && s.to <= asked })
	if len(x.spans) == 0 {
		p.forget(e)
		return
	}
	x.gap = time.Time{} // what is missing behind what was asked for has its own time to come
	p.regap(x, now)
}

func (p *positions) cover(tenant iot.TenantID, s span, now time.Time) {
	e := p.m[tenant]
	if e == nil {
		e = p.order.PushFront(&position{tenant: tenant})
		p.m[tenant] = e
		p.evict()
	} else {
		p.order.MoveToFront(e)
	}
	x := e.Value.(*position)
	x.cover(s)
	p.regap(x, now)
}

// regap notes whether a number is missing now.
func (p *positions) regap(x *position, now time.Time) {
	switch {
	case len(x.spans) == 1:
		x.gap = time.Time{}
		delete(p.gaps, x.tenant)
	case x.gap.IsZero():
		x.gap = now
		p.gaps[x.tenant] = x
	}
}

// cover adds a span and joins it with those that it touches.
func (x *position) cover(s span) {
	i := 0
	for i < len(x.spans) && x.spans[i].to+1 < s.from {
		i++
	}
	j := i
	for j < len(x.spans) && x.spans[j].from <= s.to+1 {
		s.from, s.to = min(s.from, x.spans[j].from), max(s.to, x.spans[j].to)
		j++
	}
	x.spans = slices.Replace(x.spans, i, j, s)
	if len(x.spans) > maxSpans {
		// Seen, and now forgotten: it will come again from the feed.
		x.spans = slices.Delete(x.spans, 1, 2)
	}
}

// evict forgets the tenants of which nothing was heard for longest.
func (p *positions) evict() {
	for len(p.m) > p.max {
		p.forget(p.order.Back())
	}
}

func (p *positions) forget(e *list.Element) {
	x := p.order.Remove(e).(*position)
	delete(p.m, x.tenant)
	delete(p.gaps, x.tenant)
}

// due returns up to limit tenants that have had a gap for so long, each with the
// last number before it and the last that was seen at all, and when the next one
// will be due; zero = none.
func (p *positions) due(now time.Time, wait time.Duration, limit int) (due map[iot.TenantID]span, next time.Time) {
	for tenant, x := range p.gaps {
		at := x.gap.Add(wait)
		switch {
		case !at.After(now) && len(due) < limit:
			if due == nil {
				due = map[iot.TenantID]span{}
			}
			due[tenant] = span{x.spans[0].to, x.spans[len(x.spans)-1].to}
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	return due, next
}
