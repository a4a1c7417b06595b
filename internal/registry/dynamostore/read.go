package dynamostore

import (
	"context"
	"fmt"
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// maxReads is how often a read starts again when what it reads changes under it.
const maxReads = 12

// Read implements registry.Store. The counter is read first, alone, because
// it is part of every change of the tenant and a transaction with it would
// often be refused. The rest is read in transactions, which do not see an item
// before a change that the counter tells of; and an item that carries no higher
// sequence than the counter's is as it was at that moment. What is newer makes the
// read start again. Only a removal does not show: then the answer is newer
// than its sequence says, which is safe, because a token that names a lower sequence is
// only revoked sooner.
func (s *Store) Read(ctx context.Context, q registry.Query) (registry.Snapshot, error) {
	id, st, err := s.findTenant(ctx, q.Tenant)
	if err != nil {
		return registry.Snapshot{}, err
	}
	r := &reader{s: s, q: &q, id: id, st: st}
	for try := 0; ; try++ {
		if try > 0 {
			if err := r.again(ctx, try); err != nil {
				return registry.Snapshot{}, err
			}
		}
		complete, err := r.fetch(ctx)
		if err != nil {
			return registry.Snapshot{}, err
		}
		if !complete {
			if try >= maxReads {
				return registry.Snapshot{}, fmt.Errorf("registry store: %w", unavailable(errBusy))
			}
			continue
		}
		snap, newest, err := r.assemble(ctx)
		if err != nil {
			return registry.Snapshot{}, err
		}
		// After so many tries the newer state is the answer: safe, as above.
		if newest <= r.st.sequence || try >= maxReads {
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

// again waits and reads the counter anew.
func (r *reader) again(ctx context.Context, try int) error {
	err := r.s.pause(ctx, try/2)
	if err == nil {
		r.st, err = r.s.liveState(ctx, r.id)
	}
	return err
}

// fetch reads the items, in two steps where the credential's owner is not
// known yet; after that it is asked for at once. It reports false when a
// transaction on one of them was under way.
func (r *reader) fetch(ctx context.Context) (bool, error) {
	r.got = make(map[key]item)
	for {
		missing := slices.DeleteFunc(r.wanted(), func(k key) bool {
			_, have := r.got[k]
			return have
		})
		if len(missing) == 0 {
			return true, nil
		}
		got, ok, err := r.s.getAtOnce(ctx, missing)
		if err != nil || !ok {
			return false, err
		}
		for _, k := range missing {
			r.got[k] = got[k] // nil is an answer, too
		}
		r.findOwners()
	}
}

// findOwners notes the devices that the credential's item names.
func (r *reader) findOwners() {
	r.owners = r.owners[:0]
	if r.q.Type == "" {
		return
	}
	for _, sl := range slots(r.got[r.authKey()]) {
		r.owners = append(r.owners, sl.device)
	}
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
	snap.DeviceID, snap.GatewayID = r.q.Parties(snap.Owner)
	if snap.Device, err = r.device(snap.DeviceID, &newest); err != nil {
		return snap, 0, err
	}
	if snap.Gateway, err = r.device(snap.GatewayID, &newest); err != nil || snap.Device == nil {
		return snap, newest, err
	}
	groups := snap.Device.Device.ViaGroups
	if snap.Members, err = r.members(ctx, groups, &newest); err == nil && snap.Gateway != nil {
		snap.Members = corrected(snap.Members, snap.Gateway, groups)
	}
	return snap, newest, err
}

// corrected has the gateway that acts stand in the list exactly when its own
// item says so: the list is read without a transaction.
func corrected(members []iot.DeviceID, gateway *registry.DeviceRecord, groups []string) []iot.DeviceID {
	at, listed := slices.BinarySearch(members, gateway.ID)
	member := slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(gateway.Device.MemberOf, g) })
	switch {
	case member && !listed:
		return slices.Insert(members, at, gateway.ID)
	case !member && listed:
		return slices.Delete(members, at, at+1)
	}
	return members
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
