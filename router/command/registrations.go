package command

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// maxRegistrations is how many registrations are kept.
	maxRegistrations = 100_000
	// maxRegistrationAge is how long one is kept at most: so long may changes go
	// unheard, see router/notices.
	maxRegistrationAge = 300 * time.Second
	// maxLookups is how many registrations are read at a time.
	maxLookups = 64
	// maxWaiting is how many commands wait for that.
	maxWaiting = 20_000
	// lookupTimeout is how long reading one may take.
	lookupTimeout = 5 * time.Second
	// collapseTime is for how long those who come while others are answered get the
	// same answer at least, whether or not it may be kept.
	collapseTime = time.Second
)

// registrations reads which gateways may act for a device, and keeps it.
type registrations struct {
	invoker events.Invoker
	log     *slog.Logger
	ctx     context.Context
	cancel  context.CancelFunc
	working sync.WaitGroup

	mu      sync.Mutex
	known   recent[key, registration]
	lines   map[key]*line
	turns   turns
	workers int
	closed  bool

	// A change of a gateway may be one of its groups, which changes the registrations of
	// others. changes counts the changes of devices, and latest has the number of each
	// device's last one.
	changes uint64
	latest  map[key]uint64
}

// registration is what is known of a device that exists and is enabled.
type registration struct {
	via     []iot.DeviceID
	until   time.Time
	changes uint64 // before it was read
}

// line is a device whose registration is being read, and those who wait for it
// in the order in which they came.
type line struct {
	key     key
	stale   bool      // something changed since reading began
	changes uint64    // before that
	until   time.Time // for those who come meanwhile what was read is good
	waiters []func(via []iot.DeviceID, err error)
}

func newRegistrations(invoker events.Invoker, log *slog.Logger) *registrations {
	g := &registrations{invoker: invoker, log: log, known: recent[key, registration]{max: maxRegistrations},
		lines: map[key]*line{}, latest: map[key]uint64{}}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

// close ends what is under way; those who wait hear an error.
func (g *registrations) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.cancel()
	g.working.Wait()
}

// with calls f with what is known of a device: at once, or when it was read.
// For one device f is called in the order in which with was. It reports false, and
// does not call f, when too many wait, of all tenants or of this one.
func (g *registrations) with(k key, f func(via []iot.DeviceID, err error)) bool {
	g.mu.Lock()
	l := g.lines[k]
	if l == nil {
		if r, ok := g.known.get(k); ok && time.Now().Before(r.until) && !g.moved(k.tenant, r.via, r.changes) {
			g.mu.Unlock()
			f(r.via, nil)
			return true
		}
	}
	defer g.mu.Unlock()
	if g.closed || !g.turns.enter(k.tenant) {
		return false
	}
	if l == nil {
		l = &line{key: k}
		g.lines[k] = l
		g.turns.push(l)
		if g.workers < maxLookups {
			g.workers++
			g.working.Go(g.work)
		}
	}
	l.waiters = append(l.waiters, f)
	return true
}

// work reads registrations while there are some to read.
func (g *registrations) work() {
	for {
		g.mu.Lock()
		l := g.turns.pop()
		if l == nil {
			g.workers--
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		g.answer(l)
	}
}

// answer reads a line's registration and tells those who wait, also those who
// come meanwhile.
func (g *registrations) answer(l *line) {
	for {
		got, err := g.fresh(l)
		var via []iot.DeviceID
		if err == nil {
			via = got.Via
		}
		if g.tell(l, via, g.age(got), err) {
			return
		}
	}
}

// tell tells those who wait in a line, until nobody does; false = it has to be read
// anew for those who are left.
func (g *registrations) tell(l *line, via []iot.DeviceID, age time.Duration, err error) bool {
	l.until = time.Now().Add(max(age, collapseTime))
	for first := true; ; first = false {
		g.mu.Lock()
		outdated := l.stale || g.moved(l.key.tenant, via, l.changes)
		if len(l.waiters) == 0 {
			delete(g.lines, l.key)
			if age > 0 && !outdated {
				g.known.put(l.key, registration{via, time.Now().Add(age), l.changes})
			}
			g.mu.Unlock()
			return true
		}
		if !first && (outdated || time.Now().After(l.until)) {
			g.mu.Unlock()
			return false
		}
		waiters := l.waiters
		l.waiters = nil
		g.turns.leave(l.key.tenant, len(waiters))
		g.mu.Unlock()
		for _, f := range waiters {
			f(via, err)
		}
	}
}

func (g *registrations) age(got *events.RegistrationAsserted) time.Duration {
	if got == nil {
		return 0
	}
	return min(got.MaxAge(), maxRegistrationAge)
}

// fresh reads a registration, once more if it changed meanwhile.
func (g *registrations) fresh(l *line) (*events.RegistrationAsserted, error) {
	g.begin(l)
	got, err := g.read(l.key)
	g.mu.Lock()
	again := (l.stale || err == nil && g.moved(l.key.tenant, got.Via, l.changes)) && g.ctx.Err() == nil
	g.mu.Unlock()
	if again {
		g.begin(l)
		got, err = g.read(l.key)
	}
	return got, err
}

// begin notes that reading begins.
func (g *registrations) begin(l *line) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l.stale, l.changes = false, g.changes
}

// moved reports whether one of a device's gateways has changed since so many changes. g is locked.
func (g *registrations) moved(tenant iot.TenantID, via []iot.DeviceID, since uint64) bool {
	if g.changes == since {
		return false
	}
	for _, gateway := range via {
		if g.latest[key{tenant, gateway}] > since {
			return true
		}
	}
	return false
}

var errPanic = errors.New("panic")

func (g *registrations) read(k key) (got *events.RegistrationAsserted, err error) {
	defer func() {
		if v := recover(); v != nil {
			g.log.Error("panic while a registration was read", "tenant", k.tenant, "stack", string(debug.Stack()))
			got, err = nil, errPanic
		}
	}()
	ctx, cancel := context.WithTimeout(g.ctx, lookupTimeout)
	defer cancel()
	got, err = events.Call(ctx, g.invoker, events.RegistrationAssert{TenantID: k.tenant, DeviceID: k.device})
	if err != nil {
		return nil, err
	}
	return got, nil
}

// changed forgets what is known of a device, or with "" of all of a tenant.
func (g *registrations) changed(tenant iot.TenantID, device iot.DeviceID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if device != "" {
		g.note(key{tenant, device})
		g.known.drop(key{tenant, device})
		if l := g.lines[key{tenant, device}]; l != nil {
			l.stale = true
		}
		return
	}
	g.known.dropIf(func(k key) bool { return k.tenant == tenant })
	for k, l := range g.lines {
		if k.tenant == tenant {
			l.stale = true
		}
	}
}

// note numbers a change. When there are too many to remember nothing read before is known
// any more. g is locked.
func (g *registrations) note(k key) {
	g.changes++
	if len(g.latest) >= maxRegistrations {
		clear(g.latest)
		g.known = recent[key, registration]{max: maxRegistrations}
		for _, l := range g.lines {
			l.stale = true
		}
	}
	g.latest[k] = g.changes
}

// Changed forgets what is known of the registration of a device, and of those that it may
// act for, or with "" of all devices of a tenant.
func (d *Directory) Changed(tenant iot.TenantID, device iot.DeviceID) { d.regs.changed(tenant, device) }
