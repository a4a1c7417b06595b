package dynamostore

import (
	"context"

	"github.com/sluice-iot/sluice/internal/iot"
)

// maxTenantLocks bounds how many tenants' counters are remembered.
const maxTenantLocks = 4096

// state is a tenant's counter item. Every change replaces it on condition that
// the sequence is still what the change was planned on, so whatever was read
// of the tenant's devices after the counter is still true when that succeeds.
// It outlives the tenant.
type state struct {
	sequence uint64
	devices  int64
	epoch    int64  // part of the keys of the devices and of all that hangs on them
	live     bool   // the tenant exists
	hour     string // the last bucket that says that the tenant changed
	last     string // token of the transaction that wrote it
	fresh    bool   // read or written in this call, not remembered from an earlier one
	taken    bool   // an item was not as the last attempt on it assumed
}

func decodeState(i item) state {
	return state{
		sequence: uint64(i.num("q")), devices: i.num("devices"), epoch: i.num("epoch"), live: i.flag("live"),
		hour: i.str("hour"), last: i.str("last"), fresh: true,
	}
}

func (st *state) item(t iot.TenantID) item {
	i := counterKey(t).item()
	i["q"], i["devices"], i["epoch"] = number(int64(st.sequence)), number(st.devices), number(st.epoch)
	i["live"], i["hour"], i["last"] = flag(st.live), str(st.hour), str(st.last)
	return i
}

// readState reads a tenant's counter; the zero state when it never changed.
func (s *Store) readState(ctx context.Context, t iot.TenantID) (state, error) {
	i, err := s.get(ctx, counterKey(t))
	if err != nil {
		return state{}, err
	}
	return decodeState(i), nil
}

// liveState is readState of a tenant that must exist.
func (s *Store) liveState(ctx context.Context, t iot.TenantID) (state, error) {
	st, err := s.readState(ctx, t)
	if err == nil && !st.live {
		err = errNoTenant
	}
	return st, err
}

// tenantLock serialises this process's changes of one tenant, which would only
// undo each other, and remembers the counter that the last one left, so that
// the next need not read it.
type tenantLock struct {
	turn  chan struct{} // holds one token while nobody changes the tenant
	users int           // guarded by Store.mu
	known bool
	st    state // guarded by turn
}

// lock waits for this process's turn to change a tenant.
func (s *Store) lock(ctx context.Context, t iot.TenantID) (*tenantLock, error) {
	s.mu.Lock()
	l := s.tenants[t]
	if l == nil {
		s.forgetIdle()
		l = &tenantLock{turn: make(chan struct{}, 1)}
		l.turn <- struct{}{}
		s.tenants[t] = l
	}
	l.users++
	s.mu.Unlock()
	select {
	case <-l.turn:
		if ctx.Err() == nil {
			return l, nil
		}
		s.unlock(l)
		return nil, s.translate(ctx, ctx.Err())
	case <-ctx.Done():
		s.leave(l)
		return nil, s.translate(ctx, ctx.Err())
	case <-s.closing.Done():
		s.leave(l)
		return nil, s.translate(ctx, errClosed)
	}
}

func (s *Store) unlock(l *tenantLock) {
	l.turn <- struct{}{}
	s.leave(l)
}

func (s *Store) leave(l *tenantLock) {
	s.mu.Lock()
	l.users--
	s.mu.Unlock()
}

// forgetIdle makes room for another tenant. Any idle one will do: forgetting
// costs a read.
func (s *Store) forgetIdle() {
	for t, l := range s.tenants {
		if len(s.tenants) < maxTenantLocks {
			return
		}
		if l.users == 0 {
			delete(s.tenants, t)
		}
	}
}
