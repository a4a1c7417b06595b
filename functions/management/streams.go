package management

import (
	"sync"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// maxStreams is how many bulk requests, exports and imports there are at once:
	// each of them holds some megabytes.
	maxStreams = 8
	// maxTenantStreams of them may be of one tenant, so that whoever may manage
	// one tenant cannot keep the others waiting.
	maxTenantStreams = 3
)

// streams counts the long requests under way.
type streams struct {
	mu     sync.Mutex
	all    int
	tenant map[iot.TenantID]int
}

// enter takes room for a long request. iot.ErrUnavailable when there is none.
func (s *streams) enter(tenant iot.TenantID) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= maxStreams || s.tenant[tenant] >= maxTenantStreams {
		return nil, &iot.Error{Sentinel: iot.ErrUnavailable, Text: "too many bulk requests, exports and imports at once", RetryAfter: 5 * time.Second}
	}
	if s.tenant == nil {
		s.tenant = make(map[iot.TenantID]int)
	}
	s.all++
	s.tenant[tenant]++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all--
		if s.tenant[tenant]--; s.tenant[tenant] == 0 {
			delete(s.tenant, tenant)
		}
	}), nil
}
