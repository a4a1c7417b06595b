package eventstore

import (
	"slices"
	"time"
)

// appender puts the records of one append into one partition. It is used again
// when the change is applied again.
type appender struct {
	key     Key
	records []*Record // in order
	results []*Appended
	holder  string
	now     int64 // Unix ms

	// What the last apply found.
	fresh    []*Record
	repeated []int   // of records: stored before, by an append whose answer was lost
	held     Holding // by another, or by nobody; End 0 = there is nobody to be told
}

func (a *appender) apply(p *Partition, w *Writes) error {
	a.fresh, a.repeated, a.held = a.fresh[:0], a.repeated[:0], Holding{}
	tell := p.tellOf(a)
	for i, r := range a.records {
		if p.admit(r.ID, p.End+uint64(len(a.fresh))) {
			a.fresh = append(a.fresh, r)
		} else {
			a.repeated = append(a.repeated, i)
		}
	}
	// Whoever lost an answer has not delivered what it brought.
	live := a.holder != "" && p.Holder == a.holder && p.Mark == p.End && len(a.repeated) == 0 && !p.full()
	p.store(a.fresh, a.now, w)
	for i, r := range a.records {
		a.results[i].Live, a.results[i].Position = live, r.Position
	}
	for _, i := range a.repeated {
		a.results[i].Position = 0
	}
	if w.Unchanged = len(w.Batches) == 0; !w.Unchanged && live {
		p.Mark, p.Seen = p.End, a.now
	}
	if tell {
		a.held.End = p.End
	}
	return nil
}

// tellOf notes who is to be told of what is appended, and reports whether anybody is: the holder
// where there is another one, and where nobody holds the partition whoever waits, now and then.
func (p *Partition) tellOf(a *appender) bool {
	if p.Holder != "" {
		a.held.Ingress = p.Ingress
		return p.Holder != a.holder && p.Ingress != ""
	}
	if p.Seen+tellAll > a.now && p.Seen <= a.now {
		return false
	}
	p.Seen = a.now
	return true
}

// tellAll is how often, in ms, everybody is told of a partition that nobody holds: whoever could take it
// and was told does so, or knows when to ask again.
const tellAll = 1000

// store puts records at the end, in batches of which none is too large for a backend.
func (p *Partition) store(records []*Record, now int64, w *Writes) {
	for len(records) > 0 {
		b := Batch{First: p.End, At: now}
		n, size := 0, 0
		for n < len(records) && (n == 0 || size+records[n].Size() <= MaxBatchBody) {
			size += records[n].Size()
			n++
		}
		b.Body = make([]byte, 0, size)
		never := false
		for _, r := range records[:n] {
			r.Position = p.End
			p.End++
			b.Body = r.Append(b.Body)
			never = never || r.Expires == 0
			b.Expires = max(b.Expires, r.Expires)
		}
		if never {
			b.Expires = 0
		}
		b.Last = p.End - 1
		if p.Head == 0 {
			p.Head = b.Last
		}
		p.Bytes += int64(size)
		w.Batches = append(w.Batches, b)
		records = records[n:]
	}
}

// admit notes that a writer's record is about to be stored, and reports false when it is stored
// already: a writer's counters come in order.
func (p *Partition) admit(id RecordID, position uint64) bool {
	i := slices.IndexFunc(p.Writers, func(w Writer) bool { return w.ID == id.Writer })
	switch {
	case i < 0:
		if len(p.Writers) >= maxWriters {
			p.Writers = slices.Delete(p.Writers, 0, 1)
		}
		p.Writers = append(p.Writers, Writer{id.Writer, id.Counter, position})
		return true
	case id.Counter <= p.Writers[i].Counter:
		return false
	}
	w := Writer{id.Writer, id.Counter, position}
	if i < len(p.Writers)-1 {
		p.Writers = append(slices.Delete(p.Writers, i, i+1), w)
	} else {
		p.Writers[i] = w
	}
	return true
}

// expiry is when an event is to be forgotten: its own time, or the log's longest.
func expiry(own int64, longest time.Duration, now int64) int64 {
	if longest <= 0 {
		return own
	}
	last := now + longest.Milliseconds()
	if own == 0 || own > last {
		return last
	}
	return own
}
