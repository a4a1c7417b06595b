package eventstore

import (
	"math"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

const (
	// usageAge is how long, in ms, what a tenant has stored is believed.
	usageAge = 1000
	maxUsage = 100_000 // tenants
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
	mu sync.Mutex
	m  map[iot.TenantID]*used
}

// of returns a copy of what is known of a tenant, from load where that is too old.
func (u *usages) of(tenant iot.TenantID, now int64, load func() (used, error)) (used, error) {
	u.mu.Lock()
	x := u.m[tenant]
	if x != nil && now-x.at < usageAge && now >= x.at {
		defer u.mu.Unlock()
		return *x, nil
	}
	u.mu.Unlock()
	fresh, err := load()
	if err != nil {
		return used{}, err
	}
	fresh.at = now
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.m == nil || len(u.m) >= maxUsage {
		u.m = map[iot.TenantID]*used{} // all are counted anew, which is no harm
	}
	u.m[tenant] = &fresh
	return fresh, nil
}

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
