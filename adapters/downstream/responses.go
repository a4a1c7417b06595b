package downstream

import (
	"container/list"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/iot"
)

const (
	// maxReplyID is how long the R of command_response/T/R may be, in bytes.
	maxReplyID = 1024
	// busyLooks is how many targets that are in use are passed over in search of one
	// that is not.
	busyLooks = 32
	// responsePart is the part of MaxWaiting that is left to each address of
	// responses. Devices name these addresses, so what each has must be little.
	responsePart = 250
)

// responses are the targets of command responses: an address each, of which an
// application makes as many as it likes. They are few at a time, and none stays long.
// The lock is taken before that of a target.
type responses struct {
	mu        sync.Mutex
	byAddress map[string]*list.Element // of *responseTarget
	recent    list.List                // the latest used first
	tenants   map[iot.TenantID]int     // how many each has; see [tenantShare]
}

type responseTarget struct {
	*target
	tenant iot.TenantID
	used   time.Duration // by Set.now
}

// checkResponse checks what only command responses have (contract: messaging 9.4).
func checkResponse(m *iot.Message) error {
	switch {
	case m.ReplyID == "" || len(m.ReplyID) > maxReplyID || !utf8.ValidString(m.ReplyID):
		return iot.Errorf(iot.ErrInvalid, "reply id: want 1 to %d bytes of UTF-8", maxReplyID)
	case m.CorrelationID == "":
		return iot.Errorf(iot.ErrInvalid, "correlation id of the command is missing")
	case m.Status < 200 || m.Status > 599 || m.Status >= 300 && m.Status < 400:
		return iot.Errorf(iot.ErrInvalid, "status %d: want 200 to 299 or 400 to 599", m.Status)
	}
	return nil
}

// responseTarget returns the target of m's address, locked.
func (s *Set) responseTarget(m *iot.Message, x *scratch) (*target, error) {
	x.address = append(append(append(x.address[:0], m.Endpoint...), '/'), m.Tenant...)
	x.address = append(append(x.address, '/'), m.ReplyID...)
	r := &s.responses
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.byAddress[string(x.address)]
	if e == nil {
		if !r.room(m.Tenant, s.o.MaxResponses, &x.batch) {
			return nil, errTooManyTargets
		}
		t := &target{s: s, address: string(x.address), part: responsePart}
		e = r.recent.PushFront(&responseTarget{target: t, tenant: m.Tenant})
		r.byAddress[t.address] = e
		r.tenants[m.Tenant]++
	} else {
		r.recent.MoveToFront(e)
	}
	t := e.Value.(*responseTarget)
	t.used = s.now()
	t.mu.Lock()
	return t.target, nil
}

// room makes room for one target of a tenant, and reports whether there is any. One that has
// its share of most makes it itself; else its devices, by naming addresses at which
// nobody listens, kept responses from all others.
func (r *responses) room(tenant iot.TenantID, most int, b *peer.Batch) bool {
	left := most - len(r.byAddress)
	switch has := r.tenants[tenant]; {
	case has > 0 && has >= tenantShare*left:
		return r.evict(func(t *responseTarget) bool { return t.tenant == tenant }, b)
	case left > 0:
		return true
	}
	return r.evict(func(*responseTarget) bool { return true }, b)
}

// evict lets the longest unused target go of those that may.
func (r *responses) evict(may func(*responseTarget) bool, b *peer.Batch) bool {
	looks := 0
	for e := r.recent.Back(); e != nil && looks < busyLooks; {
		before := e.Prev()
		if may(e.Value.(*responseTarget)) {
			if r.retire(e, b) {
				return true
			}
			looks++
		}
		e = before
	}
	return false
}

// retire detaches the links of a target to which nothing is under way, and forgets it.
func (r *responses) retire(e *list.Element, b *peer.Batch) bool {
	t := e.Value.(*responseTarget)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy() {
		return false
	}
	t.retire(b)
	r.recent.Remove(e)
	delete(r.byAddress, t.address)
	if r.tenants[t.tenant]--; r.tenants[t.tenant] == 0 {
		delete(r.tenants, t.tenant)
	}
	return true
}

// sweepResponses detaches what nothing was sent to for ResponseIdle.
func (s *Set) sweepResponses() {
	r := &s.responses
	var b peer.Batch
	r.mu.Lock()
	for e := r.recent.Back(); e != nil; {
		before := e.Prev()
		if s.now()-e.Value.(*responseTarget).used < s.o.ResponseIdle {
			break
		}
		r.retire(e, &b)
		e = before
	}
	r.mu.Unlock()
	b.Flush()
}

// all lists the targets.
func (r *responses) all() (targets []*target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for e := r.recent.Front(); e != nil; e = e.Next() {
		targets = append(targets, e.Value.(*responseTarget).target)
	}
	return targets
}
