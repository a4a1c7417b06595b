package pgstore

import (
	"context"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// ApplyDevices implements registry.Loader. All writes share one transaction
// and its two round trips: which of them fail is decided in memory, under the
// tenant's lock.
func (s *Store) ApplyDevices(ctx context.Context, tenant iot.TenantID, writes []registry.DeviceWrite, maxDevices int64) ([]error, error) {
	if len(writes) > registry.MaxBatch {
		return nil, iot.Errorf(iot.ErrTooLarge, "%d writes, at most %d are made at once", len(writes), registry.MaxBatch)
	}
	w := wanted{ids: make([]iot.DeviceID, 0, len(writes))}
	sets := make([][]credentialRow, len(writes))
	for i := range writes {
		d := &writes[i]
		w.ids = append(w.ids, d.Device.ID)
		w.owned = w.owned || d.Op != registry.CreateOp && (d.Op == registry.DeleteOp || d.Credentials != nil)
		if d.Credentials == nil {
			continue
		}
		var err error
		if sets[i], err = encodeCredentials(d.Credentials.Set); err != nil {
			return nil, err
		}
		w.keys = append(w.keys, keysOf(sets[i])...)
	}
	var results []error
	err := s.alter(ctx, tenant, w, func(u *unit) error {
		if err := u.checkTenant(); err != nil {
			return err
		}
		results = make([]error, len(writes))
		for i := range writes {
			results[i] = u.apply(&writes[i], sets[i], maxDevices)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// apply makes one write, or nothing of it.
func (u *unit) apply(w *registry.DeviceWrite, set []credentialRow, maxDevices int64) error {
	op := w.Op
	if op == registry.PutOp {
		op = registry.CreateOp
		if d := u.rows[w.Device.ID]; d != nil && d.present {
			op = registry.UpdateOp
		} else if w.IfVersion != "" {
			return errNoDevice
		}
	}
	if w.Credentials != nil && (op == registry.CreateOp || op == registry.UpdateOp) && !storable(w.Credentials.Version) {
		return errText
	}
	switch op {
	case registry.CreateOp:
		return u.applyCreate(w, set, maxDevices)
	case registry.UpdateOp:
		return u.applyUpdate(w, set)
	case registry.SetEnabledOp:
		return u.applyEnabled(w)
	case registry.DeleteOp:
		d, err := u.find(w.Device.ID, w.IfVersion)
		if err != nil {
			return err
		}
		u.remove(d, w.Device.Status.Updated.Time)
		return nil
	}
	return iot.Errorf(iot.ErrInvalid, "no operation %d", w.Op)
}

func (u *unit) applyCreate(w *registry.DeviceWrite, set []credentialRow, maxDevices int64) error {
	if err := u.canCreate(&w.Device, maxDevices); err != nil {
		return err
	}
	version := w.CredentialsVersion
	if w.Credentials != nil {
		if err := u.canPut(w.Device.ID, set); err != nil {
			return err
		}
		version = w.Credentials.Version
	}
	if !storable(version) {
		return errText
	}
	record := w.Device
	record.Tenant, record.Status.Updated = u.tenant, iot.Timestamp{}
	u.create(record, version)
	if w.Credentials != nil {
		u.put(u.rows[record.ID], set, version)
	}
	return nil
}

func (u *unit) applyUpdate(w *registry.DeviceWrite, set []credentialRow) error {
	d, err := u.find(w.Device.ID, w.IfVersion)
	if err != nil {
		return err
	}
	if err := checkTexts(&w.Device); err != nil {
		return err
	}
	if w.Credentials != nil {
		if err := u.canPut(w.Device.ID, set); err != nil {
			return err
		}
	}
	u.update(d, &w.Device)
	if w.Credentials != nil {
		u.put(d, set, w.Credentials.Version)
		u.note(registry.Change{Kind: registry.CredentialsChanged, Device: w.Device.ID, At: w.Device.Status.Updated.Time})
	}
	return nil
}

func (u *unit) applyEnabled(w *registry.DeviceWrite) error {
	d, err := u.find(w.Device.ID, w.IfVersion)
	if err != nil {
		return err
	}
	if d.record.Device.IsEnabled() == w.Device.Device.IsEnabled() {
		return nil
	}
	if err := checkTexts(&w.Device); err != nil {
		return err
	}
	changed := w.Device
	changed.Device = d.record.Device
	changed.Device.Enabled = w.Device.Device.Enabled
	u.update(d, &changed)
	return nil
}
