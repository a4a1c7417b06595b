package sqlitestore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"strings"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// deviceOf selects the columns of a deviceRow, behind the id.
const deviceOf = `SELECT d.id, d.doc, d.version, d.created, d.updated, d.auto_provisioned, d.notification_sent FROM devices d `

// snapshot runs f, which may take long, in one state of the file.
func (s *Store) snapshot(ctx context.Context, f func(context.Context, *conn) error) error {
	select {
	case s.searching <- struct{}{}:
		defer func() { <-s.searching }()
	case <-s.closing:
		return translate(errClosed)
	case <-ctx.Done():
		return translate(ctx.Err())
	}
	return s.read(ctx, func(ctx context.Context, c *conn) error {
		if _, err := c.exec(ctx, "BEGIN"); err != nil {
			return err
		}
		defer c.exec(ctx, "ROLLBACK") // nothing was written
		return f(ctx, c)
	})
}

// SearchTenants implements registry.Finder. Tenants are few: every document is read.
func (s *Store) SearchTenants(ctx context.Context, q registry.Search) (page registry.TenantPage, err error) {
	err = s.snapshot(ctx, func(ctx context.Context, c *conn) error {
		sel := registry.NewSelection(q)
		err := c.each(ctx, `SELECT id, doc FROM tenants ORDER BY id`, nil, func(rows *sql.Rows) error {
			var id string
			var doc sql.RawBytes
			if err := rows.Scan(&id, &doc); err != nil {
				return err
			}
			return sel.Offer(registry.Candidate{ID: id, Doc: doc})
		})
		if err != nil {
			return err
		}
		var ids []string
		page.Total, ids = sel.Page()
		for _, id := range ids {
			t, err := c.tenant(ctx, iot.TenantID(id))
			if err != nil {
				return err
			}
			page.Tenants = append(page.Tenants, t)
		}
		return nil
	})
	return page, err
}

// SearchDevices implements registry.Finder.
func (s *Store) SearchDevices(ctx context.Context, tenant iot.TenantID, q registry.Search) (page registry.DevicePage, err error) {
	err = s.snapshot(ctx, func(ctx context.Context, c *conn) error {
		if err := c.checkTenant(ctx, tenant, ""); err != nil {
			return err
		}
		f := finder{c: c, tenant: tenant, q: &q, page: &page}
		return f.find(ctx)
	})
	return page, err
}

// finder answers one search of devices.
type finder struct {
	c      *conn
	tenant iot.TenantID
	q      *registry.Search
	page   *registry.DevicePage
}

func (f *finder) find(ctx context.Context) error {
	if f.q.Plain() {
		return f.plain(ctx)
	}
	if f.q.IsGateway != nil && !*f.q.IsGateway && len(f.q.Filters) == 0 && len(f.q.Sort) == 0 {
		return f.others(ctx)
	}
	indexes, paths, err := f.c.searchable(ctx)
	if err != nil {
		return err
	}
	use, ok := f.q.UseIndex(paths)
	var number int64
	if ok && !use.ID {
		number = indexes[use.Path].number
		if use.Only {
			return f.indexOnly(ctx, &use, number)
		}
	}
	sel := registry.NewSelection(*f.q)
	switch {
	case ok && use.ID && use.Exact:
		err = f.offer(ctx, sel, deviceOf+`WHERE d.tenant = ?1 AND d.id = ?2`, string(f.tenant), use.Text)
	case ok && use.ID:
		err = f.offer(ctx, sel, deviceOf+`WHERE d.tenant = ?1 AND d.id >= ?2 AND d.id < ?3`, string(f.tenant), use.Text, after(use.Text))
	case ok:
		err = f.offer(ctx, sel, deviceOf+`WHERE d.tenant = ?1 AND d.id IN
			(SELECT device FROM device_index WHERE path = ?2 AND tenant = ?1 AND value >= ?3 AND value < ?4)`,
			string(f.tenant), number, use.Text, end(&use))
	case f.q.IsGateway != nil && *f.q.IsGateway:
		err = f.gateways(ctx, sel)
	default:
		err = f.scan(ctx, sel)
	}
	if err != nil {
		return err
	}
	var ids []string
	f.page.Total, ids = sel.Page()
	return f.load(ctx, ids)
}

// scan offers every device of the tenant, unless it is known that they are too many.
func (f *finder) scan(ctx context.Context, sel *registry.Selection) error {
	n, err := f.count(ctx)
	if err != nil {
		return err
	}
	if n > cmp.Or(f.q.MaxScan, registry.DefaultMaxScan) {
		return sel.TooMany()
	}
	return f.offer(ctx, sel, deviceOf+`WHERE d.tenant = ?1`, string(f.tenant))
}

// count returns how many devices the tenant has, which is kept.
func (f *finder) count(ctx context.Context) (n int, err error) {
	err = f.c.row(ctx, `SELECT devices FROM counters WHERE tenant = ?`, []any{string(f.tenant)}, &n)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return n, err
}

// plain reads one page by id; the total is kept.
func (f *finder) plain(ctx context.Context) (err error) {
	if f.page.Total, err = f.count(ctx); err != nil {
		return err
	}
	return f.rows(ctx, deviceOf+`WHERE d.tenant = ? ORDER BY d.id LIMIT ? OFFSET ?`, string(f.tenant), f.q.Limit, f.q.Offset)
}

// indexOnly counts in the index and reads the documents of the page only. An
// array may hold two values with one beginning, hence DISTINCT.
func (f *finder) indexOnly(ctx context.Context, use *registry.IndexUse, number int64) error {
	args := []any{number, string(f.tenant), use.Text, end(use)}
	if use.Exact { // every device comes once, in order: nothing is sorted
		args = args[:3]
		if err := f.c.row(ctx, `SELECT count(*) FROM device_index WHERE path = ?1 AND tenant = ?2 AND value = ?3`, args, &f.page.Total); err != nil {
			return err
		}
		return f.rows(ctx, deviceOf+`WHERE d.tenant = ?2 AND d.id IN
			(SELECT device FROM device_index WHERE path = ?1 AND tenant = ?2 AND value = ?3 ORDER BY device LIMIT ?4 OFFSET ?5) ORDER BY d.id`,
			append(args, f.q.Limit, f.q.Offset)...)
	}
	if err := f.c.row(ctx, `SELECT count(DISTINCT device) FROM device_index WHERE path = ?1 AND tenant = ?2 AND value >= ?3 AND value < ?4`, args, &f.page.Total); err != nil {
		return err
	}
	return f.rows(ctx, deviceOf+`WHERE d.tenant = ?2 AND d.id IN (SELECT DISTINCT device FROM device_index
		WHERE path = ?1 AND tenant = ?2 AND value >= ?3 AND value < ?4 ORDER BY device LIMIT ?5 OFFSET ?6) ORDER BY d.id`,
		append(args, f.q.Limit, f.q.Offset)...)
}

// end is the first text behind what an index finds.
func end(use *registry.IndexUse) string {
	if use.Exact {
		return use.Text + "\x00"
	}
	return after(use.Text)
}

// after is the first text that is greater than every one that begins with
// prefix: no text of valid UTF-8 holds the byte 0xff.
func after(prefix string) string { return prefix + "\xff" }

// offer shows the devices of a query to the selection.
func (f *finder) offer(ctx context.Context, sel *registry.Selection, text string, args ...any) error {
	var gateways map[string]bool
	if f.q.IsGateway != nil {
		var err error
		if gateways, err = f.gatewayIDs(ctx); err != nil {
			return err
		}
	}
	return f.c.each(ctx, text, args, func(rows *sql.Rows) error {
		var id string
		var row deviceRow
		var doc sql.RawBytes
		columns := row.columns()
		columns[0] = &doc
		if err := rows.Scan(append([]any{&id}, columns...)...); err != nil {
			return err
		}
		status := row.status()
		return sel.Offer(registry.Candidate{ID: id, Doc: doc, Status: &status, Gateway: gateways[id]})
	})
}

// load reads the devices of a page, in its order.
func (f *finder) load(ctx context.Context, ids []string) error {
	for _, id := range ids {
		if err := f.rows(ctx, deviceOf+`WHERE d.tenant = ? AND d.id = ?`, string(f.tenant), id); err != nil {
			return err
		}
	}
	return nil
}

// rows adds the devices of a query to the page.
func (f *finder) rows(ctx context.Context, text string, args ...any) error {
	return f.c.each(ctx, text, args, func(rows *sql.Rows) error {
		d, err := scanDevice(rows, f.tenant)
		if err == nil {
			f.page.Devices = append(f.page.Devices, *d)
		}
		return err
	})
}

func scanDevice(rows *sql.Rows, tenant iot.TenantID) (*registry.DeviceRecord, error) {
	var id string
	var row deviceRow
	if err := rows.Scan(append([]any{&id}, row.columns()...)...); err != nil {
		return nil, err
	}
	return row.record(tenant, iot.DeviceID(strings.Clone(id)))
}

// Export implements registry.Finder.
func (s *Store) Export(ctx context.Context, tenant iot.TenantID, after iot.DeviceID, max int) ([]registry.FullDevice, error) {
	var all []registry.FullDevice
	err := s.snapshot(ctx, func(ctx context.Context, c *conn) error {
		err := c.each(ctx, deviceOf+`WHERE d.tenant = ? AND d.id > ? ORDER BY d.id LIMIT ?`, []any{string(tenant), string(after), max}, func(rows *sql.Rows) error {
			d, err := scanDevice(rows, tenant)
			if err == nil {
				all = append(all, registry.FullDevice{Device: *d})
			}
			return err
		})
		for i := 0; err == nil && i < len(all); i++ {
			err = c.exportCredentials(ctx, &all[i])
		}
		return err
	})
	return all, err
}

func (c *conn) exportCredentials(ctx context.Context, d *registry.FullDevice) error {
	d.Credentials = registry.CredentialsRecord{Tenant: d.Device.Tenant, Device: d.Device.ID, Set: []iot.Credential{}}
	return c.each(ctx, `SELECT d.credentials_version, c.doc FROM devices d
		LEFT JOIN credentials c INDEXED BY credentials_of_device ON c.tenant = d.tenant AND c.device = d.id
		WHERE d.tenant = ? AND d.id = ? ORDER BY c.position`, []any{string(d.Device.Tenant), string(d.Device.ID)},
		func(rows *sql.Rows) error { return scanCredential(rows, &d.Credentials) })
}
