package adapters

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/iot"
)

// DefaultMeterIdle is how long a tenant's figures are kept while nothing
// happens; see [Meter.SetIdle].
const DefaultMeterIdle = time.Hour

const (
	meterShards = 16
	// meterSweepEvery bounds how often new tenants make a shard look for idle
	// ones, where nobody asks for figures.
	meterSweepEvery = time.Minute
	// unknownLabel stands for a tenant or cipher suite that is not known.
	unknownLabel = "UNKNOWN"
)

// Meter counts what devices do through one adapter, in the names and tags of
// Hono (contract: adapters 16). It is a [prometheus.Collector]; the meters of
// several adapters go into one registry. A nil Meter counts nothing.
//
// Tenants are named only after an admission named them, so that nobody makes
// up labels from outside. Counting takes a short lock and neither a goroutine
// nor a timer. Safe for concurrent use.
type Meter struct {
	descs     meterDescs
	made      time.Time
	idle      atomic.Int64 // time.Duration; <= 0 = tenants are never dropped
	connects  atomic.Bool  // the adapter keeps connections
	anonymous atomic.Int64 // connections
	seed      maphash.Seed
	shards    [meterShards]meterShard
}

// meterShard holds the figures of some tenants.
type meterShard struct {
	mu      sync.Mutex
	tenants map[iot.TenantID]*tenantFigures
	swept   time.Duration
	_       [40]byte // shards share no cache line
}

// tenantFigures are what is counted of one tenant. What did not happen yet
// takes no room, and shows nothing.
type tenantFigures struct {
	name        string
	last        time.Duration // when something happened
	uploads     [uploadTypes][uploadStatuses][uploadQoS][uploadTTDs]*uploadFigures
	commands    [directions][uploadStatuses]*uploadFigures
	deliveries  [uploadTypes]*deliveryFigures
	connections *connectionFigures
	attempts    map[attempt]uint64
}

// NewMeter returns the meter of an adapter of the given type, such as hono-mqtt.
func NewMeter(adapterType string) *Meter {
	m := &Meter{descs: newMeterDescs(adapterType), made: time.Now(), seed: maphash.MakeSeed()}
	m.idle.Store(int64(DefaultMeterIdle))
	for i := range m.shards {
		m.shards[i].tenants = make(map[iot.TenantID]*tenantFigures)
	}
	return m
}

// SetIdle sets how long figures of a tenant are kept that has no connection
// and sends nothing; they begin at 0 when it comes back. 0 = for ever.
func (m *Meter) SetIdle(d time.Duration) {
	if m != nil {
		m.idle.Store(int64(d))
	}
}

// now is the time since the meter was made.
func (m *Meter) now() time.Duration { return time.Since(m.made) }

// lock returns the shard of a tenant, locked, and the tenant's figures, which
// are made where there are none.
func (m *Meter) lock(tenant iot.TenantID, now time.Duration) (*meterShard, *tenantFigures) {
	s := &m.shards[maphash.String(m.seed, string(tenant))%meterShards]
	s.mu.Lock()
	t := s.tenants[tenant]
	if t == nil {
		if tenant == "" || !utf8.ValidString(string(tenant)) {
			s.mu.Unlock()
			return m.lock(unknownLabel, now)
		}
		if now-s.swept >= meterSweepEvery {
			m.sweep(s, now)
		}
		t = &tenantFigures{name: string(tenant)}
		s.tenants[tenant] = t
	}
	t.last = max(t.last, now)
	return s, t
}

// known reports whether figures of a tenant are kept.
func (m *Meter) known(tenant iot.TenantID) bool {
	s := &m.shards[maphash.String(m.seed, string(tenant))%meterShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tenants[tenant] != nil
}

// sweep drops the tenants of a shard that were idle for long. s is locked.
func (m *Meter) sweep(s *meterShard, now time.Duration) {
	s.swept = now
	idle := time.Duration(m.idle.Load())
	if idle <= 0 {
		return
	}
	dropped := false
	for id, t := range s.tenants {
		if now-t.last >= idle && t.open() == 0 {
			delete(s.tenants, id)
			dropped = true
		}
	}
	if dropped && len(s.tenants) == 0 {
		s.tenants = make(map[iot.TenantID]*tenantFigures) // a map never shrinks
	}
}

// snapshot copies the figures as they are now, and drops those of idle tenants.
func (m *Meter) snapshot(now time.Duration) (all []tenantFigures) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		m.sweep(s, now)
		for _, t := range s.tenants {
			all = append(all, t.clone(now))
		}
		s.mu.Unlock()
	}
	return all
}
