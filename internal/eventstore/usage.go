package eventstore

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

const (
	// usageAge is how long, in ms, what a tenant has stored is believed.
	usageAge = 1000
	// recountAge is the same before somebody is refused: applications may have taken some since.
	recountAge = 20
	maxUsage   = 100_000 // tenants
	// quotaRetry is when whoever was refused for a quota may ask again.
	quotaRetry = 10 * time.Second
)

// used is what a tenant has stored.
type used struct {
	at              int64
	quota           Quota
	messages, bytes int64
}

// usages remembers it for a moment, so that an append need not count.
type usages struct {
	mu    sync.Mutex
	m     map[iot.TenantID]*used
	loads map[iot.TenantID]*loading
}

// loading is a count on its way, for all who need it.
type loading struct {
	done chan struct{} // closed when the rest is set
	used used
	err  error
}

// of returns a copy of what is known of a tenant, from load where that is older than age, in ms.
func (u *usages) of(ctx context.Context, tenant iot.TenantID, now, age int64, load func() (used, error)) (used, error) {
	for {
		u.mu.Lock()
		if x := u.m[tenant]; x != nil && now-x.at < age && now >= x.at {
			defer u.mu.Unlock()
			return *x, nil
		}
		l := u.loads[tenant]
		if l == nil {
			if l = (&loading{done: make(chan struct{})}); u.loads == nil {
				u.loads = map[iot.TenantID]*loading{}
			}
			u.loads[tenant] = l
			u.mu.Unlock()
			u.load(tenant, now, l, load)
			return l.used, l.err
		}
		u.mu.Unlock()
		select {
		case <-l.done:
		case <-ctx.Done():
			return used{}, ctx.Err()
		}
		if !errors.Is(l.err, context.Canceled) && !errors.Is(l.err, iot.ErrTimeout) { // that was another's haste
			return l.used, l.err
		}
	}
}

func (u *usages) load(tenant iot.TenantID, now int64, l *loading, load func() (used, error)) {
	l.err = errUncounted // should load panic
	defer func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.loads, tenant)
		if l.used.at = now; l.err == nil {
			if u.m == nil || len(u.m) >= maxUsage {
				u.m = map[iot.TenantID]*used{} // all are counted anew, which is no harm
			}
			fresh := l.used
			u.m[tenant] = &fresh
		}
		close(l.done)
	}()
	l.used, l.err = load()
}

var errUncounted = iot.Errorf(iot.ErrUnavailable, "what the tenant has stored could not be counted")

// add counts what was just stored.
func (u *usages) add(tenant iot.TenantID, messages, bytes int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if x := u.m[tenant]; x != nil {
		x.messages, x.bytes = x.messages+messages, x.bytes+bytes
	}
}

// refuse makes an error the result of a record.
func refuse(a *Appended, err error) {
	row := status.Of(err)
	a.Status, a.Error = row.Status, status.Text(err)
	if after := iot.RetryAfter(err); after > 0 {
		a.RetryAfterSeconds = int(math.Ceil(after.Seconds()))
	}
}
