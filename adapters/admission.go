package adapters

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/attempts"
)

// Defaults of [AdmissionOptions].
const (
	DefaultMaxEntries         = 100_000
	DefaultAdmissionTimeout   = 10 * time.Second
	DefaultMaxCalls           = 10_000
	DefaultFailuresPerAuthID  = 10
	DefaultFailuresPerAddress = 1000
)

// sweepEvery is how often answers that have ended are looked for.
const sweepEvery = time.Minute

// AdmissionOptions configure [NewAdmissions]. Zero values stand for the
// defaults above.
type AdmissionOptions struct {
	Invoker    events.Invoker // required
	MaxAge     time.Duration  // longest time an answer is used; 0 = as long as it says, < 0 = not beyond the call
	MaxEntries int            // answers kept
	Timeout    time.Duration  // for one invocation, waiting for its turn included
	MaxCalls   int            // invocations under way or waiting for their turn

	FailuresPerAuthID  int // failed attempts a minute; < 0 = no limit
	FailuresPerAddress int // the same per remote address
	Logger             *slog.Logger
}

// Request is one device at the door.
type Request struct {
	Admit  events.Admit // Adapter is filled in by [Pipeline.Admit]
	Remote netip.Addr   // where the device connects from; the zero Addr is not limited

	context string // Admit.Context as JSON, where a session keeps it so
	renewal bool   // of a device that is in
}

// Admissions answers who may come in. It asks the admission function and keeps
// the answers as long as they say, while it is a [NoticeHandler] that is told
// what changes, else for [UnfollowedAge]. Each adapter of a process has its own, and
// with it its own limits of failed attempts. Safe for concurrent use.
type Admissions struct {
	o     AdmissionOptions
	keys  *keyer
	cache cache
	made  time.Time

	follow following

	auth    *attempts.Limit[uint64]
	address *attempts.Limit[netip.Addr]

	stop context.CancelFunc
	base context.Context // ends with Close
	wg   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	calls  int
}

// NewAdmissions returns an Admissions that asks o.Invoker. Close it.
func NewAdmissions(o AdmissionOptions) *Admissions {
	if o.Invoker == nil {
		panic("adapters: NewAdmissions without an Invoker")
	}
	orDefault(&o.MaxEntries, DefaultMaxEntries)
	orDefault(&o.Timeout, DefaultAdmissionTimeout)
	orDefault(&o.MaxCalls, DefaultMaxCalls)
	orDefault(&o.FailuresPerAuthID, DefaultFailuresPerAuthID)
	orDefault(&o.FailuresPerAddress, DefaultFailuresPerAddress)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Admissions{
		o: o, keys: newKeyer(), made: time.Now(),
		auth:    attempts.New[uint64](o.FailuresPerAuthID, o.MaxEntries),
		address: attempts.New[netip.Addr](o.FailuresPerAddress, o.MaxEntries),
	}
	a.follow.init()
	a.cache.init(o.MaxEntries, sweepEvery, a.valid, &a.follow.index)
	a.base, a.stop = context.WithCancel(context.Background())
	return a
}

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Close ends the invocations under way and waits for them. Requests that come
// later are refused with ErrUnavailable, unless they are cached.
func (a *Admissions) Close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.stop()
	a.wg.Wait()
	a.cache.close()
}

// Admit answers r from the cache or asks; concurrent equal questions are asked
// once, and the call goes on when the one who came first is gone. Errors are
// those of the admission function (contract: events 4.1), ErrQuota with a
// retry time after too many failed attempts, or ctx's own. Errors are not
// cached. r must not change while the Admission is in use.
//
// Once failures have used up the limit of an auth-id or an address, a cached
// answer is given only to the address that asked for it: the cache must not
// tell others which of their guesses is right.
func (a *Admissions) Admit(ctx context.Context, r *Request) (Admission, error) {
	e, _, err := a.admit(ctx, r, true)
	if err != nil {
		return Admission{}, err
	}
	return Admission{req: r, e: e}, nil
}

// admit is Admit with the position in the log of notices that the answer is
// not older than. keep false leaves the answer to the caller alone.
func (a *Admissions) admit(ctx context.Context, r *Request, keep bool) (*entry, uint64, error) {
	k, err := a.keys.key(r)
	if err != nil {
		return nil, 0, err
	}
	position, now, address := a.follow.recent.position(), time.Now(), attempts.Address(r.Remote)
	refused := a.refused(r, address, now)
	if e := a.cache.get(k, now); e != nil && (refused == 0 || e.address == address) {
		if !keep {
			a.cache.drop(e)
		}
		return e, position, nil
	}
	if refused > 0 {
		return nil, 0, attempts.TooMany(refused)
	}
	e, c, first := a.cache.join(k, now)
	if e != nil {
		return e, position, nil
	}
	if first {
		a.start(ctx, k, c, r, keep)
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		c.left.Store(true)
		return nil, 0, ctx.Err()
	}
	return c.entry, c.position, c.err
}

// tryAdmit is Admit for who does not wait: nil where it would have to.
func (a *Admissions) tryAdmit(r *Request) (*entry, error) {
	k, err := a.keys.key(r)
	if err != nil {
		return nil, err
	}
	now, address := time.Now(), attempts.Address(r.Remote)
	e := a.cache.get(k, now)
	if e == nil || e.address != address && a.refused(r, address, now) > 0 {
		return nil, nil
	}
	return e, nil
}

// AdmissionCounts tell how admissions went since the start.
type AdmissionCounts struct {
	Hits, Misses uint64 // look-ups that the cache answered, and others
	Kept         int    // answers, some of them expired
	Asking       int    // calls under way
	Following    bool   // of every registry change
}

// Counts returns what [AdmissionCounts] says.
func (a *Admissions) Counts() AdmissionCounts {
	n := AdmissionCounts{Following: a.follow.since.Load() != never}
	n.Hits, n.Misses, n.Kept = a.cache.counts()
	a.mu.Lock()
	n.Asking = a.calls
	a.mu.Unlock()
	return n
}

// renew asks anew for what old answered, unless somebody did so already.
func (a *Admissions) renew(ctx context.Context, old Admission) (Admission, error) {
	if old.s != nil {
		return old.s.readmit(ctx, old.e)
	}
	a.drop(old.e)
	return a.Admit(ctx, old.req)
}

// renewThen is renew for who does not wait. Those that renew the admission of
// one session are told one after the other, in the order in which they asked.
func (a *Admissions) renewThen(old Admission, then func(Admission, error)) {
	if old.s.owns(old.e) {
		old.s.renew(old.e, then)
		return
	}
	if !a.aside(func() { then(a.renew(a.base, old)) }) {
		then(Admission{}, errTooBusy)
	}
}

// aside runs f in a goroutine that Close waits for; false after Close.
func (a *Admissions) aside(f func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.wg.Go(f)
	}
	return !a.closed
}

// retire takes a session's answer out of use. The first one, which the device got
// for what it proved, serves it when it comes back; the later ones do not,
// because it got them without its secret.
func (a *Admissions) retire(e *entry) {
	if now := time.Now(); e.key != (key{}) && a.valid(e, now) {
		kept := &entry{answer: e.answer}
		a.cache.add(kept, now)
		if e.gone.Load() { // before kept was to be found
			a.drop(kept)
		}
	}
	a.follow.index.remove(e)
}

// forget takes a session's answer out of use, and what was kept of it for the
// session's return.
func (a *Admissions) forget(e *entry) {
	e.gone.Store(true) // first: whoever is about to keep it looks after that
	a.cache.drop(e)
}

// drop forgets an answer.
func (a *Admissions) drop(e *entry) {
	e.gone.Store(true)
	if e.owner == nil {
		a.cache.drop(e)
	}
}

// refused says for how long r's auth-id or address is shut out.
func (a *Admissions) refused(r *Request, address netip.Addr, now time.Time) time.Duration {
	if r.renewal {
		return 0
	}
	d := a.address.Blocked(address, now)
	if a.auth.Full() {
		d = max(d, a.auth.Blocked(authKey(r), now))
	}
	return d
}
