package dynamostore

import (
	"context"
	"encoding/json"
	"maps"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// maxHangers bounds the memberships and indexed values of a device: an
// update removes the old and adds the new ones in one transaction.
const maxHangers = 40

// mutation is one write to a device. The first five operations are those of
// registry.DeviceWrite.
type mutation struct {
	op                 registry.WriteOp
	d                  registry.DeviceRecord
	ifVersion          string
	credentials        *registry.CredentialsRecord
	credentialsVersion string
	doc                []byte   // of d.Device
	docs               [][]byte // of credentials.Set
	generation         string   // of credentials
	at                 time.Time
	after              func(context.Context) // what may be tidied up when the change is made
}

const (
	putCredentialsOp registry.WriteOp = 100 + iota // credentials only
	markOp                                         // the notification was sent
)

// encode makes the documents, once for all attempts.
func (m *mutation) encode() (err error) {
	if m.doc, err = json.Marshal(&m.d.Device); err != nil || m.credentials == nil {
		return err
	}
	m.generation = newToken()
	m.docs = make([][]byte, len(m.credentials.Set))
	for i := range m.docs {
		if m.docs[i], err = json.Marshal(&m.credentials.Set[i]); err != nil {
			return err
		}
	}
	return nil
}

// result is what one mutation adds to a change.
type result struct {
	id      iot.DeviceID
	device  *device // after it; nil = removed
	ops     []op
	auths   map[key]item // nil items are removed
	changes []registry.Change
	count   int64
}

// apply plans one mutation on top of those before it. fits is false when it
// has to wait for the next transaction. An *iot.Error is its result.
func (f *draft) apply(m *mutation) (fits bool, err error) {
	r, err := f.plan(m)
	if err != nil || r == nil {
		return true, err
	}
	for _, o := range r.ops {
		if f.touched[o.key] {
			return false, nil // a transaction writes an item once
		}
		if o.put != nil && o.put.size() > maxItem {
			return true, errItemSize()
		}
	}
	all := change{ops: append(f.change.ops, r.ops...), changes: append(f.change.changes, r.changes...)}
	if len(all.ops)+len(all.changes) > maxWrites || all.bytes() > maxBytes {
		if len(f.change.changes) > 0 {
			return false, nil
		}
		return true, iot.Errorf(iot.ErrTooLarge, "device with %d credentials: the registry's store does not change that many at once", m.size())
	}
	f.change.ops, f.change.changes = all.ops, all.changes
	f.change.next.devices += r.count
	f.devices[r.id], f.loaded[r.id] = r.device, true
	maps.Copy(f.auths, r.auths)
	for _, o := range r.ops {
		f.touched[o.key] = true
	}
	return true, nil
}

func (m *mutation) size() int {
	if m.credentials == nil {
		return 0
	}
	return len(m.credentials.Set)
}

// plan decides by operation and by what is there.
func (f *draft) plan(m *mutation) (*result, error) {
	old := f.devices[m.d.ID]
	switch m.op {
	case registry.CreateOp:
		if err := f.checkLimit(); err != nil {
			return nil, err
		}
		if old != nil {
			return nil, iot.Errorf(iot.ErrExists, "device already exists")
		}
		return f.create(m)
	case registry.PutOp:
		if old == nil && m.ifVersion == "" {
			if err := f.checkLimit(); err != nil {
				return nil, err
			}
			return f.create(m)
		}
	}
	if old == nil {
		return nil, errNoDevice
	}
	version := old.rec.Version
	if m.op == putCredentialsOp {
		version = old.credentials
	}
	if m.ifVersion != "" && m.ifVersion != version {
		return nil, errVersion
	}
	return f.modify(m, old)
}

func (f *draft) checkLimit() error {
	if f.max >= 0 && f.change.next.devices >= f.max {
		return iot.Errorf(iot.ErrForbidden, "configured device limit reached [max devices: %d]", f.max)
	}
	return nil
}

func (f *draft) create(m *mutation) (*result, error) {
	if !storable(string(m.d.ID)) {
		return nil, iot.Errorf(iot.ErrInvalid, "device id has %d bytes, want 1 to %d", len(m.d.ID), maxSK)
	}
	d := &device{rec: m.d, doc: m.doc, credentials: m.credentialsVersion}
	d.rec.Tenant, d.rec.Status.Updated = f.t, iot.Timestamp{}
	return f.replace(m, nil, d, d.rec.Change(registry.Create, d.rec.Status.Created.Time))
}

func (f *draft) modify(m *mutation, old *device) (*result, error) {
	d := *old
	switch m.op {
	case registry.DeleteOp:
		return f.remove(m, old)
	case putCredentialsOp:
		return f.replace(m, old, &d)
	case registry.SetEnabledOp:
		if old.rec.Device.IsEnabled() == m.d.Device.IsEnabled() {
			return nil, nil
		}
		d.rec.Device.Enabled = m.d.Device.Enabled
		doc, err := json.Marshal(&d.rec.Device)
		if err != nil {
			return nil, err
		}
		d.doc = doc
	case markOp:
		d.rec.Status.AutoProvisioningNotificationSent = true
	default:
		d.rec.Device, d.doc = m.d.Device, m.doc
	}
	d.rec.Version, d.rec.Status.Updated = m.d.Version, iot.Timestamp{Time: m.at}
	return f.replace(m, old, &d, d.rec.Change(registry.Update, m.at))
}

// replace writes a device, what hangs on it, and its credentials where given.
func (f *draft) replace(m *mutation, old, d *device, changes ...registry.Change) (*result, error) {
	r := &result{id: d.rec.ID, device: d, changes: changes}
	if old == nil {
		r.count = 1
	}
	if m.credentials != nil && old != nil {
		r.changes = append(r.changes, registry.Change{Tenant: f.t, Kind: registry.CredentialsChanged, Device: d.rec.ID, At: m.at})
	}
	d.sequence = f.st.sequence + uint64(len(f.change.changes)+len(r.changes))
	if m.credentials != nil {
		if err := f.putCredentials(m, old, d, r); err != nil {
			return nil, err
		}
	}
	if err := f.hang(old, d, r); err != nil {
		return nil, err
	}
	i, err := d.item()
	if err != nil {
		return nil, err
	}
	r.ops = append(r.ops, f.deviceOp(old, d.rec.ID, i))
	return r, nil
}

// deviceOp writes or removes a device's item that is as it was read, or
// absent, which may only have been assumed. A reindexing leaves a mark, because it
// moves no counter.
func (f *draft) deviceOp(old *device, id iot.DeviceID, put item) op {
	o := op{key: deviceKey(f.t, f.st.epoch, id), put: put}
	if old == nil {
		o.unchanged(false, 0)
		return o
	}
	o.unchanged(true, old.sequence)
	if old.mark == "" {
		o.condition += " AND attribute_not_exists(marked)"
	} else {
		o.condition += " AND marked = :mark"
		o.values[":mark"] = str(old.mark)
	}
	return o
}

// hang adds the writes of memberships and index entries that differ.
func (f *draft) hang(old, d *device, r *result) error {
	d.index = indexEntries(f.s.indexes, d)
	now := f.hangers(d)
	if len(now) > maxHangers {
		return iot.Errorf(iot.ErrTooLarge, "memberOf and indexed members have %d values, the registry's store keeps at most %d of a device", len(now), maxHangers)
	}
	was := f.hangers(old)
	for k := range was {
		if !now[k] {
			r.ops = append(r.ops, op{key: k})
		}
	}
	for k := range now {
		if !was[k] {
			r.ops = append(r.ops, op{key: k, put: entryItem(k, d)})
		}
	}
	return nil
}

// hangers are the keys of a device's memberships and index entries.
func (f *draft) hangers(d *device) map[key]bool {
	keys := make(map[key]bool)
	if d == nil {
		return keys
	}
	for _, k := range deviceHangers(f.t, f.st.epoch, d) {
		keys[k] = true
	}
	return keys
}

func deviceHangers(t iot.TenantID, epoch int64, d *device) []key {
	var keys []key
	for _, g := range d.groups() {
		keys = append(keys, key{groupPK(t, epoch, g), string(d.rec.ID)})
	}
	for _, e := range d.index {
		keys = append(keys, entryKey(t, epoch, e, d.rec.ID))
	}
	return keys
}

// remove deletes a device. Of many credentials only as many auth-ids are
// removed with it as there is room for: the others no longer count.
func (f *draft) remove(m *mutation, old *device) (*result, error) {
	r := &result{id: old.rec.ID, count: -1, auths: make(map[key]item), changes: []registry.Change{{
		Tenant: f.t, Kind: registry.DeviceChanged, Device: old.rec.ID, Change: registry.Delete, At: m.at,
	}}}
	r.ops = append(r.ops, f.deviceOp(old, old.rec.ID, nil))
	for k := range f.hangers(old) {
		r.ops = append(r.ops, op{key: k})
	}
	for _, ref := range old.refs {
		k := authKey(f.t, f.st.epoch, ref.Type, ref.AuthID)
		if len(r.ops)+len(r.changes) < maxWrites {
			r.auths[k] = nil
			r.ops = append(r.ops, op{key: k})
		}
	}
	return r, nil
}
