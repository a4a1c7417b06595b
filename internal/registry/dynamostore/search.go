package dynamostore

import (
	"context"
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// SearchDevices implements registry.Finder. The total of a plain search is
// the counter's; an offset costs read units as if the rows before the page were
// read, but they are not sent.
func (s *Store) SearchDevices(ctx context.Context, tenant iot.TenantID, q registry.Search) (registry.DevicePage, error) {
	st, err := s.liveState(ctx, tenant)
	if err != nil {
		return registry.DevicePage{}, err
	}
	d := &deviceSearch{s: s, t: tenant, st: &st, q: &q, limit: scanLimit(&q)}
	total, devices, err := d.run(ctx)
	page := registry.DevicePage{Total: total}
	for _, d := range devices {
		page.Devices = append(page.Devices, d.rec)
	}
	return page, err
}

func scanLimit(q *registry.Search) int {
	if q.MaxScan > 0 {
		return q.MaxScan
	}
	return registry.DefaultMaxScan
}

type deviceSearch struct {
	s     *Store
	t     iot.TenantID
	st    *state
	q     *registry.Search
	limit int
}

// run returns how many devices match, and the page.
func (d *deviceSearch) run(ctx context.Context) (int, []*device, error) {
	all := question{pk: devicesPK(d.t, d.st.epoch)}
	if d.q.Plain() {
		devices, err := d.pageOfDevices(ctx, all)
		return int(d.st.devices), devices, err
	}
	use, ok := d.q.UseIndex(d.s.readyPaths())
	switch {
	case d.q.IsGateway != nil:
		return d.scanGateways(ctx, all)
	case !ok:
		return d.scan(ctx, all)
	case use.ID && use.Exact:
		return d.choose(ctx, []iot.DeviceID{iot.DeviceID(use.Text)})
	case use.ID && use.Only:
		all.prefix = use.Text
		total, err := d.count(ctx, all)
		if err != nil {
			return 0, nil, err
		}
		devices, err := d.pageOfDevices(ctx, all)
		return total, devices, err
	case use.ID:
		all.prefix = use.Text
		return d.scan(ctx, all)
	}
	return d.byIndex(ctx, use)
}

// byIndex answers from an index. Entries of one value are in the order of the
// devices' ids; those of many values are not, and may name a device twice.
func (d *deviceSearch) byIndex(ctx context.Context, use registry.IndexUse) (int, []*device, error) {
	entries := question{pk: indexPK(d.t, d.st.epoch, pointer(d.q.Filters[use.Filter].Path)), prefix: textParts.Replace(use.Text)}
	if use.Exact {
		entries.prefix += "\x00"
		if use.Only {
			return d.onlyIndex(ctx, entries)
		}
	}
	var ids []iot.DeviceID
	_, err := d.s.query(ctx, entries, func(i item) (bool, error) {
		ids = append(ids, entryDevice(i))
		if len(ids) > d.limit {
			return true, d.tooMany()
		}
		return false, nil
	})
	if err != nil {
		return 0, nil, err
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if use.Only {
		from := min(d.q.Offset, len(ids))
		devices, err := d.devices(ctx, ids[from:min(from+d.q.Limit, len(ids))])
		return len(ids), devices, err
	}
	return d.choose(ctx, ids)
}

// choose reads documents that are named and lets the rules select.
func (d *deviceSearch) choose(ctx context.Context, ids []iot.DeviceID) (int, []*device, error) {
	sel := registry.NewSelection(*d.q)
	for some := range slices.Chunk(ids, maxBatchGet) {
		devices, err := d.devices(ctx, some)
		if err != nil {
			return 0, nil, err
		}
		for _, one := range devices {
			if err := offer(sel, one, false); err != nil {
				return 0, nil, err
			}
		}
	}
	return d.selected(ctx, sel)
}

func offer(sel *registry.Selection, d *device, gateway bool) error {
	return sel.Offer(registry.Candidate{ID: string(d.rec.ID), Doc: d.doc, Status: &d.rec.Status, Gateway: gateway})
}

// selected reads the page that the rules chose.
func (d *deviceSearch) selected(ctx context.Context, sel *registry.Selection) (int, []*device, error) {
	total, names := sel.Page()
	ids := make([]iot.DeviceID, len(names))
	for i, n := range names {
		ids[i] = iot.DeviceID(n)
	}
	devices, err := d.devices(ctx, ids)
	return total, devices, err
}

// scan reads the documents of a range of devices.
func (d *deviceSearch) scan(ctx context.Context, q question) (int, []*device, error) {
	if q.prefix == "" && d.st.devices > int64(d.limit) {
		return 0, nil, d.tooMany() // before reading what is known to be in vain
	}
	sel := registry.NewSelection(*d.q)
	_, err := d.s.query(ctx, q, func(i item) (bool, error) {
		one, err := decodeDevice(d.t, i)
		if err == nil {
			err = offer(sel, one, false)
		}
		return false, err
	})
	if err != nil {
		return 0, nil, err
	}
	return d.selected(ctx, sel)
}

// scanGateways reads all documents before it selects: any may name a gateway.
func (d *deviceSearch) scanGateways(ctx context.Context, q question) (int, []*device, error) {
	if d.st.devices > int64(d.limit) {
		return 0, nil, d.tooMany()
	}
	gateways := make(map[iot.DeviceID]bool)
	var all []*device
	_, err := d.s.query(ctx, q, func(i item) (bool, error) {
		one, err := decodeDevice(d.t, i)
		if err != nil {
			return true, err
		}
		if all = append(all, one); len(all) > d.limit {
			return true, d.tooMany()
		}
		for _, via := range one.rec.Device.Via {
			gateways[via] = true
		}
		return false, nil
	})
	if err != nil {
		return 0, nil, err
	}
	sel := registry.NewSelection(*d.q)
	for _, one := range all {
		if err := offer(sel, one, gateways[one.rec.ID] || len(one.rec.Device.MemberOf) > 0); err != nil {
			return 0, nil, err
		}
	}
	return d.selected(ctx, sel)
}

func (d *deviceSearch) tooMany() error { return registry.NewSelection(*d.q).TooMany() }

// onlyIndex answers from entries that all match and are in order.
func (d *deviceSearch) onlyIndex(ctx context.Context, q question) (int, []*device, error) {
	total, err := d.count(ctx, q)
	if err != nil {
		return 0, nil, err
	}
	var ids []iot.DeviceID
	q.keysOnly = true
	if err := d.pageOf(ctx, q, func(i item) error {
		ids = append(ids, entryDevice(i))
		return nil
	}); err != nil {
		return 0, nil, err
	}
	devices, err := d.devices(ctx, ids)
	return total, devices, err
}

func (d *deviceSearch) count(ctx context.Context, q question) (int, error) {
	q.count = true
	return d.s.query(ctx, q, nil)
}

// pageOf skips the offset and calls f with the rows of the page.
func (d *deviceSearch) pageOf(ctx context.Context, q question, f func(item) error) error {
	if d.q.Offset > 0 {
		skip := q
		skip.count, skip.keysOnly, skip.limit, skip.last = true, false, d.q.Offset, &q.after
		if _, err := d.s.query(ctx, skip, nil); err != nil || q.after == "" {
			return err
		}
	}
	q.limit = d.q.Limit
	_, err := d.s.query(ctx, q, func(i item) (bool, error) { return false, f(i) })
	return err
}

func (d *deviceSearch) pageOfDevices(ctx context.Context, q question) (devices []*device, err error) {
	err = d.pageOf(ctx, q, func(i item) error {
		one, err := decodeDevice(d.t, i)
		devices = append(devices, one)
		return err
	})
	return devices, err
}

// devices reads devices in the given order; those that are gone are left out.
func (d *deviceSearch) devices(ctx context.Context, ids []iot.DeviceID) ([]*device, error) {
	keys := make([]key, 0, len(ids))
	for _, id := range ids {
		if storable(string(id)) {
			keys = append(keys, deviceKey(d.t, d.st.epoch, id))
		}
	}
	got := make(map[key]item, len(keys))
	if err := d.s.getAll(ctx, got, keys...); err != nil {
		return nil, err
	}
	devices := make([]*device, 0, len(got))
	for _, k := range keys {
		if i := got[k]; i != nil {
			one, err := decodeDevice(d.t, i)
			if err != nil {
				return nil, err
			}
			devices = append(devices, one)
		}
	}
	return devices, nil
}
