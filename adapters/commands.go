package adapters

import (
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Defaults of [CommandsOptions], and what is fixed.
const (
	DefaultCommandsInFlight = 10_000
	DefaultPerSubscription  = 100

	// MaxSubscriptions bounds the subscriptions of a process.
	MaxSubscriptions = 1_000_000
	// MaxPerDevice bounds those of one device: whoever takes one of many out looks at all
	// of them, while others wait whose devices share their lock.
	MaxPerDevice = 1000
)

const (
	commandShards = 32
	perGateway    = 10 // times what a subscription for one device may have on its way
	// forgetEvery is how often subscriptions are looked for that have ended by
	// themselves and that nobody closed.
	forgetEvery = time.Minute
)

// How often one device, or a gateway for it, may subscribe with notifications, of which
// each subscription makes two that are stored: enough at once for one whose connection
// keeps breaking for a while, and then one a second. Who comes more often waits for its
// turn before anybody hears of it, so that applications are told of each subscription that
// there is, and of its end, in their order.
const (
	subscribeBurst = 30
	subscribeEvery = time.Second
	subscribeOver  = 10 // that wait; more are refused

	maxSubscribers = 100_000 // that are remembered
)

// CommandsOptions configure [NewCommands]. Zero values stand for the defaults above.
type CommandsOptions struct {
	MaxInFlight     int // commands handed to devices at a time that have no outcome yet
	PerSubscription int // of these, of one subscription; of one for all devices of a gateway ten times as many
	Logger          *slog.Logger
}

// Commands knows which devices of this process take commands, of all its
// adapters, and hands them what routers send. There is one in a process. Idle
// subscriptions cost neither a goroutine nor a timer. Safe for concurrent use.
type Commands struct {
	o        CommandsOptions
	tell     announcements
	gateways lastGateways
	paces    *Pacer[subscriber]
	seed     maphash.Seed
	open     atomic.Int64 // subscriptions
	inFlight atomic.Int64 // commands
	shards   [commandShards]commandShard
}

var _ CommandHandler = (*Commands)(nil)

type commandKey struct {
	tenant iot.TenantID
	device iot.DeviceID
}

// subscriber is who subscribes for a device.
type subscriber struct {
	commandKey
	gateway iot.DeviceID // "" = the device itself
}

// commandShard holds the subscriptions of some devices; of each the latest, which
// leads to the ones before it.
type commandShard struct {
	mu     sync.Mutex
	latest map[commandKey]*CommandSubscription
	swept  time.Time
	_      [24]byte // shards share no cache line
}

// NewCommands returns a Commands without subscriptions.
func NewCommands(o CommandsOptions) *Commands {
	orDefault(&o.MaxInFlight, DefaultCommandsInFlight)
	orDefault(&o.PerSubscription, DefaultPerSubscription)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Commands{o: o, seed: maphash.MakeSeed(), paces: NewPacer[subscriber](subscribeBurst, subscribeOver, subscribeEvery, maxSubscribers)}
	for i := range s.shards {
		s.shards[i].latest = make(map[commandKey]*CommandSubscription)
	}
	return s
}

// AnnounceTo names who tells the routers which devices can be reached. It is
// called once, before the first subscription; without it nobody is told.
func (s *Commands) AnnounceTo(a Announcer) { s.tell.to = a }

// Len counts the subscriptions that are open.
func (s *Commands) Len() int { return int(s.open.Load()) }

// InFlight counts the commands that devices have and that have no outcome yet.
func (s *Commands) InFlight() int { return int(s.inFlight.Load()) }

func (s *Commands) shard(k commandKey) *commandShard {
	return &s.shards[maphash.Comparable(s.seed, k)%commandShards]
}

// Why commands are released.
var (
	errNotSubscribed = iot.Errorf(iot.ErrUnavailable, "the device is not subscribed for commands")
	errNotForOthers  = iot.Errorf(iot.ErrUnavailable, "the gateway is not subscribed for the commands of its devices")
	errInFlight      = iot.Errorf(iot.ErrUnavailable, "too many commands are on their way")
)

// Command implements [CommandHandler]: it hands c to the latest subscription of
// its target, or of the gateway that stands in for it. A command for which there
// is none, or that is one too many, is released at once.
func (s *Commands) Command(c *Command, done func(error)) {
	sub, err := s.take(c)
	if err != nil {
		done(err)
		return
	}
	h := &handed{sub: sub, c: c, done: done, start: time.Now()}
	sub.hand(h)
}

// take finds the subscription for c and counts c as on its way there.
func (s *Commands) take(c *Command) (*CommandSubscription, error) {
	k := commandKey{c.Tenant, c.Device}
	if c.Gateway != "" {
		k.device = c.Gateway
	}
	sh := s.shard(k)
	sh.mu.Lock()
	sub := sh.latest[k].inForce(time.Now())
	sh.mu.Unlock()
	switch {
	case sub == nil:
		return nil, errNotSubscribed
	case c.Gateway != "" && !sub.all:
		return nil, errNotForOthers
	case sub.inFlight.Add(1) > s.limit(sub):
		sub.inFlight.Add(-1)
		return nil, errInFlight
	case s.inFlight.Add(1) > int64(s.o.MaxInFlight):
		s.inFlight.Add(-1)
		sub.inFlight.Add(-1)
		return nil, errInFlight
	}
	return sub, nil
}

// limit is how many commands sub may have on their way.
func (s *Commands) limit(sub *CommandSubscription) int32 {
	if sub.all {
		return int32(perGateway * s.o.PerSubscription)
	}
	return int32(s.o.PerSubscription)
}

// handed is one command that a device has.
type handed struct {
	sub   *CommandSubscription
	c     *Command
	done  func(error)
	start time.Time
	ended atomic.Bool
}

// end takes the outcome; only the first one counts.
func (h *handed) end(err error) {
	if h.ended.Swap(true) {
		return
	}
	o := &h.sub.p.o
	o.Commands.inFlight.Add(-1)
	h.sub.inFlight.Add(-1)
	o.Meter.commanded(h.sub.admission().TenantObject(), h.c, h.start, err)
	h.done(err)
}

// Subscribed implements [CommandHandler]. Whoever calls it for a router that knows
// nothing will be told by that router what it prefers, so what others told of
// before is forgotten, as are the gateways that routers were told of.
func (s *Commands) Subscribed() []Announcement {
	s.gateways.forget()
	all := make([]Announcement, 0, s.Len())
	now := time.Now()
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for k, latest := range sh.latest {
			for sub := latest; sub != nil; sub = sub.before {
				sub.superseded = false
			}
			if sub := latest.inForce(now); sub != nil {
				all = append(all, sub.announcement(k))
			}
		}
		sh.mu.Unlock()
	}
	return all
}

// Superseded implements [CommandHandler].
func (s *Commands) Superseded(tenant iot.TenantID, device iot.DeviceID, at int64, is bool) {
	k := commandKey{tenant, device}
	sh := s.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for sub := sh.latest[k]; sub != nil; sub = sub.before {
		if sub.at == at {
			sub.superseded = is
		}
	}
}
