package adapters

import (
	"container/list"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Bounds of a [Presence].
const (
	// PresenceQueue is how many notifications wait, and how many uplinks; the
	// oldest make room for new ones.
	PresenceQueue = 10_000

	presenceWait  = time.Second      // what Notify waits, and what Close leaves for what is under way
	presenceKept  = 10 * time.Minute // how long sending a notification is tried
	presenceSends = 256              // notifications under way to routers
)

// PresenceOptions configure [NewPresence].
type PresenceOptions struct {
	Invoker events.Invoker // required
	Poster  events.Poster  // brings the facts to subscribers; nil = there are none
	Logger  *slog.Logger
}

// Notification is a change of a device's presence that applications are to hear of.
type Notification struct {
	// Change says what happened: Kind and At are required, the rest as the kind needs it.
	// Its tenant, device, gateway and adapter are taken from Who and Pipeline.
	Change   events.PresenceChange
	Who      Admission // of the device
	Pipeline *Pipeline // by which the event leaves; required
	Address  string    // orig_address of the event
}

// Presence tells applications, and subscribers to facts, which devices can be reached
// (contract: events 4.3; messaging 11 and 12.2). One call of the function is under way
// at a time and carries what has gathered since the last one. The notifications of one device
// leave in the order of their changes, each when the one before has been taken.
//
// What a router did not take is sent again, with the id that it had. Where none says in time what
// became of a notification, it is not: it may have been stored.
//
// Safe for concurrent use. One serves all adapters of a process.
type Presence struct {
	o     PresenceOptions
	posts *factQueue // nil = nobody subscribes

	base context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	empty    chan struct{} // closed when closed and nothing waits
	deriving bool          // a goroutine does; the next says the same of sending
	handing  bool
	sending  int       // under way to routers
	fresh    list.List // of *notice: to be derived
	uplinks  list.List // the same, of which only subscribers hear
	derived  list.List // of *notice: to be sent, the oldest first
	ready    []*notice // of these, whose turn it is
	chains   map[presenceOf]*chain
	asked    int // notices that the function is asked about
	counts   PresenceCounts
	quiet    time.Time // nothing is logged before
}

// PresenceCounts tell what became of notifications since the start.
type PresenceCounts struct {
	Sent      uint64 // taken by a router
	Failed    uint64 // refused, or nobody knows what became of them
	Dropped   uint64 // there was no room, or no time
	Repeated  uint64 // sent again
	Calls     uint64 // of the function
	CallsLost uint64 // that brought no answer
	Waiting   int    // notifications, now

	Posted    uint64 // facts that subscribers were brought
	NotPosted uint64 // facts that they were not
}

// presenceOf names the device of a chain.
type presenceOf struct {
	tenant iot.TenantID
	device iot.DeviceID
}

// chain are the derived notices of one device: the first is ready, under way, or will be
// tried again.
type chain struct {
	list []*notice
	gone int // since they were last taken out
}

// maxGone is how many that were dropped a chain keeps, unless it is long.
const maxGone = 16

// dropped counts one that was, and takes all such out when they are many. The first may
// be waited for.
func (c *chain) dropped() {
	if c.gone++; c.gone <= max(maxGone, len(c.list)/2) {
		return
	}
	kept := c.list[:1]
	for _, x := range c.list[1:] {
		if !x.gone {
			kept = append(kept, x)
		}
	}
	clear(c.list[len(kept):])
	c.list, c.gone = kept, 0
}

// notice is a notification on its way.
type notice struct {
	n     Notification
	key   events.PresenceKey
	since time.Time
	done  func(error) // nil = nobody waits

	fact  events.PresenceFact // once it is derived
	tries int
	again *time.Timer   // it waits for its next try
	place *list.Element // in the list that holds it; nil = in none
	gone  bool          // dropped
}

func (x *notice) of() presenceOf { return presenceOf{x.key.Tenant, x.key.Device} }

var errPresenceClosed = iot.Errorf(iot.ErrUnavailable, "notifications are being stopped")

// NewPresence returns a Presence that asks o.Invoker. Close it.
func NewPresence(o PresenceOptions) *Presence {
	if o.Invoker == nil {
		panic("adapters: NewPresence without an Invoker")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Presence{o: o, empty: make(chan struct{}), chains: make(map[presenceOf]*chain)}
	p.base, p.stop = context.WithCancel(context.Background())
	if o.Poster != nil {
		p.posts = newFactQueue(o.Poster, o.Logger)
	}
	return p
}

// Notify derives what follows from n and sends it through one router. It waits until that
// is done, but at most a second: what takes longer goes on by itself, and nil is returned.
// That a device has connected is told before it is let in (contract: adapters 14): for it
// Notify waits as long as ctx lasts, it is tried once, and not at all after that.
// iot.ErrInvalid for a change that nothing can follow from; the error of sending it, as
// of [Pipeline.Publish]; iot.ErrUnavailable where there was no room, and after Close; or
// ctx's, and it goes on.
func (p *Presence) Notify(ctx context.Context, n Notification) error {
	done := make(chan error, 1)
	x, err := p.enqueue(n, func(err error) { done <- err })
	if err != nil {
		return err
	}
	var enough <-chan time.Time
	if !once(n.Change.Kind) {
		timer := time.NewTimer(presenceWait)
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case err := <-done:
		return err
	case <-enough:
		return nil
	case <-ctx.Done():
		if once(n.Change.Kind) {
			p.forget(x)
		}
		return ctx.Err()
	}
}

// once reports whether a change is told now or never.
func once(kind events.PresenceKind) bool { return kind == events.Connected }

// forget takes out a notice that is not under way.
func (p *Presence) forget(x *notice) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case x.place == nil:
		return
	case x.fact != nil:
		p.drop(&p.derived, x)
	default:
		p.drop(&p.fresh, x)
	}
	p.checkEmpty()
}

// Tell is [Presence.Notify] for who does not wait. An uplink is told to subscribers only,
// and to nobody where there are none.
func (p *Presence) Tell(n Notification) {
	if _, err := p.enqueue(n, nil); err != nil {
		p.mu.Lock()
		p.counts.Failed++
		p.say("a notification is not sent", err)
		p.mu.Unlock()
	}
}

func (p *Presence) enqueue(n Notification, done func(error)) (*notice, error) {
	if n.Change.Kind == events.Uplink && p.posts == nil {
		finish(done, nil)
		return nil, nil
	}
	c := &n.Change
	c.TenantID, c.DeviceID, c.GatewayID, c.Adapter = n.Who.Tenant(), n.Who.Device(), n.Who.Gateway(), n.Pipeline.o.Type
	c.RemoteID = clientName(c.RemoteID)
	if err := c.Check(); err != nil {
		return nil, err
	}
	x := &notice{n: n, key: c.Key(), since: time.Now(), done: done}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errPresenceClosed
	}
	var out *notice
	if c.Kind == events.Uplink {
		x.place = p.uplinks.PushBack(x)
		out = p.makeRoom(&p.uplinks)
	} else {
		x.place = p.fresh.PushBack(x)
		out = p.makeRoom(&p.derived, &p.fresh)
	}
	p.derive()
	p.mu.Unlock()
	if out != nil {
		finish(out.done, errNoRoom)
	}
	return x, nil
}

// clientName is what is told of a name that the client chose.
func clientName(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= events.MaxPresenceText {
		return s
	}
	n := events.MaxPresenceText
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

var errNoRoom = iot.Errorf(iot.ErrUnavailable, "too many notifications wait")

// makeRoom takes the oldest out where the lists, the ones with older ones first, are
// too long together. p.mu is held.
func (p *Presence) makeRoom(lists ...*list.List) *notice {
	length := 0
	for _, l := range lists {
		length += l.Len()
	}
	if length <= PresenceQueue {
		return nil
	}
	for _, l := range lists {
		if l.Len() > 0 {
			return p.drop(l, l.Front().Value.(*notice))
		}
	}
	return nil
}

// drop takes x out of l, which holds it. p.mu is held.
func (p *Presence) drop(l *list.List, x *notice) *notice {
	l.Remove(x.place)
	x.place, x.gone = nil, true
	if c := p.chains[x.of()]; c != nil && x.fact != nil {
		c.dropped()
	}
	p.skipGone()
	p.counts.Dropped++
	p.say("notifications are dropped: too many wait, or they wait for too long", nil)
	return x
}

// say logs what is likely to come again soon, once a minute. p.mu is held.
func (p *Presence) say(text string, err error) {
	now := time.Now()
	if now.Before(p.quiet) {
		return
	}
	p.quiet = now.Add(time.Minute)
	args := []any{"waiting", p.waiting(), "dropped", p.counts.Dropped}
	if err != nil {
		args = append(args, "err", err)
	}
	p.o.Logger.Warn(text, args...)
}

// finish tells who waits, if anybody does.
func finish(done func(error), err error) {
	if done != nil {
		done(err)
	}
}

// waiting is how many notices there are. p.mu is held.
func (p *Presence) waiting() int {
	return p.fresh.Len() + p.uplinks.Len() + p.asked + p.derived.Len() + p.sending
}

// Counts returns what [PresenceCounts] says.
func (p *Presence) Counts() PresenceCounts {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.counts
	n.Waiting = p.waiting()
	if p.posts != nil {
		n.Posted, n.NotPosted = p.posts.counts()
	}
	return n
}

// Close refuses what comes later. What waits has a second to leave, together with the
// facts for subscribers; the rest is dropped.
func (p *Presence) Close() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.wg.Wait()
		return
	}
	p.closed = true
	p.checkEmpty()
	p.mu.Unlock()

	over, cancel := context.WithTimeout(context.Background(), presenceWait)
	defer cancel()
	select {
	case <-p.empty:
	case <-over.Done():
	}
	p.mu.Lock()
	p.stop() // from now on nobody starts
	p.mu.Unlock()
	p.wg.Wait()
	for _, x := range p.giveUp() {
		finish(x.done, errPresenceClosed)
	}
	if p.posts != nil {
		p.posts.close(over.Done())
	}
}

// giveUp takes out what could not leave before Close. What is under way to routers is
// left to them.
func (p *Presence) giveUp() (left []*notice) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range []*list.List{&p.fresh, &p.uplinks, &p.derived} {
		for l.Len() > 0 {
			x := p.drop(l, l.Front().Value.(*notice))
			if x.again != nil {
				x.again.Stop()
			}
			left = append(left, x)
		}
	}
	p.ready = nil
	clear(p.chains)
	return left
}

// checkEmpty lets Close go on when nothing waits. p.mu is held.
func (p *Presence) checkEmpty() {
	if !p.closed || p.waiting() > 0 {
		return
	}
	select {
	case <-p.empty:
	default:
		close(p.empty)
	}
}
