package stored

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// claim is a partition that this process holds. Its fields are guarded by the tenant.
type claim struct {
	t     *tenant
	id    eventstore.PartitionID
	fence uint64
	next  uint64    // what was never read begins here
	end   uint64    // of the partition, as far as is known
	retry time.Time // when an event is due again; zero = none is

	reading  bool
	barren   time.Time // until then nothing is read: the last read brought nothing, though there is something
	inFlight int
	unsaid   []eventstore.Settlement
	said     time.Time // when the first of them was
	wanted   bool      // another process waits for it
	lost     bool      // it is another's: what is left of it here means nothing
}

// behind reports whether there is something to read. The tenant is locked.
func (c *claim) behind(now time.Time) bool {
	return now.After(c.barren) && (c.next < c.end || !c.retry.IsZero() && !c.retry.After(now))
}

const (
	// settleRecords are told to the store at once, fewer after settleTime: what is not
	// told when this process dies comes again.
	settleRecords = 256
	settleTime    = 50 * time.Millisecond
	// barrenTime is how long a partition rests that has too much unsettled to be read on.
	barrenTime = 100 * time.Millisecond
)

// toSettle reports whether it is time. The tenant is locked.
func (c *claim) toSettle(now time.Time) bool {
	return len(c.unsaid) >= settleRecords || len(c.unsaid) > 0 &&
		(now.Sub(c.said) >= settleTime || c.wanted || c.t.receivers == 0)
}

// claiming says when to claim.
type claiming struct {
	asked   time.Time // last; zero = it is time
	again   time.Time // not before
	others  int       // partitions that others have
	pending int       // of those, with something that nobody took
	none    bool      // this process has none
}

// due is when to claim; zero = never. The tenant is locked.
func (t *tenant) due(now time.Time) time.Time {
	k := &t.claiming
	var at time.Time
	switch {
	case !t.credit && len(t.claims) == 0:
		return time.Time{}
	case k.asked.IsZero():
		at = now
	case t.busy(now):
		at = k.asked.Add(claimTime / 3)
	case k.pending > 0 || k.others > 0 && k.none:
		at = k.asked.Add(claimTime)
	case k.others > 0:
		at = k.asked.Add(shareTime)
	default:
		return time.Time{} // nobody else is there, and nothing is to be done
	}
	if at.Before(k.again) {
		return k.again
	}
	return at
}

// wake has step look again. The tenant is locked.
func (t *tenant) wake() {
	if t.running {
		t.again = true
		return
	}
	t.running = true
	t.s.goes(t.run)
}

// run does what is to be done until there is nothing for now, and sets a timer for later.
func (t *tenant) run() {
	for {
		wait := t.step()
		t.mu.Lock()
		if t.again {
			t.again = false
			t.mu.Unlock()
			continue
		}
		t.running = false
		t.sleep(wait)
		t.mu.Unlock()
		return
	}
}

// sleep wakes the tenant after a while, 0 = something else will. The tenant is locked.
func (t *tenant) sleep(wait time.Duration) {
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	if wait > 0 && t.s.ctx.Err() == nil {
		t.timer = time.AfterFunc(wait, func() {
			t.mu.Lock()
			t.wake()
			t.mu.Unlock()
		})
	}
}

// step does what is due, once, and returns after how long to look again; 0 = when something happens.
func (t *tenant) step() time.Duration {
	failed := t.settle()
	if t.giveBack() {
		return t.leave()
	}
	failed = t.claim() || failed
	t.offer()
	failed = t.read() || failed
	t.offer()
	if failed {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.pause = min(max(2*t.pause, 50*time.Millisecond), 5*time.Second)
		return t.pause
	}
	return t.rest()
}

// rest decides how long nothing need be done.
func (t *tenant) rest() time.Duration {
	now := t.s.o.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pause = 0
	next := t.due(now)
	earlier := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	idle := true
	for _, c := range t.claims {
		idle = idle && c.next >= c.end
		if len(c.unsaid) > 0 {
			earlier(c.said.Add(settleTime))
		}
		switch {
		case !t.credit || !t.room():
		case c.barren.After(now):
			earlier(c.barren)
		case c.behind(now):
			earlier(now)
		default:
			earlier(c.retry)
		}
	}
	if t.drain && idle && len(t.claims) > 0 && t.ready.len() == 0 {
		t.drain = false
		t.mu.Unlock()
		t.s.o.Router.Drained(t.address)
		t.mu.Lock()
	}
	if !t.credit && len(t.claims) > 0 && t.inFlight == 0 {
		earlier(t.since.Add(creditTime))
	}
	if next.IsZero() {
		return 0
	}
	return max(next.Sub(now), time.Millisecond)
}

// list returns claims for which f is true.
func (t *tenant) list(f func(*claim) bool) []*claim {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*claim
	for _, c := range t.claims {
		if f(c) {
			out = append(out, c)
		}
	}
	return out
}

// each calls f for claims, at the same time: what they ask of a store may be done together.
func each(claims []*claim, f func(*claim) error) (failed bool) {
	if len(claims) == 1 {
		return f(claims[0]) != nil
	}
	var wg sync.WaitGroup
	errs := make([]error, len(claims))
	for i, c := range claims {
		wg.Go(func() { errs[i] = f(c) })
	}
	wg.Wait()
	return errors.Join(errs...) != nil
}

func (s *Server) timed() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.ctx, callTime)
}

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
		if c.lost {
			return nil
		}
		if c.unsaid, c.said = c.unsaid[used:], t.s.o.Now(); len(c.unsaid) == 0 {
			c.unsaid = nil
		}
		t.unsaid -= used
		t.s.m.dead.Add(int64(len(result.Dead)))
		c.retry, c.wanted = result.NextAt, result.Wanted
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
		t.s.say(err)
		return err
	}
	t.drop(c)
	return nil
}

// drop forgets a claim that is another's. The tenant is locked.
func (t *tenant) drop(c *claim) {
	t.unsaid -= len(c.unsaid)
	c.lost, c.unsaid = true, nil
	if t.claims[c.id] == c {
		delete(t.claims, c.id)
	}
	t.discard(c)
	t.s.m.lost.Add(1)
	t.claiming.asked, t.claiming.again = time.Time{}, t.s.o.Now().Add(claimTime/2) // another has just asked
}

// discard removes what is ready of a claim. The tenant is locked.
func (t *tenant) discard(c *claim) {
	t.ready.remove(func(e *entry) bool {
		if e.c == c {
			t.s.prefetched.Add(-int64(len(e.message)))
		}
		return e.c == c
	})
}

// claim asks for partitions, or renews what there is, when it is time.
func (t *tenant) claim() (failed bool) {
	now := t.s.o.Now()
	t.mu.Lock()
	due := t.due(now)
	t.mu.Unlock()
	if due.IsZero() || due.After(now) {
		return false
	}
	ctx, cancel := t.s.timed()
	defer cancel()
	result, err := t.s.o.Log.Claim(ctx, eventstore.ClaimRequest{Tenant: t.name, Holder: t.s.holder, Ingress: t.s.o.Ingress, ClaimMS: claimTime.Milliseconds()})
	t.s.m.claims.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.s.say(err)
		return true
	}
	held := map[eventstore.PartitionID]bool{}
	for _, x := range result.Claims {
		held[x.Partition] = true
		c := t.claims[x.Partition]
		if c != nil && c.fence != x.Fence {
			t.drop(c)
			c = nil
		}
		if c == nil {
			c = &claim{t: t, id: x.Partition, fence: x.Fence, next: x.Next}
			t.claims[x.Partition] = c
			if x.Retry != 0 {
				c.retry = time.UnixMilli(x.Retry)
			}
		}
		c.end, c.wanted = max(c.end, x.End), x.Wanted
	}
	for id, c := range t.claims {
		if !held[id] {
			t.drop(c)
		}
	}
	t.claiming = claiming{asked: now, others: result.Others, pending: result.Pending, none: len(result.Claims) == 0}
	return false
}

// unsettled reports whether a claim must be renewed: receivers have something of it. The tenant is locked.
func (t *tenant) unsettled() bool { return t.inFlight > 0 || t.unsaid > 0 || t.ready.len() > 0 }

func (t *tenant) busy(now time.Time) bool {
	for _, c := range t.claims {
		if c.behind(now) {
			return true
		}
	}
	return t.unsettled()
}

// read brings what is to be delivered into memory.
func (t *tenant) read() (failed bool) {
	now := t.s.o.Now()
	return each(t.list(func(c *claim) bool {
		if !t.credit || c.wanted || !c.behind(now) || !t.room() {
			return false
		}
		c.reading = true
		return true
	}), func(c *claim) error {
		t.mu.Lock()
		from := c.next
		t.mu.Unlock()
		ctx, cancel := t.s.timed()
		defer cancel()
		result, err := t.s.o.Log.Read(ctx, eventstore.ReadRequest{Tenant: t.name, Partition: c.id, Fence: c.fence, From: from,
			MaxRecords: prefetchRecords / 4, MaxBytes: prefetchBytes / 4})
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
		for i := range result.Records {
			r := &result.Records[i]
			t.push(&entry{c: c, message: r.Message, position: r.Position, expires: r.Expires, attempt: r.Attempt, fresh: r.Position >= from})
		}
		if len(result.Records) == 0 && result.Next == from && result.Next < result.End {
			c.barren = t.s.o.Now().Add(barrenTime)
		}
		c.next, c.end = max(c.next, result.Next), max(c.end, result.End)
		c.retry, c.wanted = result.NextAt, result.Wanted
		return nil
	})
}

// giveBack releases claims that are of no use here, or wanted elsewhere. It reports whether
// nobody listens, and nothing is left.
func (t *tenant) giveBack() (over bool) {
	now := t.s.o.Now()
	t.mu.Lock()
	all := t.receivers == 0 || !t.credit && t.inFlight == 0 && now.Sub(t.since) >= creditTime
	over = t.receivers == 0
	t.mu.Unlock()
	each(t.list(func(c *claim) bool {
		return (all || c.wanted) && c.inFlight == 0 && len(c.unsaid) == 0 && !c.reading
	}), t.release)
	t.mu.Lock()
	defer t.mu.Unlock()
	return over && len(t.claims) == 0 && t.receivers == 0
}

// release gives a claim back: what it has in memory goes back unread.
func (t *tenant) release(c *claim) error {
	t.turn.Lock() // nobody is to offer it meanwhile
	t.mu.Lock()
	if c.lost || c.inFlight > 0 || len(c.unsaid) > 0 {
		t.mu.Unlock()
		t.turn.Unlock()
		return nil
	}
	undelivered := c.next
	for _, e := range t.ready.items[t.ready.first:] {
		if e.c == c && e.fresh {
			undelivered = min(undelivered, e.position)
		}
	}
	wanted := c.wanted
	c.lost = true
	delete(t.claims, c.id)
	t.discard(c)
	t.claiming.asked = time.Time{}
	if wanted {
		t.claiming.again = t.s.o.Now().Add(claimTime / 2) // let the other have it
	}
	t.mu.Unlock()
	t.turn.Unlock()
	ctx, cancel := t.s.timed()
	defer cancel()
	t.s.m.releases.Add(1)
	err := t.s.o.Log.Release(ctx, eventstore.ReleaseRequest{Tenant: t.name, Partition: c.id, Fence: c.fence, Undelivered: undelivered})
	if err != nil {
		t.s.say(err) // it ends by itself
	}
	return nil
}

// leave takes the tenant off the list, unless somebody has come again.
func (t *tenant) leave() time.Duration {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.receivers == 0 && t.inFlight == 0 && t.s.tenants[t.name] == t {
		delete(t.s.tenants, t.name)
	}
	return 0
}

// remove takes entries out.
func (q *queue) remove(f func(*entry) bool) {
	kept := q.items[:q.first]
	for _, e := range q.items[q.first:] {
		if f(e) {
			q.bytes -= len(e.message)
			continue
		}
		kept = append(kept, e)
	}
	clear(q.items[len(kept):])
	q.items = kept
}
