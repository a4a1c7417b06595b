package management

import (
	"context"
	"math"
	"strconv"
	"strings"

	"github.com/sluice-iot/sluice/functions/management/api"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

func (s *server) SearchTenants(ctx context.Context, r api.SearchTenantsRequestObject) (api.SearchTenantsResponseObject, error) {
	q, err := search(r.Params.PageSize, r.Params.PageOffset, r.Params.FilterJSON, r.Params.SortJSON)
	if err != nil {
		return nil, err
	}
	var page registry.TenantPage
	if tenants, all := operatorOf(ctx).Tenants(Read); all {
		page, err = s.registry.SearchTenants(ctx, q)
	} else {
		page, err = s.registry.SearchTenantsAmong(ctx, tenants, q)
	}
	if err != nil {
		return nil, err
	}
	result := make([]api.TenantResult, len(page.Tenants))
	for i, t := range page.Tenants {
		result[i] = api.TenantWithID{ID: t.ID, Tenant: t.Tenant}
	}
	return api.SearchTenants200Response{Body: api.TenantPage{Total: page.Total, Result: result}}, nil
}

func (s *server) SearchDevices(ctx context.Context, r api.SearchDevicesRequestObject) (api.SearchDevicesResponseObject, error) {
	q, err := search(r.Params.PageSize, r.Params.PageOffset, r.Params.FilterJSON, r.Params.SortJSON)
	if err != nil {
		return nil, err
	}
	if r.Params.IsGateway != "" {
		is := strings.EqualFold(r.Params.IsGateway, "true")
		q.IsGateway = &is
	}
	page, err := s.registry.SearchDevices(ctx, iot.TenantID(r.TenantID), q)
	if err != nil {
		return nil, err
	}
	result := make([]api.DeviceResult, len(page.Devices))
	for i, d := range page.Devices {
		result[i] = api.DeviceWithID{ID: d.ID, Device: d.Device}
	}
	return api.SearchDevices200Response{Body: api.DevicePage{Total: page.Total, Result: result}}, nil
}

// search reads the parameters of a search (contract: registry, section 8).
func search(pageSize, pageOffset string, filters, sort []string) (registry.Search, error) {
	size, err := number("pageSize", pageSize, registry.DefaultPageSize, 1, registry.MaxPageSize)
	if err != nil {
		return registry.Search{}, err
	}
	page, err := number("pageOffset", pageOffset, 0, 0, math.MaxInt32)
	if err != nil {
		return registry.Search{}, err
	}
	q := registry.Search{Limit: size, Offset: page * size}
	if len(filters) > registry.MaxFilters || len(sort) > registry.MaxOrders {
		return q, iot.Errorf(iot.ErrInvalid, "too many filters or orders, at most %d and %d are allowed", registry.MaxFilters, registry.MaxOrders)
	}
	for _, text := range filters {
		f, err := registry.ParseFilter(text)
		if err != nil {
			return q, err
		}
		q.Filters = append(q.Filters, f)
	}
	for _, text := range sort {
		o, err := registry.ParseOrder(text)
		if err != nil {
			return q, err
		}
		q.Sort = append(q.Sort, o)
	}
	return q, nil
}

func number(name, text string, absent, low, high int) (int, error) {
	if text == "" {
		return absent, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		return 0, iot.Errorf(iot.ErrInvalid, "parameter %s: %.20q is not a number in %d..%d", name, text, low, high)
	}
	return n, nil
}
