package dynamostore

import (
	"context"
	"errors"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// single makes one mutation. needsTenant refuses it while the tenant does
// not exist.
func (s *Store) single(ctx context.Context, m mutation, needsTenant bool, maxDevices int64) error {
	if err := m.encode(); err != nil {
		return err
	}
	err := s.change(ctx, m.d.Tenant, func(ctx context.Context, st state) (*change, error) {
		if needsTenant && !st.live {
			return nil, errNoTenant
		}
		f := s.newDraft(m.d.Tenant, st, maxDevices)
		// A creation first trusts that the device is not there, which saves reading it.
		if m.op != registry.CreateOp || st.taken {
			if err := f.load(ctx, []mutation{m}); err != nil {
				return nil, err
			}
		}
		if large := f.large(&m); large {
			return s.planLarge(ctx, f, &m)
		}
		if _, err := f.apply(&m); err != nil || len(f.change.changes) == 0 {
			return nil, err
		}
		return &f.change, nil
	})
	if err == nil && m.after != nil {
		m.after(ctx)
	}
	return err
}

// CreateDevice implements registry.Store.
func (s *Store) CreateDevice(ctx context.Context, d registry.DeviceRecord, credentialsVersion string, maxDevices int64) error {
	return s.single(ctx, mutation{op: registry.CreateOp, d: d, credentialsVersion: credentialsVersion, at: d.Status.Created.Time}, true, maxDevices)
}

// UpdateDevice implements registry.Store.
func (s *Store) UpdateDevice(ctx context.Context, d registry.DeviceRecord, ifVersion string) error {
	return s.single(ctx, mutation{op: registry.UpdateOp, d: d, ifVersion: ifVersion, at: d.Status.Updated.Time}, true, -1)
}

// DeleteDevice implements registry.Store.
func (s *Store) DeleteDevice(ctx context.Context, tenant iot.TenantID, id iot.DeviceID, ifVersion string, at time.Time) error {
	return s.single(ctx, mutation{op: registry.DeleteOp, d: registry.DeviceRecord{Tenant: tenant, ID: id}, ifVersion: ifVersion, at: at}, false, -1)
}

// PutCredentials implements registry.Store.
func (s *Store) PutCredentials(ctx context.Context, r registry.CredentialsRecord, ifVersion string, at time.Time) error {
	return s.single(ctx, mutation{op: putCredentialsOp, d: registry.DeviceRecord{Tenant: r.Tenant, ID: r.Device}, ifVersion: ifVersion,
		credentials: &r, at: at}, true, -1)
}

// MarkNotified implements registry.Prover.
func (s *Store) MarkNotified(ctx context.Context, tenant iot.TenantID, id iot.DeviceID, ifVersion, version string, at time.Time) error {
	return s.single(ctx, mutation{op: markOp, d: registry.DeviceRecord{Tenant: tenant, ID: id, Version: version}, ifVersion: ifVersion, at: at}, true, -1)
}

// Device implements registry.Store.
func (s *Store) Device(ctx context.Context, tenant iot.TenantID, id iot.DeviceID) (registry.DeviceRecord, error) {
	st, err := s.liveState(ctx, tenant)
	if err != nil {
		return registry.DeviceRecord{}, err
	}
	d, err := s.device(ctx, tenant, st.epoch, id)
	if err != nil {
		return registry.DeviceRecord{}, err
	}
	return d.rec, nil
}

// device reads a device as last written; errNoDevice.
func (s *Store) device(ctx context.Context, t iot.TenantID, epoch int64, id iot.DeviceID) (*device, error) {
	if !storable(string(id)) {
		return nil, errNoDevice
	}
	i, err := s.get(ctx, deviceKey(t, epoch, id))
	if err == nil && i == nil {
		err = errNoDevice
	}
	if err != nil {
		return nil, err
	}
	return decodeDevice(t, i)
}

// Credentials implements registry.Store.
func (s *Store) Credentials(ctx context.Context, tenant iot.TenantID, id iot.DeviceID) (registry.CredentialsRecord, error) {
	st, err := s.liveState(ctx, tenant)
	if err != nil {
		return registry.CredentialsRecord{}, err
	}
	d, err := s.device(ctx, tenant, st.epoch, id)
	if err != nil {
		return registry.CredentialsRecord{}, err
	}
	all, err := s.full(ctx, tenant, st.epoch, []*device{d})
	if err != nil {
		return registry.CredentialsRecord{}, err
	}
	if len(all) == 0 {
		return registry.CredentialsRecord{}, errNoDevice
	}
	return all[0].Credentials, nil
}

// full adds their credentials to devices. One that was removed meanwhile is left out.
func (s *Store) full(ctx context.Context, t iot.TenantID, epoch int64, devices []*device) ([]registry.FullDevice, error) {
	got := make(map[key]item)
	var keys []key
	for _, d := range devices {
		for _, r := range d.refs {
			keys = append(keys, authKey(t, epoch, r.Type, r.AuthID))
		}
	}
	if err := s.getAll(ctx, got, keys...); err != nil {
		return nil, err
	}
	all := make([]registry.FullDevice, 0, len(devices))
	for _, d := range devices {
		one, err := s.fullDevice(ctx, t, epoch, d, got)
		if errors.Is(err, iot.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, *one)
	}
	return all, nil
}

// fullDevice puts one together; where the set was replaced after the device
// was read, it reads both again.
func (s *Store) fullDevice(ctx context.Context, t iot.TenantID, epoch int64, d *device, got map[key]item) (*registry.FullDevice, error) {
	for try := 0; ; try++ {
		set, ok, err := credentialsOf(t, epoch, d, got)
		if err != nil {
			return nil, err
		}
		if ok {
			return &registry.FullDevice{Device: d.rec, Credentials: registry.CredentialsRecord{
				Tenant: t, Device: d.rec.ID, Set: set, Version: d.credentials}}, nil
		}
		if err := s.pause(ctx, try); err != nil {
			return nil, err
		}
		if d, err = s.device(ctx, t, epoch, d.rec.ID); err != nil {
			return nil, err
		}
		got = make(map[key]item)
		var keys []key
		for _, r := range d.refs {
			keys = append(keys, authKey(t, epoch, r.Type, r.AuthID))
		}
		if err := s.getAll(ctx, got, keys...); err != nil {
			return nil, err
		}
	}
}

// credentialsOf decodes a device's set; ok is false when part of it is of
// another generation.
func credentialsOf(t iot.TenantID, epoch int64, d *device, got map[key]item) (set []iot.Credential, ok bool, err error) {
	set = make([]iot.Credential, len(d.refs))
	for n, r := range d.refs {
		sl := slotOf(got[authKey(t, epoch, r.Type, r.AuthID)], d.generation)
		if sl == nil {
			return nil, false, nil
		}
		if err := decode(sl.doc, &set[n]); err != nil {
			return nil, false, err
		}
	}
	return set, true, nil
}
