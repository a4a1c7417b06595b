package dynamostore

import (
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
)

// putCredentials claims the auth-ids of a set.
func (f *draft) putCredentials(m *mutation, old, d *device, r *result) error {
	set := m.credentials.Set
	d.refs, d.credentials, d.generation = make([]ref, len(set)), m.credentials.Version, m.generation
	r.auths = make(map[key]item, len(set))
	for n := range set {
		k := authKey(f.t, f.st.epoch, set[n].Type, set[n].AuthID)
		if _, twice := r.auths[k]; twice || f.heldByOther(k, d.rec.ID) {
			return iot.Errorf(iot.ErrExists, "credentials[%d]: (type, auth-id) is in use already", n)
		}
		d.refs[n] = ref{set[n].Type, set[n].AuthID}
		i := item{slotPrefix + m.generation: slotItem(d.rec.ID, m.docs[n]), "q": number(int64(d.sequence))}
		r.auths[k] = i
		o := op{key: k, put: i}
		found := f.auths[k]
		o.unchanged(found["q"] != nil, uint64(found.num("q")))
		r.ops = append(r.ops, o)
		f.checkOwners(k, d.rec.ID, r)
	}
	if old == nil {
		return nil
	}
	for _, ref := range old.refs {
		k := authKey(f.t, f.st.epoch, ref.Type, ref.AuthID)
		if _, stays := r.auths[k]; !stays {
			r.auths[k] = nil
			r.ops = append(r.ops, op{key: k})
		}
	}
	return nil
}

// heldByOther reports whether another device has the auth-id now.
func (f *draft) heldByOther(k key, id iot.DeviceID) bool {
	for _, sl := range slots(f.auths[k]) {
		d := f.devices[sl.device]
		if sl.device != id && d != nil && d.generation == sl.generation {
			return true
		}
	}
	return false
}

// checkOwners has the transaction make sure of other devices that an auth-id
// was found to belong to no longer.
func (f *draft) checkOwners(k key, id iot.DeviceID, r *result) {
	for _, sl := range slots(f.auths[k]) {
		o := op{key: deviceKey(f.t, f.st.epoch, sl.device), check: true}
		if sl.device == id || f.touched[o.key] || slices.ContainsFunc(r.ops, func(other op) bool { return other.key == o.key }) {
			continue
		}
		d := f.devices[sl.device]
		if d != nil {
			o.unchanged(true, d.sequence)
		} else {
			o.unchanged(false, 0)
		}
		r.ops = append(r.ops, o)
	}
}
