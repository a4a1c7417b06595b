package dynamostore

import (
	"context"
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// How often a read starts again when what it reads changes under it: first as
// plain reads, which no writer can refuse, then as one transaction.
const (
	plainReads  = 2
	atomicReads = 12
)

// Read implements registry.Store. The counter is read first. An item that
// carries no higher sequence than that is as it was at that moment; what is newer
// makes the read start again. Only a removal does not show: then the answer is
// newer than its sequence says, which is safe, because a token that names a
// lower sequence is only revoked sooner.
func (s *Store) Read(ctx context.Context, q registry.Query) (registry.Snapshot, error) {
	id, st, err := s.findTenant(ctx, q.Tenant)
	if err != nil {
		return registry.Snapshot{}, err
	}
	r := &reader{s: s, q: &q, id: id, st: st}
	for try := 0; ; try++ {
		if try > 0 {
			if err := s.pause(ctx, try/2); err != nil {
				return registry.Snapshot{}, err
			}
		}
		current, err := r.fetch(ctx, try)
		if err != nil {
			return registry.Snapshot{}, err
		}
		if !current {
			continue
		}
		snap, newest, err := r.assemble(ctx)
		if err != nil {
			return registry.Snapshot{}, err
		}
		// After so many tries the newer state is the answer: safe, as above.
		if newest <= r.st.sequence || try >= plainReads+atomicReads {
			return snap, nil
		}
	}
}

// findTenant resolves a key and reads the counter of the tenant it names.
func (s *Store) findTenant(ctx context.Context, k registry.TenantKey) (iot.TenantID, state, error) {
	id := k.ID
	if id != "" {
		st, err := s.readState(ctx, id)
		if err != nil || st.live {
			return id, st, err
		}
	}
	i, err := s.get(ctx, nameOrAnchor(k))
	if err != nil {
		return "", state{}, err
	}
	if k.ID != "" {
		id = iot.TenantID(i.str("tenant"))
	} else if users := i.strs("tenants"); len(users) == 1 {
		id = iot.TenantID(users[0])
	}
	if id == k.ID {
		return "", state{}, errNoTenant
	}
	st, err := s.liveState(ctx, id)
	return id, st, err
}

func nameOrAnchor(k registry.TenantKey) key {
	if k.ID != "" {
		return nameKey(string(k.ID))
	}
	return anchorKey(k.SubjectDN)
}

// named reports whether a tenant still has the name that it was found by.
func named(id iot.TenantID, t *iot.Tenant, k registry.TenantKey) bool {
	switch {
	case k.ID != "":
		return id == k.ID || t.Alias == string(k.ID)
	default:
		return hasAnchor(t, k.SubjectDN)
	}
}

// reader collects the items of one query.
type reader struct {
	s      *Store
	q      *registry.Query
	id     iot.TenantID
	st     state
	got    map[key]item
	owners []iot.DeviceID // who may own the credential
}

// wanted lists the items that can be named without reading others.
func (r *reader) wanted() []key {
	keys := []key{tenantKey(r.id)}
	if r.q.Type != "" {
		keys = append(keys, r.authKey())
	}
	for _, id := range append([]iot.DeviceID{r.q.Device, r.q.Gateway}, r.owners...) {
		if k := deviceKey(r.id, r.st.epoch, id); storable(string(id)) && !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

func (r *reader) authKey() key { return authKey(r.id, r.st.epoch, r.q.Type, r.q.AuthID) }

// fetch reads the items. It reports false when they are to be read again.
func (r *reader) fetch(ctx context.Context, try int) (bool, error) {
	if try > plainReads {
		return r.fetchAtOnce(ctx)
	}
	if try > 0 {
		st, err := r.s.liveState(ctx, r.id)
		if err != nil {
			return false, err
		}
		r.st = st
	}
	r.got = make(map[key]item)
	if err := r.s.getAll(ctx, r.got, r.wanted()...); err != nil {
		return false, err
	}
	if !r.findOwners() {
		return true, nil
	}
	return true, r.s.getAll(ctx, r.got, r.wanted()...)
}

// findOwners notes the devices that the credential's item names; false when
// there is none to be read yet.
func (r *reader) findOwners() bool {
	r.owners = r.owners[:0]
	missing := false
	if r.q.Type == "" {
		return false
	}
	for _, sl := range slots(r.got[r.authKey()]) {
		r.owners = append(r.owners, sl.device)
		missing = missing || r.got[deviceKey(r.id, r.st.epoch, sl.device)] == nil
	}
	return missing
}

// fetchAtOnce reads what the last try read, and the counter, in one transaction.
func (r *reader) fetchAtOnce(ctx context.Context) (bool, error) {
	counter := counterKey(r.id)
	epoch, asked := r.st.epoch, slices.Clone(r.owners)
	got, ok, err := r.s.getAtOnce(ctx, append(r.wanted(), counter))
	if err != nil || !ok {
		return false, err
	}
	r.st = decodeState(got[counter])
	if !r.st.live {
		return false, errNoTenant
	}
	r.got = got
	r.findOwners()
	for _, o := range r.owners {
		if !slices.Contains(asked, o) && o != r.q.Device && o != r.q.Gateway {
			return false, nil
		}
	}
	return r.st.epoch == epoch, nil
}

// assemble makes the answer, and tells the highest sequence of its parts.
func (r *reader) assemble(ctx context.Context) (snap registry.Snapshot, newest uint64, err error) {
	i := r.got[tenantKey(r.id)]
	if i == nil {
		return snap, 0, errNoTenant
	}
	newest = uint64(i.num("q"))
	snap.Sequence = r.st.sequence
	if snap.Tenant, err = decodeTenant(r.id, i); err != nil {
		return snap, 0, err
	}
	if !named(r.id, &snap.Tenant.Tenant, r.q.Tenant) {
		return snap, 0, errNoTenant
	}
	if r.q.Type != "" {
		if err := r.credential(&snap, &newest); err != nil {
			return snap, 0, err
		}
	}
	snap.DeviceID, snap.GatewayID = parties(r.q, snap.Owner)
	if snap.Device, err = r.device(snap.DeviceID, &newest); err != nil {
		return snap, 0, err
	}
	if snap.Gateway, err = r.device(snap.GatewayID, &newest); err != nil || snap.Device == nil {
		return snap, newest, err
	}
	snap.Members, err = r.members(ctx, snap.Device.Device.ViaGroups, &newest)
	return snap, newest, err
}

// credential finds the slot that its device stands by.
func (r *reader) credential(snap *registry.Snapshot, newest *uint64) error {
	for _, sl := range slots(r.got[r.authKey()]) {
		i := r.got[deviceKey(r.id, r.st.epoch, sl.device)]
		*newest = max(*newest, uint64(i.num("q")))
		if i == nil || i.str("generation") != sl.generation {
			continue
		}
		snap.Credential, snap.Owner = new(iot.Credential), sl.device
		if err := decode(sl.doc, snap.Credential); err != nil {
			return err
		}
		snap.Verified = decodeVerified(sl.verified)
	}
	return nil
}

func (r *reader) device(id iot.DeviceID, newest *uint64) (*registry.DeviceRecord, error) {
	i := r.got[deviceKey(r.id, r.st.epoch, id)]
	if i == nil {
		return nil, nil
	}
	d, err := decodeDevice(r.id, i)
	if err != nil {
		return nil, err
	}
	*newest = max(*newest, d.sequence)
	return &d.rec, nil
}

// members lists who is member of one of the groups.
func (r *reader) members(ctx context.Context, groups []string, newest *uint64) ([]iot.DeviceID, error) {
	var all []iot.DeviceID
	for _, g := range groups {
		_, err := r.s.query(ctx, question{pk: groupPK(r.id, r.st.epoch, g)}, func(i item) (bool, error) {
			all = append(all, iot.DeviceID(i.str("sk")))
			*newest = max(*newest, uint64(i.num("q")))
			return false, nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// parties says who is asked about and who acts for it.
func parties(q *registry.Query, owner iot.DeviceID) (device, gateway iot.DeviceID) {
	actor := q.Gateway
	if q.Type != "" {
		actor = owner
		if q.Device == "" {
			return owner, ""
		}
	}
	if actor == q.Device || q.Device == "" {
		actor = ""
	}
	return q.Device, actor
}
