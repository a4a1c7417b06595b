package notices

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
)

// UnfollowedAge is how old a token may be while the registry's changes cannot
// be followed.
const UnfollowedAge = 300 * time.Second

const (
	defaultMaxTenants = 100_000
	// maxQueued is how many notifications wait to be sent to adapters.
	maxQueued = 10_000
	// maxProvisioned is how many provisioning events are remembered as sent.
	maxProvisioned = 10_000
)

// Verifier is what ends tokens; see [assertion.Verifier].
type Verifier interface {
	Void(tenant iot.TenantID, device iot.DeviceID, rev string, now time.Time)
	LimitAge(time.Duration)
	NextUse() <-chan struct{}
}

// Publisher sends messages of this process; see router.Router. One with a method
// RegistryChanged(*events.RegistryChanged) is told of each change when the tokens that it
// ends are void, in the order of each tenant or not, again or for the first time.
// It must not wait.
type Publisher interface {
	Publish(address string, message []byte, done func(state amqp.Raw))
}

// changed is the ability that a [Publisher] may have.
type changed interface {
	RegistryChanged(c *events.RegistryChanged)
}

// Options of a follower. Publisher is required.
type Options struct {
	Verifier   Verifier       // nil = no token is looked at here
	Invoker    events.Invoker // answers registry.changes; nil = there are only the facts that are posted
	Publisher  Publisher
	MaxTenants int // of which positions are kept; default 100,000
	// ConfirmAfter is how old a confirmation becomes before the next use of a
	// token asks for another; default 50 s, so that it is there within 60 s.
	ConfirmAfter time.Duration
	Logger       *slog.Logger
}

// Follower follows the registry. Safe for concurrent use.
type Follower struct {
	o        Options
	log      *slog.Logger
	announce *announcer
	gapped   chan struct{} // tells Run that a gap was seen
	sent     recent
	m        counters

	mu        sync.Mutex
	positions *positions

	// The rest belongs to Run.
	feed feedState
}

// New returns a follower. Until it has caught up with the feed, tokens older than
// [UnfollowedAge] are refused; without an invoker that stays so.
func New(o Options) *Follower {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxTenants <= 0 {
		o.MaxTenants = defaultMaxTenants
	}
	if o.ConfirmAfter <= 0 {
		o.ConfirmAfter = confirmAfter
	}
	f := &Follower{o: o, log: o.Logger, gapped: make(chan struct{}, 1), positions: newPositions(o.MaxTenants)}
	f.announce = newAnnouncer(o.Publisher, o.Logger, &f.m)
	f.limit(UnfollowedAge)
	return f
}

// Take takes facts from whoever brings them, in the order of each tenant or
// not, again or for the first time. It returns when the tokens that they end are void and the
// notifications are on their way. iot.ErrUnavailable says that the facts should
// be brought again: adapters do not follow, or nobody took the event that a
// [events.DeviceProvisioned] becomes.
func (f *Follower) Take(ctx context.Context, facts []events.Fact) error {
	var changes []events.RegistryChanged
	var provisioned []events.DeviceProvisioned
	for _, fact := range facts {
		switch fact := fact.(type) {
		case events.RegistryChanged:
			changes = append(changes, fact)
		case events.DeviceProvisioned:
			provisioned = append(provisioned, fact)
		default:
			return iot.Errorf(iot.ErrInvalid, "a router does not take facts of type %s", fact.FactType())
		}
	}
	if err := f.apply(ctx, changes, fromFact); err != nil {
		return err
	}
	for _, p := range provisioned {
		if err := f.provisioned(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// origin says how a change was heard of.
type origin uint8

const (
	fromFact  origin = iota // it was posted
	fromFeed                // it had been missed
	fromStart               // it was there before this process
)

// apply does what changes call for. Voiding comes first: it knows no order, and
// must not wait for anybody.
func (f *Follower) apply(ctx context.Context, changes []events.RegistryChanged, from origin) error {
	now := time.Now()
	told, _ := f.o.Publisher.(changed)
	for i := range changes {
		f.void(&changes[i], now)
		if told != nil {
			told.RegistryChanged(&changes[i])
		}
	}
	for i := range changes {
		if err := f.note(ctx, &changes[i], from); err != nil {
			return err
		}
	}
	return nil
}

// void ends the tokens that c concerns. One that creates a device ends none:
// no token of it was issued before.
func (f *Follower) void(c *events.RegistryChanged, now time.Time) {
	if f.o.Verifier == nil {
		return
	}
	switch c.Type {
	case events.TypeTenantChanged:
		if c.Enabled {
			return
		}
	case events.TypeDeviceChanged:
		if c.Change == "CREATE" {
			return
		}
	case events.TypeDevicesDeleted:
	default:
		return
	}
	f.o.Verifier.Void(c.TenantID, c.DeviceID, events.Sequence(c.Sequence), now)
}

// note notes a change, and has adapters told unless it was noted before. While
// there is no room for its notification it is not noted, so that it is missed and comes again.
func (f *Follower) note(ctx context.Context, c *events.RegistryChanged, from origin) error {
	for {
		now := time.Now()
		f.mu.Lock()
		gaps := len(f.positions.gaps)
		fresh := !f.positions.seen(c.TenantID, c.Sequence)
		room := !fresh || f.tooOld(c, from, now) || f.announce.enqueue(*c)
		if fresh && room {
			f.positions.add(c.TenantID, c.Sequence, now)
		}
		gap := len(f.positions.gaps) > gaps
		f.mu.Unlock()
		if room {
			f.m.took(c.Type, from, fresh)
			if gap {
				wake(f.gapped)
			}
			return nil
		}
		if err := f.announce.wait(ctx); err != nil {
			return err
		}
	}
}

// tooOld reports whether no adapter can still have an answer from before c: one
// that had lost its notices, as it must have while this process was not there,
// trusts nothing older than [UnfollowedAge].
func (f *Follower) tooOld(c *events.RegistryChanged, from origin, now time.Time) bool {
	return from == fromStart && now.Sub(c.At) > 2*UnfollowedAge
}

func (f *Follower) limit(d time.Duration) {
	if f.o.Verifier != nil {
		f.o.Verifier.LimitAge(d)
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
