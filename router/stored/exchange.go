package stored

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// settle tells the store what receivers have said.
func (t *tenant) settle() (failed bool) {
	now := t.s.o.Now()
	return each(t.list(func(c *claim) bool { return c.toSettle(now) }), func(c *claim) error {
		t.mu.Lock()
		said := c.unsaid[:min(len(c.unsaid), 10*eventstore.MaxRecords)]
		settlements, used := join(said)
		t.mu.Unlock()
		ctx, cancel := t.s.timed()
		defer cancel()
		result, err := t.s.o.Log.Settle(ctx, eventstore.SettleRequest{Tenant: t.name, Partition: c.id, Fence: c.fence, Settlements: settlements})
		t.s.m.settles.Add(1)
		t.mu.Lock()
		defer t.mu.Unlock()
		if err != nil {
			return t.trouble(c, err)
		}
		t.s.m.dead.Add(int64(len(result.Dead)))
		if c.lost {
			return nil
		}
		if len(c.again) > 0 {
			for _, x := range said[:used] {
				delete(c.again, x.From)
			}
		}
		if c.unsaid, c.said = c.unsaid[used:], t.s.o.Now(); len(c.unsaid) == 0 {
			c.unsaid = nil
		}
		t.unsaid -= used
		c.retry = result.NextAt
		c.stir(c.said)
		c.want(result.Wanted, c.said)
		return nil
	})
}

// join makes settlements of single positions ones of runs, in as few as there can
// be, at most what one request takes. It returns how many it has used, the first ones.
func join(said []eventstore.Settlement) (out []eventstore.Settlement, used int) {
	for used = len(said); ; used /= 2 {
		list := slices.Clone(said[:used])
		slices.SortFunc(list, func(a, b eventstore.Settlement) int {
			return cmp.Or(cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.From, b.From))
		})
		out = list[:0]
		for _, s := range list {
			if n := len(out); n > 0 && out[n-1].To+1 == s.From && alike(out[n-1], s) {
				out[n-1].To = s.To
				continue
			}
			out = append(out, s)
		}
		if len(out) <= eventstore.MaxRecords {
			return out, used
		}
	}
}

// alike reports whether two settlements say the same of other positions.
func alike(a, b eventstore.Settlement) bool {
	a.From, a.To = b.From, b.To
	return a == b
}

// trouble notes that the store did not do what it was asked. It returns nil where the claim
// is lost, which is no failure. The tenant is locked.
func (t *tenant) trouble(c *claim, err error) error {
	if !errors.Is(err, iot.ErrExists) {
		t.s.complain(err)
		return err
	}
	if !c.lost {
		t.drop(c)
	}
	return nil
}

const (
	// readRecords and readBytes are what one read of a partition brings at most, and
	// tightRecords and tightBytes where the memory for all tenants is used up.
	readRecords  = prefetchRecords / 4
	readBytes    = prefetchBytes / 4
	tightRecords = 8
	leastRetry   = 16
	tightBytes   = 16 << 10
)

// read brings what is to be delivered into memory: not much more than there is credit for. What
// one partition has more than that is not read of the next as well.
func (t *tenant) read() (failed bool) {
	now := t.s.o.Now()
	tight := t.s.prefetched.Load() >= totalPrefetch
	t.mu.Lock()
	left, short := t.short()
	most := map[*claim]int{}
	for _, c := range t.claims {
		quiet, _ := c.quiet(now)
		if !t.credit || !short || left <= 0 || quiet || !c.behind(now) {
			continue
		}
		n := c.ahead(now, left)
		c.reading, most[c], left = true, n, left-n
		if tight {
			most[c], left = min(n, tightRecords), 0
		}
	}
	t.mu.Unlock()
	r := eventstore.ReadRequest{Tenant: t.name, MaxBytes: readBytes}
	if tight {
		r.MaxBytes = tightBytes
	}
	return each(slices.Collect(maps.Keys(most)), func(c *claim) error {
		r := r
		r.MaxRecords = most[c]
		return t.readOf(c, r)
	})
}

// ahead is how many records to read of a partition where left are wanted. How many are due again is
// not known: no less than is worth a call. The tenant is locked.
func (c *claim) ahead(now time.Time, left int) int {
	n := uint64(0)
	if c.next < c.end {
		n = c.end - c.next
	}
	if !c.retry.IsZero() && !c.retry.After(now) {
		n += uint64(max(leastRetry, left/8))
	}
	return int(min(n, uint64(left), readRecords))
}

func (t *tenant) readOf(c *claim, r eventstore.ReadRequest) error {
	t.mu.Lock()
	r.Partition, r.Fence, r.From = c.id, c.fence, c.next
	t.mu.Unlock()
	ctx, cancel := t.s.timed()
	defer cancel()
	result, err := t.s.o.Log.Read(ctx, r)
	t.s.m.reads.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	c.reading = false
	if err != nil {
		return t.trouble(c, err)
	}
	if c.lost {
		return nil
	}
	if slices.ContainsFunc(result.Records, func(x eventstore.Record) bool { return x.Tenant != t.name }) {
		// Whatever went wrong there, nothing of it goes to this tenant's applications.
		return t.trouble(c, iot.Errorf(iot.ErrUnavailable, "the event store answered with events of another tenant"))
	}
	for i := range result.Records {
		x := &result.Records[i]
		fresh := x.Position >= r.From && x.Attempt == 0
		if !fresh && !c.handOut(x.Position) {
			continue
		}
		t.push(&entry{c: c, message: x.Message, position: x.Position, expires: x.Expires, attempt: x.Attempt, fresh: fresh})
	}
	now := t.s.o.Now()
	fruitless := len(result.Records) == 0 && result.Next <= r.From
	c.next, c.end = max(c.next, result.Next), max(c.end, result.End)
	if c.retry, c.barren = result.NextAt, (time.Time{}); fruitless && c.behind(now) {
		c.rests = min(max(2*c.rests, barrenTime), longBarren)
		c.barren = now.Add(c.rests)
	} else {
		c.rests = 0
	}
	c.want(result.Wanted, now)
	return nil
}

// handOut notes that an event is delivered again. It reports false when it still is, of an earlier
// read: a store hands out again what was not settled for long. The tenant is locked.
func (c *claim) handOut(position uint64) bool {
	if _, is := c.again[position]; is {
		return false
	}
	if c.again == nil {
		c.again = map[uint64]struct{}{}
	}
	c.again[position] = struct{}{}
	return true
}
