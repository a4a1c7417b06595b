package adapters

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/attempts"
	"github.com/sluice-iot/sluice/internal/iot"
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
}

// Admission is the answer to a [Request]: the device is let in. It is valid
// for the upload at hand; ask again for the next one. The zero Admission lets
// nobody in.
type Admission struct {
	req *Request
	e   *entry
}

// Admitted returns the function's answer. It is shared and must not be changed.
func (a Admission) Admitted() *events.Admitted { return a.e.admitted }

// Tenant returns the id of the tenant, never an alias.
func (a Admission) Tenant() iot.TenantID { return a.e.admitted.TenantObject.ID }

// Device returns the device that the message is from.
func (a Admission) Device() iot.DeviceID { return a.e.admitted.DeviceID }

// Gateway returns the gateway that acts for the device, or "".
func (a Admission) Gateway() iot.DeviceID { return a.e.admitted.GatewayID }

// entry is one cached answer with what is computed from it once. It does not
// change after it was made.
type entry struct {
	key      key
	asked    int64 // when the question was put: Admissions.age
	admitted *events.Admitted
	defaults defaults
	limits   ttlLimits
	expires  time.Time
	address  netip.Addr // which asked for it
}

// Admissions answers who may come in. It asks the admission function and keeps
// the answers as long as they say, while it is a [NoticeHandler] that is told
// what changes, else for [UnfollowedAge]; several adapters of a process share one, and
// with it the limits of failed attempts. Safe for concurrent use.
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
	k, err := a.keys.key(r)
	if err != nil {
		return Admission{}, err
	}
	now, address := time.Now(), attempts.Address(r.Remote)
	refused := a.refused(r, address, now)
	if e := a.cache.get(k, now); e != nil && (refused == 0 || e.address == address) {
		return Admission{r, e}, nil
	}
	if refused > 0 {
		return Admission{}, attempts.TooMany(refused)
	}
	e, c, first := a.cache.join(k, now)
	if e != nil {
		return Admission{r, e}, nil
	}
	if first {
		a.start(ctx, k, c, r, address)
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return Admission{}, ctx.Err()
	}
	if c.err != nil {
		return Admission{}, c.err
	}
	return Admission{r, c.entry}, nil
}

// tryAdmit is Admit for who does not wait; ok is false where it would have to.
func (a *Admissions) tryAdmit(r *Request) (who Admission, ok bool, err error) {
	k, err := a.keys.key(r)
	if err != nil {
		return Admission{}, true, err
	}
	now, address := time.Now(), attempts.Address(r.Remote)
	e := a.cache.get(k, now)
	if e == nil || e.address != address && a.refused(r, address, now) > 0 {
		return Admission{}, false, nil
	}
	return Admission{r, e}, true, nil
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
	a.cache.drop(old.e)
	return a.Admit(ctx, old.req)
}

// refused says for how long r's auth-id or address is shut out.
func (a *Admissions) refused(r *Request, address netip.Addr, now time.Time) time.Duration {
	d := a.address.Blocked(address, now)
	if a.auth.Full() {
		d = max(d, a.auth.Blocked(authKey(r), now))
	}
	return d
}

// start runs the call in a goroutine of its own, so that it outlives the
// request that happened to come first.
func (a *Admissions) start(ctx context.Context, k key, c *call, r *Request, address netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.calls >= a.o.MaxCalls {
		a.cache.finish(k, c, nil, iot.Errorf(iot.ErrUnavailable, TextUnavailable))
		return
	}
	a.calls++
	request := *r
	asked, position := a.age(time.Now()), a.follow.recent.position()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.o.Timeout)
	a.wg.Go(func() {
		defer cancel()
		defer context.AfterFunc(a.base, cancel)()
		e, err := a.ask(ctx, &request, address)
		if e != nil {
			e.key, e.asked = k, asked
		}
		a.cache.finish(k, c, e, err)
		if e != nil && a.follow.recent.concerned(e, position) {
			a.cache.drop(e) // it may tell how things were before the change
		}
		a.mu.Lock()
		a.calls--
		a.mu.Unlock()
	})
}

// ask waits for its turn under the limits and invokes. The auth-id comes first:
// its few places may wait for the address's many, never the other way round.
func (a *Admissions) ask(ctx context.Context, r *Request, address netip.Addr) (*entry, error) {
	id := authKey(r)
	if err := a.auth.Begin(ctx, id); err != nil {
		return nil, admissionError(err)
	}
	if err := a.address.Begin(ctx, address); err != nil {
		a.auth.End(id, false)
		return nil, admissionError(err)
	}
	admitted, err := a.invoke(ctx, r)
	failed := errors.Is(err, iot.ErrUnauthenticated)
	a.address.End(address, failed)
	a.auth.End(id, failed)
	if err != nil {
		return nil, admissionError(err)
	}
	return a.entry(admitted, address), nil
}

// invoke calls the function and refuses answers that would send a message
// nowhere. A panic of an in-process function must not take the adapter along.
func (a *Admissions) invoke(ctx context.Context, r *Request) (admitted *events.Admitted, err error) {
	defer func() {
		if p := recover(); p != nil {
			a.o.Logger.Error("admission panicked", "tenant", r.Admit.TenantRef.ID, "adapter", r.Admit.Adapter, "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			admitted, err = nil, errors.New("admission panicked")
		}
	}()
	admitted, err = events.Call(ctx, a.o.Invoker, r.Admit)
	switch {
	case err != nil:
		return nil, err
	case admitted == nil || admitted.TenantObject.ID == "" || admitted.DeviceID == "":
		return nil, errors.New("admission answered without tenant or device")
	}
	return admitted, nil
}

// admissionError turns the end of our own patience into ErrUnavailable.
func admissionError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return &shownError{shown: iot.Errorf(iot.ErrUnavailable, TextUnavailable), cause: fmt.Errorf("admission: %w", err)}
	}
	return err
}

func (a *Admissions) entry(admitted *events.Admitted, address netip.Addr) *entry {
	now := time.Now()
	age := admitted.MaxAge()
	if a.o.MaxAge != 0 {
		age = min(age, a.o.MaxAge)
	}
	own := *admitted
	own.TenantObject = *a.follow.index.shared(&admitted.TenantObject)
	e := &entry{admitted: &own, address: address, expires: now.Add(age)}
	if end := admitted.AssertionExpires; !end.IsZero() && end.Before(e.expires) {
		e.expires = end
	}
	e.settle()
	return e
}

// settle computes what follows from the answer.
func (e *entry) settle() {
	t := &e.admitted.TenantObject
	e.defaults = mergeDefaults(t.Defaults, e.admitted.Registration.Defaults)
	e.limits = parseTTLLimits(t.ResourceLimits)
}

func (e *entry) tenant() iot.TenantID { return e.admitted.TenantObject.ID }
