package eventstore

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Partitions is how many partitions the first generation of a tenant has.
const Partitions = 8

// PartitionID is the generation of a partition and its number in it. A later
// generation is drained after the ones before it. As text "0-5".
type PartitionID struct {
	Generation uint16
	Number     uint16
}

// PartitionOf returns the partition of a device: FNV-1a of its id.
func PartitionOf(device iot.DeviceID) PartitionID {
	h := fnv.New32a()
	h.Write([]byte(device))
	return PartitionID{Number: uint16(h.Sum32() % Partitions)}
}

// FirstGeneration lists the partitions that every tenant has.
func FirstGeneration() []PartitionID {
	ids := make([]PartitionID, Partitions)
	for n := range ids {
		ids[n].Number = uint16(n)
	}
	return ids
}

// String implements [fmt.Stringer].
func (id PartitionID) String() string { return fmt.Sprintf("%d-%d", id.Generation, id.Number) }

// MarshalText implements [encoding.TextMarshaler].
func (id PartitionID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]; errors wrap iot.ErrInvalid.
func (id *PartitionID) UnmarshalText(b []byte) error {
	g, n, ok := strings.Cut(string(b), "-")
	generation, err := strconv.ParseUint(g, 10, 16)
	number, err2 := strconv.ParseUint(n, 10, 16)
	if !ok || err != nil || err2 != nil {
		return iot.Errorf(iot.ErrInvalid, "partition is %.40q, want generation and number such as 0-5", b)
	}
	*id = PartitionID{uint16(generation), uint16(number)}
	return nil
}

// Compare orders by generation, then by number.
func (id PartitionID) Compare(other PartitionID) int {
	if c := int(id.Generation) - int(other.Generation); c != 0 {
		return c
	}
	return int(id.Number) - int(other.Number)
}

// Key names a partition of a tenant.
type Key struct {
	Tenant    iot.TenantID
	Partition PartitionID
}

// Compare orders keys, so that whoever locks several does it in one order.
func (k Key) Compare(other Key) int {
	if c := strings.Compare(string(k.Tenant), string(other.Tenant)); c != 0 {
		return c
	}
	return k.Partition.Compare(other.Partition)
}

// Bounds of a partition's state. While a list is full nothing new is read, so
// that it only becomes shorter.
const (
	maxRuns    = 4096
	maxDone    = 4096
	maxWriters = 64
)

// Partition is what is known of a partition beside its batches. Times are Unix
// ms. A position from Cursor to End is done, or in one run, or plain; a plain one
// below Mark may have been delivered, one from Mark on never was.
//
// A backend keeps it as JSON and reads nothing in it but what [Store] says.
type Partition struct {
	Cursor uint64 `json:"c"` // everything below is done
	Mark   uint64 `json:"m"` // nothing plain from here on was delivered
	End    uint64 `json:"e"` // the next position to be given; the first is 1

	Done Spans `json:"d,omitempty"` // above Cursor, ascending, not touching
	Runs Runs  `json:"r,omitempty"` // ascending, not overlapping

	Fence    uint64 `json:"f,omitempty"`
	Holder   string `json:"h,omitempty"`  // "" = nobody
	Ingress  string `json:"i,omitempty"`  // of the holder
	Until    int64  `json:"u,omitempty"`  // the claim may be taken afterwards; without a holder: kept until then for Wanted
	Wanted   string `json:"w,omitempty"`  // another holder that waits for it
	WantedAt int64  `json:"wa,omitempty"` // when that one last asked
	Seen     int64  `json:"us,omitempty"` // when the holder was last heard of; without one: when everybody was last told of an append

	Writers []Writer `json:"w8,omitempty"` // the one that appended last is last

	Head      uint64 `json:"hd,omitempty"` // the last position of the first batch; 0 = there is none
	Bytes     int64  `json:"b,omitempty"`  // of all batches
	Dead      int64  `json:"dl,omitempty"` // dead letters
	DeadBytes int64  `json:"db,omitempty"` // their records
	DeadNext  int64  `json:"dx,omitempty"` // none of them expires earlier; 0 = none expires
	Swept     uint64 `json:"sw,omitempty"` // how often some of them were removed
}

// NewPartition is the state of a partition that nobody has touched.
func NewPartition() Partition { return Partition{Cursor: 1, Mark: 1, End: 1} }

// Span is a run of positions, both ends included.
type Span struct {
	From uint64 `json:"a"`
	To   uint64 `json:"z"`
}

// Run is a run of positions that were delivered at least once and are not done.
type Run struct {
	From    uint64 `json:"a"`
	To      uint64 `json:"z"`
	Attempt uint16 `json:"n"`           // deliveries before the next one
	Failed  uint16 `json:"x,omitempty"` // those of them that failed
	Next    int64  `json:"t"`           // not before
	Out     bool   `json:"o,omitempty"` // handed out once more, and not settled
}

// Writer is the highest counter of a writer that is stored here.
type Writer struct {
	ID       uint64 `json:"w"`
	Counter  uint64 `json:"c"`
	Position uint64 `json:"p"` // of that record
}

// Waiting is how many events are neither done nor known to have expired.
func (p *Partition) Waiting() int64 {
	n := int64(p.End - p.Cursor)
	for _, d := range p.Done {
		n -= int64(d.To - d.From + 1)
	}
	return n
}

// InFlight is how many of them may be with a consumer, or wait to be delivered again.
func (p *Partition) InFlight() int64 {
	n := int64(p.Mark - p.Cursor)
	for _, d := range p.Done {
		if d.From < p.Mark {
			n -= int64(min(d.To, p.Mark-1) - d.From + 1)
		}
	}
	return n
}

// finish makes positions done, whatever they were before.
func (p *Partition) finish(s Span) {
	s.From, s.To = max(s.From, p.Cursor), min(s.To, p.End-1)
	if s.From > s.To {
		return
	}
	p.Runs = cutRuns(p.Runs, s)
	p.Done = cover(p.Done, s)
	if first := p.Done[0]; first.From <= p.Cursor {
		p.Cursor = first.To + 1
		p.Done = p.Done[1:]
	}
	p.Mark = max(p.Mark, p.Cursor)
}

// cover adds a span to a list and joins it with those that it touches.
func cover(list []Span, s Span) []Span {
	i := 0
	for i < len(list) && list[i].To+1 < s.From {
		i++
	}
	j := i
	for j < len(list) && list[j].From <= s.To+1 {
		s.From, s.To = min(s.From, list[j].From), max(s.To, list[j].To)
		j++
	}
	return slices.Replace(list, i, j, s)
}

// cutRuns takes a span out of runs.
func cutRuns(runs []Run, s Span) []Run {
	var out []Run
	for i, r := range runs {
		if r.To < s.From || r.From > s.To {
			if out != nil {
				out = append(out, r)
			}
			continue
		}
		if out == nil {
			out = append(make([]Run, 0, len(runs)+1), runs[:i]...)
		}
		if r.From < s.From {
			before := r
			before.To = s.From - 1
			out = append(out, before)
		}
		if r.To > s.To {
			after := r
			after.From = s.To + 1
			out = append(out, after)
		}
	}
	if out == nil {
		return runs
	}
	return out
}

// addRun adds a run whose positions are in no other, and joins it with equal neighbours.
func addRun(runs []Run, r Run) []Run {
	i, _ := slices.BinarySearchFunc(runs, r.From, func(x Run, from uint64) int {
		if x.From < from {
			return -1
		}
		return 1
	})
	same := func(x Run) bool {
		return x.Attempt == r.Attempt && x.Failed == r.Failed && x.Next == r.Next && x.Out == r.Out
	}
	j := i
	if i > 0 && runs[i-1].To+1 == r.From && same(runs[i-1]) {
		i--
		r.From = runs[i].From
	}
	if j < len(runs) && r.To+1 == runs[j].From && same(runs[j]) {
		r.To = runs[j].To
		j++
	}
	return slices.Replace(runs, i, j, r)
}

// plain calls f for each run of positions of the span that are neither done nor in a run.
func (p *Partition) plain(s Span, f func(Span)) {
	from := max(s.From, p.Cursor)
	to := min(s.To, p.End-1)
	done, runs := p.Done, p.Runs
	for from <= to {
		for len(done) > 0 && done[0].To < from {
			done = done[1:]
		}
		for len(runs) > 0 && runs[0].To < from {
			runs = runs[1:]
		}
		end := to
		switch {
		case len(done) > 0 && done[0].From <= from:
			from = done[0].To + 1
			continue
		case len(runs) > 0 && runs[0].From <= from:
			from = runs[0].To + 1
			continue
		}
		if len(done) > 0 {
			end = min(end, done[0].From-1)
		}
		if len(runs) > 0 {
			end = min(end, runs[0].From-1)
		}
		f(Span{from, end})
		from = end + 1
	}
}

// Clone is a copy that shares nothing with p.
func (p *Partition) Clone() Partition {
	c := *p
	c.Done, c.Runs, c.Writers = slices.Clone(p.Done), slices.Clone(p.Runs), slices.Clone(p.Writers)
	return c
}
