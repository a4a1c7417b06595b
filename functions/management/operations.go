package management

import (
	"context"
	"net/url"
	"strings"

	"github.com/sluice-iot/sluice/functions/management/api"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// unquoted returns the precondition of a request, "" for none. Our own ETag is
// accepted in quotes, too.
func unquoted(v string) string {
	if len(v) > 2 && v[0] == '"' && v[len(v)-1] == '"' && strings.Count(v, `"`) == 2 {
		return v[1 : len(v)-1]
	}
	return v
}

func (s *server) CreateTenant(ctx context.Context, r api.CreateTenantRequestObject) (api.CreateTenantResponseObject, error) {
	id, version, location, err := s.createTenant(ctx, "", r.Body)
	return api.CreateTenant201Response{ETag: version, Location: location, Body: api.Created{ID: id}}, err
}

func (s *server) CreateTenantWithID(ctx context.Context, r api.CreateTenantWithIDRequestObject) (api.CreateTenantWithIDResponseObject, error) {
	id, version, location, err := s.createTenant(ctx, r.TenantID, r.Body)
	return api.CreateTenantWithID201Response{ETag: version, Location: location, Body: api.Created{ID: id}}, err
}

func (s *server) createTenant(ctx context.Context, wanted string, body []byte) (id, version, location string, err error) {
	var t iot.Tenant
	if body != nil {
		if t, err = registry.DecodeTenant(body); err != nil {
			return "", "", "", err
		}
	}
	if err := s.checkShared(ctx, "", &t); err != nil {
		return "", "", "", err
	}
	made, version, err := s.registry.CreateTenant(ctx, iot.TenantID(wanted), t)
	return string(made), version, "/v1/tenants/" + url.PathEscape(string(made)), err
}

func (s *server) ReadTenant(ctx context.Context, r api.ReadTenantRequestObject) (api.ReadTenantResponseObject, error) {
	t, err := s.registry.Tenant(ctx, iot.TenantID(r.TenantID))
	return api.ReadTenant200Response{ETag: t.Version, Body: t.Tenant}, err
}

func (s *server) UpdateTenant(ctx context.Context, r api.UpdateTenantRequestObject) (api.UpdateTenantResponseObject, error) {
	t, err := registry.DecodeTenant(r.Body)
	if err != nil {
		return nil, err
	}
	if err := s.checkShared(ctx, iot.TenantID(r.TenantID), &t); err != nil {
		return nil, err
	}
	version, err := s.registry.UpdateTenant(ctx, iot.TenantID(r.TenantID), t, unquoted(r.Params.IfMatch))
	return api.UpdateTenant204Response{ETag: version}, err
}

func (s *server) PatchTenant(ctx context.Context, r api.PatchTenantRequestObject) (api.PatchTenantResponseObject, error) {
	if err := s.checkSharedPatch(ctx, iot.TenantID(r.TenantID), r.Body); err != nil {
		return nil, err
	}
	version, err := s.registry.PatchTenant(ctx, iot.TenantID(r.TenantID), r.Body, unquoted(r.Params.IfMatch))
	return api.PatchTenant204Response{ETag: version}, err
}

func (s *server) DeleteTenant(ctx context.Context, r api.DeleteTenantRequestObject) (api.DeleteTenantResponseObject, error) {
	return api.DeleteTenant204Response{}, s.registry.DeleteTenant(ctx, iot.TenantID(r.TenantID), unquoted(r.Params.IfMatch))
}

func (s *server) CreateDevice(ctx context.Context, r api.CreateDeviceRequestObject) (api.CreateDeviceResponseObject, error) {
	id, version, location, err := s.createDevice(ctx, r.TenantID, "", r.Body)
	return api.CreateDevice201Response{ETag: version, Location: location, Body: api.Created{ID: id}}, err
}

func (s *server) CreateDeviceWithID(ctx context.Context, r api.CreateDeviceWithIDRequestObject) (api.CreateDeviceWithIDResponseObject, error) {
	id, version, location, err := s.createDevice(ctx, r.TenantID, r.DeviceID, r.Body)
	return api.CreateDeviceWithID201Response{ETag: version, Location: location, Body: api.Created{ID: id}}, err
}

func (s *server) createDevice(ctx context.Context, tenant, wanted string, body []byte) (id, version, location string, err error) {
	var d iot.Device
	if body != nil {
		if d, err = registry.DecodeDevice(body); err != nil {
			return "", "", "", err
		}
	}
	made, version, err := s.registry.CreateDevice(ctx, iot.TenantID(tenant), iot.DeviceID(wanted), d)
	return string(made), version, "/v1/devices/" + url.PathEscape(tenant) + "/" + url.PathEscape(string(made)), err
}

func (s *server) ReadDevice(ctx context.Context, r api.ReadDeviceRequestObject) (api.ReadDeviceResponseObject, error) {
	d, err := s.registry.Device(ctx, iot.TenantID(r.TenantID), iot.DeviceID(r.DeviceID))
	return api.ReadDevice200Response{ETag: d.Version, Body: api.DeviceRead{Device: d.Device, Status: d.Status}}, err
}

func (s *server) UpdateDevice(ctx context.Context, r api.UpdateDeviceRequestObject) (api.UpdateDeviceResponseObject, error) {
	d, err := registry.DecodeDevice(r.Body)
	if err != nil {
		return nil, err
	}
	version, err := s.registry.UpdateDevice(ctx, iot.TenantID(r.TenantID), iot.DeviceID(r.DeviceID), d, unquoted(r.Params.IfMatch))
	return api.UpdateDevice204Response{ETag: version}, err
}

func (s *server) PatchDevice(ctx context.Context, r api.PatchDeviceRequestObject) (api.PatchDeviceResponseObject, error) {
	version, err := s.registry.PatchDevice(ctx, iot.TenantID(r.TenantID), iot.DeviceID(r.DeviceID), r.Body, unquoted(r.Params.IfMatch))
	return api.PatchDevice204Response{ETag: version}, err
}

func (s *server) DeleteDevice(ctx context.Context, r api.DeleteDeviceRequestObject) (api.DeleteDeviceResponseObject, error) {
	err := s.registry.DeleteDevice(ctx, iot.TenantID(r.TenantID), iot.DeviceID(r.DeviceID), unquoted(r.Params.IfMatch))
	return api.DeleteDevice204Response{}, err
}

func (s *server) DeleteDevices(ctx context.Context, r api.DeleteDevicesRequestObject) (api.DeleteDevicesResponseObject, error) {
	return api.DeleteDevices204Response{}, s.registry.DeleteDevices(ctx, iot.TenantID(r.TenantID))
}

func (s *server) ReadCredentials(ctx context.Context, r api.ReadCredentialsRequestObject) (api.ReadCredentialsResponseObject, error) {
	c, err := s.registry.Credentials(ctx, iot.TenantID(r.TenantID), iot.DeviceID(r.DeviceID))
	return api.ReadCredentials200Response{ETag: c.Version, Body: c.Set}, err
}

func (s *server) PutCredentials(ctx context.Context, r api.PutCredentialsRequestObject) (api.PutCredentialsResponseObject, error) {
	set, err := registry.DecodeCredentials(r.Body)
	if err != nil {
		return nil, err
	}
	version, err := s.registry.PutCredentials(ctx, iot.TenantID(r.TenantID), iot.DeviceID(r.DeviceID), set, unquoted(r.Params.IfMatch))
	return api.PutCredentials204Response{ETag: version}, err
}
