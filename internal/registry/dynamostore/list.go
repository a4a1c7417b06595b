package dynamostore

import (
	"context"
	"strings"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// Export implements registry.Finder.
func (s *Store) Export(ctx context.Context, tenant iot.TenantID, after iot.DeviceID, max int) ([]registry.FullDevice, error) {
	st, err := s.readState(ctx, tenant)
	if err != nil {
		return nil, err
	}
	var all []registry.FullDevice
	for len(all) < max {
		devices, err := s.page(ctx, tenant, st.epoch, after, max-len(all))
		if err != nil || len(devices) == 0 {
			return all, err
		}
		some, err := s.full(ctx, tenant, st.epoch, devices)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		after = devices[len(devices)-1].rec.ID
	}
	return all, nil
}

// page reads devices in the order of their ids.
func (s *Store) page(ctx context.Context, t iot.TenantID, epoch int64, after iot.DeviceID, max int) ([]*device, error) {
	var devices []*device
	_, err := s.query(ctx, question{pk: devicesPK(t, epoch), after: string(after), limit: max}, func(i item) (bool, error) {
		d, err := decodeDevice(t, i)
		devices = append(devices, d)
		return false, err
	})
	return devices, err
}

// SearchTenants implements registry.Finder. The ids come from the list of
// tenants, the documents of those that may match one by one.
func (s *Store) SearchTenants(ctx context.Context, q registry.Search) (registry.TenantPage, error) {
	use, byID := q.UseIndex(nil)
	var ids []string
	_, err := s.query(ctx, question{pk: tenantsPK, prefix: use.Text}, func(i item) (bool, error) {
		id := i.str("sk")
		if !i.flag("gone") && (!byID || !use.Exact || id == use.Text) && strings.HasPrefix(id, use.Text) {
			ids = append(ids, id)
		}
		return false, nil
	})
	if err != nil {
		return registry.TenantPage{}, err
	}
	page := registry.TenantPage{Total: len(ids)}
	if q.Plain() {
		from := min(q.Offset, len(ids))
		ids = ids[from:min(from+q.Limit, len(ids))]
	} else if page.Total, ids, err = s.chooseTenants(ctx, &q, ids); err != nil {
		return registry.TenantPage{}, err
	}
	got, err := s.tenantItems(ctx, ids)
	if err != nil {
		return registry.TenantPage{}, err
	}
	for _, id := range ids {
		i := got[tenantKey(iot.TenantID(id))]
		if i == nil {
			continue // deleted meanwhile
		}
		t, err := decodeTenant(iot.TenantID(id), i)
		if err != nil {
			return registry.TenantPage{}, err
		}
		page.Tenants = append(page.Tenants, t)
	}
	return page, nil
}

// chooseTenants reads documents and lets the rules select.
func (s *Store) chooseTenants(ctx context.Context, q *registry.Search, ids []string) (int, []string, error) {
	sel := registry.NewSelection(*q)
	if len(ids) > scanLimit(q) {
		return 0, nil, sel.TooMany()
	}
	for len(ids) > 0 {
		n := min(len(ids), maxBatchGet)
		got, err := s.tenantItems(ctx, ids[:n])
		if err != nil {
			return 0, nil, err
		}
		for _, id := range ids[:n] {
			if i := got[tenantKey(iot.TenantID(id))]; i != nil {
				if err := sel.Offer(registry.Candidate{ID: id, Doc: i.bytes("doc")}); err != nil {
					return 0, nil, err
				}
			}
		}
		ids = ids[n:]
	}
	total, page := sel.Page()
	return total, page, nil
}

func (s *Store) tenantItems(ctx context.Context, ids []string) (map[key]item, error) {
	keys := make([]key, len(ids))
	for i, id := range ids {
		keys[i] = tenantKey(iot.TenantID(id))
	}
	got := make(map[key]item, len(keys))
	return got, s.getAll(ctx, got, keys...)
}
