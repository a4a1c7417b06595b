package stored

import (
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/eventstore"
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
	barren   time.Time     // until then nothing is read: the last read brought nothing, though there is something
	rests    time.Duration // for how long, then
	inFlight int
	again    map[uint64]struct{} // positions that were handed out again and are not settled in the store
	unsaid   []eventstore.Settlement
	said     time.Time // when the first of them was
	wanted   bool      // another process waits for it
	since    time.Time // it does
	lost     bool      // it is another's: what is left of it here means nothing
}

const (
	// settleRecords are told to the store at once, fewer after settleTime: what is not
	// told when this process dies comes again.
	settleRecords = 256
	settleTime    = 50 * time.Millisecond
	// barrenTime is how long a partition rests at first that has too much unsettled to be read on, or
	// an event that is not due by the store's clock, and longBarren how long in the end.
	barrenTime = 100 * time.Millisecond
	longBarren = 5 * time.Second
	// quietTime is how long nothing is read of a partition that another process waits for, so
	// that what receivers have of it gets settled and it can be given back; where they are slower it is
	// tried again after a while.
	quietTime = 2 * time.Second
)

// behind reports whether there is something to read. The tenant is locked.
func (c *claim) behind(now time.Time) bool {
	return !now.Before(c.barren) && (c.next < c.end || !c.retry.IsZero() && !c.retry.After(now))
}

// stir shortens the rest of a partition in which something has happened. The tenant is locked.
func (c *claim) stir(now time.Time) {
	if c.rests = 0; c.barren.After(now.Add(barrenTime)) {
		c.barren = now.Add(barrenTime)
	}
}

// want notes whether another process waits for the partition. The tenant is locked.
func (c *claim) want(wanted bool, now time.Time) {
	if wanted && !c.wanted {
		c.since = now
	}
	c.wanted = wanted
}

// quiet reports whether nothing is to be read because the partition is wanted elsewhere, and
// when that changes; zero = it does not. The tenant is locked.
func (c *claim) quiet(now time.Time) (quiet bool, until time.Time) {
	if !c.wanted {
		return false, time.Time{}
	}
	const period = quietTime + claimTime
	at := now.Sub(c.since) % period
	if at < quietTime {
		return true, now.Add(quietTime - at)
	}
	return false, now.Add(period - at)
}

// toSettle reports whether it is time to tell what receivers have said. The tenant is locked.
func (c *claim) toSettle(now time.Time) bool {
	if len(c.unsaid) == 0 {
		return false
	}
	return len(c.unsaid) >= settleRecords || now.Sub(c.said) >= settleTime || c.wanted || c.t.receivers == 0 || c.t.giving(now)
}

// claiming says when to claim.
type claiming struct {
	now     bool          // at once
	last    time.Time     // when it was asked
	again   time.Time     // not before
	others  int           // partitions that others have
	pending int           // of those, with something that nobody took
	wait    time.Duration // until one of them may be free, as long as nobody says when:
	freeAt  time.Time     // zero = it is not known
	freed   bool          // something was given back while it was asked
	knock   bool          // others are to be told that it waits: those that have nothing to do would not hear of it
	waits   bool          // others may have been asked for some, or some be kept for it
}

const (
	// askTime is how often it is asked at most because something was given back.
	askTime = 200 * time.Millisecond
	// slack is how much later than a claim ends it is asked for, for clocks that differ a little, and
	// longFree the longest wait for that, for those that differ much.
	slack    = 20 * time.Millisecond
	longFree = 3 * claimTime
)

// free notes when a claim of another ends that there is something of, as the store says, whose clock
// may be wrong.
func (k *claiming) free(at int64, now time.Time) {
	if k.freeAt = (time.Time{}); at == 0 {
		return
	}
	k.freeAt = later(time.UnixMilli(at).Add(slack), now.Add(firstWait))
	if most := now.Add(longFree); k.freeAt.After(most) {
		k.freeAt = most
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// freed notes that somebody has given something back: whoever waits asks at once.
func (t *tenant) freed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := &t.claiming
	if t.receivers == 0 || k.now {
		return
	}
	if k.freed = t.grew != nil; !k.freed { // else it asks once more
		t.ask()
	}
}

// ask has it asked soon, once there is credit. The tenant is locked.
func (t *tenant) ask() {
	k := &t.claiming
	k.now = true
	if least := k.last.Add(askTime); k.again.Before(least) {
		k.again = least
	}
	if t.credit {
		t.wake()
	}
}

// firstWait is when a process that got less than there is asks again at first: whoever
// has it gives it back within moments, if he is there.
const firstWait = time.Second

// due is when to claim; zero = never. The tenant is locked.
func (t *tenant) due(now time.Time) time.Time {
	k := &t.claiming
	var at time.Time
	switch {
	case t.receivers == 0 && len(t.claims) == 0:
		return time.Time{}
	case t.busy(now):
		at = k.last.Add(claimTime / 3)
	}
	if !t.credit {
		return at
	}
	earlier := func(x time.Time) {
		if x.Before(k.again) {
			x = k.again
		}
		if at.IsZero() || x.Before(at) {
			at = x
		}
	}
	switch {
	case k.now:
		earlier(now)
	case !k.freeAt.IsZero():
		earlier(k.freeAt)
	case k.pending > 0 || k.others > 0 && len(t.claims) == 0 && t.s.o.Ingress == "":
		earlier(k.last.Add(k.wait))
	case k.others > 0 || t.s.o.Ingress != "": // it is told of what is given back
		earlier(k.last.Add(shareTime))
	}
	if t.s.o.Poll > 0 {
		earlier(k.last.Add(t.s.o.Poll))
	}
	return at
}

// busy reports whether claims must be renewed: receivers have something of them, or
// there is something to read. The tenant is locked.
func (t *tenant) busy(now time.Time) bool {
	if len(t.claims) == 0 {
		return false
	}
	if t.inFlight > 0 || t.unsaid > 0 || t.ready.len() > 0 {
		return true
	}
	for _, c := range t.claims {
		if c.behind(now) {
			return true
		}
	}
	return false
}

// claim asks for partitions, or renews what there is, when it is time.
func (t *tenant) claim() (failed bool) {
	now := t.s.o.Now()
	r := eventstore.ClaimRequest{Tenant: t.name, Holder: t.s.holder, Ingress: t.s.o.Ingress, ClaimMS: claimTime.Milliseconds()}
	t.mu.Lock()
	due := t.due(now)
	if due.IsZero() || due.After(now) {
		t.mu.Unlock()
		return false
	}
	if !t.credit { // no more than there is
		for id := range t.claims {
			r.Partitions = append(r.Partitions, id)
		}
	}
	t.grew = map[eventstore.PartitionID]uint64{}
	asked := t.claiming.now && t.credit
	if asked {
		t.claiming.now = false
	}
	waited := t.claiming.waits
	t.claiming.waits = true // whatever becomes of the answer
	t.mu.Unlock()
	ctx, cancel := t.s.timed()
	defer cancel()
	result, err := t.s.o.Log.Claim(ctx, r)
	t.s.m.claims.Add(1)
	knock := false
	defer func() { // the tenant is not locked any more
		if knock {
			t.s.tellFree(t.name, eventstore.FirstGeneration()[0]) // others ask, and hear what is wanted
		}
	}()
	t.mu.Lock()
	defer t.mu.Unlock()
	grew := t.grew
	t.grew = nil
	if err != nil {
		t.claiming.now = t.claiming.now || asked
		t.s.complain(err)
		return true
	}
	had := len(t.claims)
	t.hold(result, grew, now)
	k := &t.claiming
	if k.wait = min(2*k.wait, claimTime); k.wait == 0 || len(t.claims) != had {
		k.wait = firstWait
	}
	k.last, k.others, k.pending = now, result.Others, result.Pending
	k.waits = waited || result.Others > 0
	k.free(result.FreeAt, now)
	if k.freed {
		k.freed = false
		t.ask()
	}
	if asked && k.knock {
		k.knock, knock = false, result.Others > 0
	}
	for id := range grew { // while it was asked
		if t.claims[id] == nil {
			k.pending = max(k.pending, 1)
		}
	}
	return false
}

// hold makes the claims those of a result, which was asked for at now. The tenant is locked.
func (t *tenant) hold(result *eventstore.ClaimResult, grew map[eventstore.PartitionID]uint64, now time.Time) {
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
			if !x.New {
				// The answer to an earlier claim, or to a release, was lost: what counts as read
				// since then has gone nowhere.
				c.next = 1
			}
			t.claims[x.Partition] = c
			if x.Retry != 0 {
				c.retry = time.UnixMilli(x.Retry)
			}
		}
		c.end = max(c.end, x.End, grew[x.Partition])
		c.want(x.Wanted, now)
	}
	for id, c := range t.claims {
		if !held[id] {
			t.drop(c)
		}
	}
}

// drop forgets a claim that is another's. The tenant is locked.
func (t *tenant) drop(c *claim) {
	t.forget(c)
	t.s.m.lost.Add(1)
	t.claiming.now, t.claiming.again = true, t.s.o.Now().Add(claimTime/2) // another has just asked
}

// forget takes a claim off, with what is ready of it. The tenant is locked.
func (t *tenant) forget(c *claim) {
	t.unsaid -= len(c.unsaid)
	c.lost, c.unsaid, c.again = true, nil, nil
	if t.claims[c.id] == c {
		delete(t.claims, c.id)
	}
	t.ready.remove(func(e *entry) bool {
		if e.c == c {
			t.s.prefetched.Add(-int64(len(e.message)))
		}
		return e.c == c
	})
}

// giving reports whether claims are of no use here: nobody listens, or has had credit for
// a while. One that comes back at once finds them. The tenant is locked.
func (t *tenant) giving(now time.Time) bool {
	return !t.credit && t.inFlight == 0 && now.Sub(t.since) >= creditTime || t.receivers == 0 && t.s.isClosing()
}

// free reports whether receivers have nothing of a claim, and the store knows so. The tenant is locked.
func (c *claim) free() bool { return c.inFlight == 0 && len(c.unsaid) == 0 && !c.reading && !c.lost }

// giveBack releases claims that are of no use here, or wanted elsewhere. It reports whether
// nobody listens, and nothing is left.
func (t *tenant) giveBack() (over bool) {
	now := t.s.o.Now()
	var given atomic.Pointer[claim]
	each(t.list(func(c *claim) bool {
		quiet, _ := c.quiet(now)
		return (quiet || t.giving(now)) && c.free()
	}), func(c *claim) error {
		if t.release(c) {
			given.Store(c)
		}
		return nil
	})
	if c := given.Load(); c != nil {
		t.s.tellFree(t.name, c.id)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.receivers == 0 && len(t.claims) == 0
}

// release gives a claim back: what it has in memory goes back unread. It reports whether it is
// another's to take.
func (t *tenant) release(c *claim) bool {
	t.turn.Lock() // nobody is to offer it meanwhile
	t.mu.Lock()
	if now := t.s.o.Now(); !c.free() || !c.wanted && !t.giving(now) {
		t.mu.Unlock()
		t.turn.Unlock()
		return false
	}
	undelivered := c.next
	for _, e := range t.ready.items[t.ready.first:] {
		if e.c == c && e.fresh {
			undelivered = min(undelivered, e.position)
		}
	}
	t.forget(c)
	t.claiming.now = true
	if c.wanted {
		t.claiming.again = t.s.o.Now().Add(claimTime / 2) // let the other have it
	}
	t.mu.Unlock()
	t.turn.Unlock()
	ctx, cancel := t.s.timed()
	defer cancel()
	t.s.m.releases.Add(1)
	err := t.s.o.Log.Release(ctx, eventstore.ReleaseRequest{Tenant: t.name, Partition: c.id, Fence: c.fence, Undelivered: undelivered})
	if err != nil {
		t.s.complain(err) // it ends by itself
	}
	return err == nil
}

// standBack tells the store, where claims are of no use here, that this process waits for none either: what
// is kept for one that waits others do not get for 20 s.
func (t *tenant) standBack() {
	t.mu.Lock()
	k := &t.claiming
	if !k.waits || !t.giving(t.s.o.Now()) && (t.receivers > 0 || len(t.claims) > 0) {
		t.mu.Unlock()
		return
	}
	k.waits = false
	t.mu.Unlock()
	ctx, cancel := t.s.timed()
	defer cancel()
	if err := t.s.o.Log.Release(ctx, eventstore.ReleaseRequest{Tenant: t.name, Holder: t.s.holder}); err != nil {
		t.s.complain(err) // it is kept for a while
		return
	}
	t.s.tellFree(t.name, eventstore.FirstGeneration()[0])
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
