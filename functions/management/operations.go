package management

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// ifMatch returns the precondition of a request, "" for none. Our own ETag is
// accepted in quotes, too.
func (c *call) ifMatch() string {
	v := c.Header.Get("If-Match")
	if len(v) > 2 && v[0] == '"' && v[len(v)-1] == '"' && strings.Count(v, `"`) == 2 {
		return v[1 : len(v)-1]
	}
	return v
}

type created struct {
	ID string `json:"id"`
}

func createdAt(id, version, location string) answer {
	return answer{http.StatusCreated, version, location + url.PathEscape(id), created{id}}
}

var deleted = answer{status: http.StatusNoContent}

func (h *Handler) createTenant(ctx context.Context, c *call) (answer, error) {
	var t iot.Tenant
	if c.body != nil {
		var err error
		if t, err = registry.DecodeTenant(c.body); err != nil {
			return answer{}, err
		}
	}
	id, version, err := h.registry.CreateTenant(ctx, c.tenant, t)
	return createdAt(string(id), version, "/v1/tenants/"), err
}

func (h *Handler) readTenant(ctx context.Context, c *call) (answer, error) {
	t, err := h.registry.Tenant(ctx, c.tenant)
	return answer{http.StatusOK, t.Version, "", t.Tenant}, err
}

func (h *Handler) updateTenant(ctx context.Context, c *call) (answer, error) {
	t, err := registry.DecodeTenant(c.body)
	if err != nil {
		return answer{}, err
	}
	version, err := h.registry.UpdateTenant(ctx, c.tenant, t, c.ifMatch())
	return answer{status: http.StatusNoContent, version: version}, err
}

func (h *Handler) deleteTenant(ctx context.Context, c *call) (answer, error) {
	return deleted, h.registry.DeleteTenant(ctx, c.tenant, c.ifMatch())
}

func (h *Handler) createDevice(ctx context.Context, c *call) (answer, error) {
	var d iot.Device
	if c.body != nil {
		var err error
		if d, err = registry.DecodeDevice(c.body); err != nil {
			return answer{}, err
		}
	}
	id, version, err := h.registry.CreateDevice(ctx, c.tenant, c.device, d)
	return createdAt(string(id), version, "/v1/devices/"+url.PathEscape(string(c.tenant))+"/"), err
}

// device is a device with its status, as it is read.
type device struct {
	iot.Device
	Status iot.DeviceStatus `json:"status"`
}

func (h *Handler) readDevice(ctx context.Context, c *call) (answer, error) {
	d, err := h.registry.Device(ctx, c.tenant, c.device)
	return answer{http.StatusOK, d.Version, "", device{d.Device, d.Status}}, err
}

func (h *Handler) updateDevice(ctx context.Context, c *call) (answer, error) {
	d, err := registry.DecodeDevice(c.body)
	if err != nil {
		return answer{}, err
	}
	version, err := h.registry.UpdateDevice(ctx, c.tenant, c.device, d, c.ifMatch())
	return answer{status: http.StatusNoContent, version: version}, err
}

func (h *Handler) deleteDevice(ctx context.Context, c *call) (answer, error) {
	return deleted, h.registry.DeleteDevice(ctx, c.tenant, c.device, c.ifMatch())
}

func (h *Handler) deleteDevices(ctx context.Context, c *call) (answer, error) {
	return deleted, h.registry.DeleteDevices(ctx, c.tenant)
}

func (h *Handler) readCredentials(ctx context.Context, c *call) (answer, error) {
	r, err := h.registry.Credentials(ctx, c.tenant, c.device)
	return answer{http.StatusOK, r.Version, "", r.Set}, err
}

func (h *Handler) putCredentials(ctx context.Context, c *call) (answer, error) {
	set, err := registry.DecodeCredentials(c.body)
	if err != nil {
		return answer{}, err
	}
	version, err := h.registry.PutCredentials(ctx, c.tenant, c.device, set, c.ifMatch())
	return answer{status: http.StatusNoContent, version: version}, err
}
