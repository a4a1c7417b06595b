package registry

import (
	"context"
	"errors"

	"github.com/sluice-iot/sluice/internal/iot"
)

// PutTenant creates a tenant, or replaces the one that is there.
func (s *Service) PutTenant(ctx context.Context, id iot.TenantID, t iot.Tenant) (version string, created bool, err error) {
	version, err = s.UpdateTenant(ctx, id, t, "")
	if !errors.Is(err, iot.ErrNotFound) {
		return version, false, err
	}
	_, version, err = s.CreateTenant(ctx, id, t)
	return version, true, err
}

// ExportDevices returns at most max devices of a tenant with their credentials,
// secrets included, in the order of their ids from the first one after the
// given id; less than max means that there are no more.
func (s *Service) ExportDevices(ctx context.Context, tenant iot.TenantID, after iot.DeviceID, max int) ([]FullDevice, error) {
	if err := s.CheckTenantID(tenant); err != nil {
		return nil, err
	}
	return s.store.Export(ctx, tenant, after, max)
}
