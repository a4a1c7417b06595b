package dynamostore

import (
	"context"
	"slices"
	"strings"

	"github.com/sluice-iot/sluice/internal/iot"
)

// draft is a change in the making: what was read of a tenant, as it will be
// after the writes planned so far.
type draft struct {
	s        *Store
	t        iot.TenantID
	st       state
	max      int64 // devices; negative = no limit
	devices  map[iot.DeviceID]*device
	loaded   map[iot.DeviceID]bool // devices that were asked for; absent ones too
	auths    map[key]item          // of auth-ids
	authKeys []key                 // of auths, each once, also those that are absent
	change   change
	touched  map[key]bool // items that the transaction writes
}

func (s *Store) newDraft(t iot.TenantID, st state, max int64) *draft {
	return &draft{s: s, t: t, st: st, max: max, devices: make(map[iot.DeviceID]*device), loaded: make(map[iot.DeviceID]bool),
		auths: make(map[key]item), change: change{next: st}, touched: make(map[key]bool)}
}

// load reads what the mutations depend on.
func (f *draft) load(ctx context.Context, all []mutation) error {
	var wanted []iot.DeviceID
	auths := make(map[key]item)
	var authKeys []key
	for i := range all {
		wanted = append(wanted, all[i].d.ID)
		if c := all[i].credentials; c != nil {
			for n := range c.Set {
				authKeys = append(authKeys, authKey(f.t, f.st.epoch, c.Set[n].Type, c.Set[n].AuthID))
			}
		}
	}
	slices.SortFunc(authKeys, func(a, b key) int { return strings.Compare(a.pk, b.pk) })
	authKeys = slices.Compact(authKeys)
	f.authKeys = authKeys
	if err := f.loadDevices(ctx, wanted, auths, authKeys); err != nil || len(authKeys) == 0 {
		return err
	}
	f.auths = auths
	var owners []iot.DeviceID
	for _, i := range auths {
		for _, sl := range slots(i) {
			owners = append(owners, sl.device)
		}
	}
	return f.loadDevices(ctx, owners, nil, nil)
}

// loadDevices reads devices and, in the same request, others.
func (f *draft) loadDevices(ctx context.Context, wanted []iot.DeviceID, others map[key]item, otherKeys []key) error {
	keys := append([]key(nil), otherKeys...)
	for _, id := range wanted {
		if !f.loaded[id] && storable(string(id)) {
			keys = append(keys, deviceKey(f.t, f.st.epoch, id))
		}
		f.loaded[id] = true
	}
	got := make(map[key]item, len(keys))
	if err := f.s.getAll(ctx, got, keys...); err != nil {
		return err
	}
	pk := devicesPK(f.t, f.st.epoch)
	for k, i := range got {
		if k.pk != pk {
			others[k] = i
			continue
		}
		d, err := decodeDevice(f.t, i)
		if err != nil {
			return err
		}
		f.devices[d.rec.ID] = d
	}
	return nil
}
