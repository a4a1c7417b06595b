package adapters

import (
	"context"
	"encoding/json"
	"maps"
	"math"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// The types of notices (contract: messaging, section 14).
const (
	NoticeTenant         = "tenant-change-v1"
	NoticeDevice         = "device-change-v1"
	NoticeCredentials    = "credentials-change-v1"
	NoticeDevicesDeleted = "all-devices-of-tenant-deleted-v1"
)

// NoticeAddresses are where a router sends notices.
var NoticeAddresses = []string{"notification/registry-tenant", "notification/registry-device"}

// Notice is a change of the registry. Its JSON is Hono's.
type Notice struct {
	Type    string       `json:"type"`
	Change  string       `json:"change"` // CREATE, UPDATE or DELETE
	Tenant  iot.TenantID `json:"tenant-id"`
	Device  iot.DeviceID `json:"device-id"` // "" where it is about a tenant
	Enabled bool         `json:"enabled"`
}

// ParseNotice reads the payload of a notification. Of a type that is not known
// only the members are, which is no error.
func ParseNotice(payload []byte) (n Notice, err error) {
	if err = json.Unmarshal(payload, &n); err == nil && n.Tenant == "" {
		err = iot.Errorf(iot.ErrInvalid, "notification without tenant-id")
	}
	return n, err
}

// NoticeHandler is told of changes of the registry by whoever hears of them.
type NoticeHandler interface {
	// Notice is called with each notice, maybe more than once. It does not wait.
	Notice(n Notice)
	// Following tells whether from now on every notice comes.
	Following(yes bool)
}

// NoticeHandlers hands on what it is told to each of its members in turn.
type NoticeHandlers []NoticeHandler

// Notice implements [NoticeHandler].
func (hs NoticeHandlers) Notice(n Notice) {
	for _, h := range hs {
		h.Notice(n)
	}
}

// Following implements [NoticeHandler].
func (hs NoticeHandlers) Following(yes bool) {
	for _, h := range hs {
		h.Following(yes)
	}
}

// UnfollowedAge is how old an answer may be that no notice can end: while
// notices do not come, and for those that were asked for before they came
// (contract: events, section 4.1).
const UnfollowedAge = 300 * time.Second

// refreshTimeout bounds how long a changed tenant's old settings stay in use.
const refreshTimeout = time.Second

// maxRefreshes bounds how many tenants are asked for at once.
const maxRefreshes = 16

// never is later than any question: nothing is followed.
const never = math.MaxInt64

// following ends answers before their time.
type following struct {
	since  atomic.Int64 // nanoseconds of Admissions.age: later questions are followed
	recent recent
	index  index

	mu         sync.Mutex
	refreshing map[iot.TenantID]bool // true = once more
	turns      chan struct{}
}

func (f *following) init() {
	f.since.Store(never)
	f.index.tenants = make(map[iot.TenantID]*tenantEntries)
	f.refreshing = make(map[iot.TenantID]bool)
	f.turns = make(chan struct{}, maxRefreshes)
}

// age is the time since a was made: monotonic, and small enough for an atomic.
func (a *Admissions) age(now time.Time) int64 { return int64(now.Sub(a.made)) }

// valid reports whether e may be used now.
func (a *Admissions) valid(e *entry, now time.Time) bool {
	if e == nil || e.gone.Load() {
		return false
	}
	age := a.age(now)
	return age < e.expires && (e.asked > a.follow.since.Load() || age < e.asked+int64(UnfollowedAge))
}

// Following implements [NoticeHandler].
func (a *Admissions) Following(yes bool) {
	if !yes {
		a.follow.since.Store(never)
		return
	}
	a.follow.since.Store(a.age(time.Now()))
}

// Notice implements [NoticeHandler]: what it concerns is asked for anew. A
// tenant that was changed and is still enabled is looked up once for all its devices.
func (a *Admissions) Notice(n Notice) {
	f := &a.follow
	f.recent.add(n.Tenant, n.Device) // before the look, so that answers under way are caught either here or there
	switch {
	case n.Type == NoticeTenant && n.Enabled:
		if f.index.has(n.Tenant) {
			a.refresh(n.Tenant)
		}
	default:
		a.dropAll(n.Tenant, n.Device)
	}
}

// dropAll forgets what is known of a device, or with "" of a tenant.
func (a *Admissions) dropAll(tenant iot.TenantID, device iot.DeviceID) {
	for _, e := range a.follow.index.end(tenant, device) {
		a.drop(e)
	}
}

// refresh asks for a tenant and gives its entries the new settings; one
// question at a time for each tenant.
func (a *Admissions) refresh(tenant iot.TenantID) {
	f := &a.follow
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, under := f.refreshing[tenant]; under {
		f.refreshing[tenant] = true
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	f.refreshing[tenant] = false
	a.wg.Go(func() { a.runRefresh(tenant) })
}

func (a *Admissions) runRefresh(tenant iot.TenantID) {
	f := &a.follow
	for again, failures := true, 0; again; {
		err := a.refreshOnce(tenant)
		if err != nil {
			a.dropAll(tenant, "")
		}
		wait := a.settleSessions(tenant, err, failures)
		failures++
		f.mu.Lock()
		if again = f.refreshing[tenant] || wait > 0; again {
			f.refreshing[tenant] = false
		} else {
			delete(f.refreshing, tenant)
		}
		f.mu.Unlock()
		if wait > 0 && !a.sleep(wait) {
			return
		}
	}
}

// settleSessions tells the sessions of a tenant what came of asking for it, and
// says after which time to ask again, because some of them cannot be told.
func (a *Admissions) settleSessions(tenant iot.TenantID, err error, failures int) time.Duration {
	if err == nil {
		return 0
	}
	sessions := a.follow.index.sessions(nil, tenant, "")
	if len(sessions) == 0 {
		return 0
	}
	if !refusal(err) {
		return backOff(failures, err)
	}
	endSessions(sessions, errTenantGone)
	return 0
}

// sleep waits; false when a is closed meanwhile.
func (a *Admissions) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-a.base.Done():
		return false
	}
}

func (a *Admissions) refreshOnce(tenant iot.TenantID) error {
	ctx, cancel := context.WithTimeout(a.base, refreshTimeout)
	defer cancel()
	select {
	case a.follow.turns <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-a.follow.turns }()
	got, err := events.Call(ctx, a.o.Invoker, events.TenantGet{ID: tenant})
	switch {
	case err != nil:
		return err
	case got == nil || got.ID != tenant || !got.Enabled:
		return iot.Errorf(iot.ErrForbidden, "tenant is disabled or not registered")
	}
	s, barred := newSettings(&got.TenantObject), make(map[*Session]bool)
	for range maxLooks {
		if a.follow.recent.add(tenant, ""); !a.resettle(tenant, s, barred) {
			break
		}
	}
	endSessions(slices.Collect(maps.Keys(barred)), errAdapterOff)
	return nil
}

// maxLooks bounds how often the answers of a tenant are looked through: once and
// again as long as some came from old ones meanwhile, by devices that come and go.
const maxLooks = 16

// resettle gives a tenant's answers other settings, or ends them, and reports
// whether there were any. Who is on the way in by an older one learns from the
// log of notices, before each look, that there was a change.
func (a *Admissions) resettle(tenant iot.TenantID, to *settings, barred map[*Session]bool) (some bool) {
	for _, e := range a.follow.index.ofTenant(tenant) {
		if e.settings == to || barred[e.owner] {
			continue
		}
		some = true
		was := &e.settings.object
		switch {
		case e.owner != nil:
			if !e.owner.settled(e, to) {
				barred[e.owner] = true
			}
		case !reflect.DeepEqual(was.Adapters, to.object.Adapters) || !reflect.DeepEqual(was.TrustedCA, to.object.TrustedCA):
			a.drop(e) // whether it may still come in is the function's to say
		default:
			a.cache.replace(e, e.withSettings(to))
		}
	}
	return some
}

// recent remembers the latest notices, for answers that were under way when
// they came.
type recent struct {
	mu  sync.Mutex
	n   uint64 // notices so far
	log [1024]struct {
		tenant iot.TenantID
		device iot.DeviceID
	}
}

func (r *recent) add(tenant iot.TenantID, device iot.DeviceID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := &r.log[r.n%uint64(len(r.log))]
	at.tenant, at.device = tenant, device
	r.n++
}

func (r *recent) position() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

// concerned reports whether a notice since the given position concerns e; when
// that is too long ago to tell, it says yes.
func (r *recent) concerned(e *entry, since uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	size := uint64(len(r.log))
	if r.n-since > size {
		return true
	}
	for ; since < r.n; since++ {
		at := &r.log[since%size]
		if at.tenant == e.tenant() && (at.device == "" || at.device == e.device || at.device == e.gateway) {
			return true
		}
	}
	return false
}
