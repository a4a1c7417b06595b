package registry

import (
	"context"
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
)

// CreateDevice adds a device with an empty set of credentials (contract:
// registry, section 4.4); an empty id becomes a random UUID.
func (s *Service) CreateDevice(ctx context.Context, tenant iot.TenantID, id iot.DeviceID, d iot.Device) (_ iot.DeviceID, version string, err error) {
	if id == "" {
		id = iot.DeviceID(newUUID())
	}
	if err := s.checkIDs(tenant, id); err != nil {
		return "", "", err
	}
	if err := checkDevice(&d); err != nil {
		return "", "", err
	}
	t, err := s.store.Tenant(ctx, tenant)
	if err != nil {
		return "", "", err
	}
	r := DeviceRecord{Tenant: tenant, ID: id, Device: d, Version: newUUID()}
	r.Status.Created.Time = s.now()
	return id, r.Version, s.store.CreateDevice(ctx, r, newUUID(), s.maxDevices(&t.Tenant))
}

// maxDevices is how many devices a tenant may have; -1 = any number.
func (s *Service) maxDevices(t *iot.Tenant) int64 {
	if t.RegistrationLimits != nil && t.RegistrationLimits.MaxDevices > -1 {
		return t.RegistrationLimits.MaxDevices
	}
	if s.options.MaxDevicesPerTenant > 0 {
		return s.options.MaxDevicesPerTenant
	}
	return -1
}

// Device returns a device.
func (s *Service) Device(ctx context.Context, tenant iot.TenantID, id iot.DeviceID) (DeviceRecord, error) {
	if err := s.checkIDs(tenant, id); err != nil {
		return DeviceRecord{}, err
	}
	return s.store.Device(ctx, tenant, id)
}

// UpdateDevice replaces a device; what the registry itself knows of it, such
// as that it was provisioned by itself, stays.
func (s *Service) UpdateDevice(ctx context.Context, tenant iot.TenantID, id iot.DeviceID, d iot.Device, ifVersion string) (version string, err error) {
	if err := s.checkIDs(tenant, id); err != nil {
		return "", err
	}
	if err := checkDevice(&d); err != nil {
		return "", err
	}
	r := DeviceRecord{Tenant: tenant, ID: id, Device: d, Version: newUUID()}
	r.Status.Updated.Time = s.now()
	return r.Version, s.store.UpdateDevice(ctx, r, ifVersion)
}

// DeleteDevice removes a device and its credentials, also when its tenant is gone.
func (s *Service) DeleteDevice(ctx context.Context, tenant iot.TenantID, id iot.DeviceID, ifVersion string) error {
	if err := s.checkIDs(tenant, id); err != nil {
		return err
	}
	return s.store.DeleteDevice(ctx, tenant, id, ifVersion, s.now())
}

// DeleteDevices removes all devices of a tenant, whether or not there is any.
func (s *Service) DeleteDevices(ctx context.Context, tenant iot.TenantID) error {
	if err := s.CheckTenantID(tenant); err != nil {
		return err
	}
	return s.store.DeleteDevices(ctx, tenant, s.now())
}

// checkDevice checks a device and brings it into the form that is kept.
func checkDevice(d *iot.Device) error {
	if err := freeForm("defaults", &d.Defaults); err != nil {
		return err
	}
	if err := freeForm("ext", &d.Ext); err != nil {
		return err
	}
	if len(d.MemberOf) > 0 && len(d.Via)+len(d.ViaGroups) > 0 {
		return invalid("memberOf: a member of a gateway group cannot itself have via or viaGroups")
	}
	if slices.Contains(d.Via, "") || slices.Contains(d.ViaGroups, "") || slices.Contains(d.MemberOf, "") {
		return invalid("via, viaGroups and memberOf must not hold empty names")
	}
	var authorities []string
	for _, a := range d.Authorities {
		if !slices.Contains(authorities, a) {
			authorities = append(authorities, a)
		}
	}
	d.Authorities = authorities
	return nil
}
