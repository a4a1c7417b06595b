package pgstore

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// readState runs f on a connection where all statements see one state.
func (s *Store) readState(ctx context.Context, f func(context.Context, pgx.Tx) error) error {
	return s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		tx, err := c.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
		if err != nil {
			return err
		}
		defer tx.Rollback(context.WithoutCancel(ctx)) // nothing was written
		return f(ctx, tx)
	})
}

// SearchDevices implements registry.Finder.
func (s *Store) SearchDevices(ctx context.Context, tenant iot.TenantID, search registry.Search) (registry.DevicePage, error) {
	var page registry.DevicePage
	if !storable(string(tenant)) {
		return page, errNoTenant
	}
	err := s.readState(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var known bool
		var count int
		err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM tenants WHERE id = $1), coalesce((SELECT devices FROM counters WHERE tenant = $1), 0)`,
			string(tenant)).Scan(&known, &count)
		if err != nil {
			return err
		}
		if !known {
			return errNoTenant
		}
		if search.Plain() {
			page = registry.DevicePage{Total: count}
			c := &clause{text: "d.tenant = $1", args: []any{string(tenant)}}
			page.Devices, err = pageOfDevices(ctx, tx, tenant, c, &search)
			return err
		}
		page, err = findDevices(ctx, tx, tenant, &search, count)
		return err
	})
	return page, err
}

// findDevices answers a search with conditions among count devices.
func findDevices(ctx context.Context, tx pgx.Tx, tenant iot.TenantID, search *registry.Search, count int) (registry.DevicePage, error) {
	var page registry.DevicePage
	use, path, err := chooseIndex(ctx, tx, search)
	if err != nil {
		return page, err
	}
	c := deviceClause(string(tenant), search, use, path)
	if use != nil && use.Only {
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM devices d WHERE `+c.text, c.args...).Scan(&page.Total); err != nil {
			return page, err
		}
		page.Devices, err = pageOfDevices(ctx, tx, tenant, c, search)
		return page, err
	}
	selection := registry.NewSelection(*search)
	if use == nil && search.IsGateway == nil && count >= scanLimit(search) {
		return page, selection.TooMany() // without reading them first
	}
	if err := offerDevices(ctx, tx, c, search, selection); err != nil {
		return page, err
	}
	total, ids := selection.Page()
	page.Total = total
	if len(ids) == 0 {
		return page, nil
	}
	rows, err := tx.Query(ctx, `SELECT d.id, `+deviceColumns+` FROM unnest($2::text[]) WITH ORDINALITY n (id, number)
		JOIN devices d ON d.tenant = $1 AND d.id = n.id ORDER BY n.number`, string(tenant), ids)
	if err != nil {
		return page, err
	}
	page.Devices, err = scanPage(rows, tenant)
	return page, err
}

// chooseIndex returns the index that helps and its number, nil for none.
func chooseIndex(ctx context.Context, tx pgx.Tx, search *registry.Search) (*registry.IndexUse, int64, error) {
	if len(search.Filters) == 0 {
		return nil, 0, nil
	}
	all, err := readPaths(ctx, tx)
	if err != nil {
		return nil, 0, err
	}
	var paths [][]string
	var numbers []int64
	for _, p := range all {
		if p.complete {
			paths, numbers = append(paths, p.path), append(numbers, p.number)
		}
	}
	use, ok := search.UseIndex(paths)
	switch {
	case !ok:
		return nil, 0, nil
	case use.ID:
		return &use, 0, nil
	}
	return &use, numbers[use.Path], nil
}

// pageOfDevices reads a page in the order of the ids. The page is found among
// the keys alone, so that a far one costs no documents.
func pageOfDevices(ctx context.Context, tx pgx.Tx, tenant iot.TenantID, c *clause, search *registry.Search) ([]registry.DeviceRecord, error) {
	offset, limit := c.arg(max(search.Offset, 0)), c.arg(max(search.Limit, 1))
	rows, err := tx.Query(ctx, `SELECT d.id, `+deviceColumns+` FROM (
			SELECT d.tenant, d.id FROM devices d WHERE `+c.text+` ORDER BY d.id OFFSET `+offset+` LIMIT `+limit+`) k
		JOIN devices d ON d.tenant = k.tenant AND d.id = k.id ORDER BY d.id`, c.args...)
	if err != nil {
		return nil, err
	}
	return scanPage(rows, tenant)
}

func scanPage(rows pgx.Rows, tenant iot.TenantID) ([]registry.DeviceRecord, error) {
	defer rows.Close()
	var all []registry.DeviceRecord
	var id string
	var row deviceRow
	columns := append([]any{&id}, row.columns()...)
	for rows.Next() {
		if err := rows.Scan(columns...); err != nil {
			return nil, err
		}
		d, err := row.record(tenant, iot.DeviceID(id))
		if err != nil {
			return nil, err
		}
		all = append(all, *d)
	}
	return all, rows.Err()
}

// scanLimit is one document more than a search may read.
func scanLimit(search *registry.Search) int {
	if search.MaxScan <= 0 {
		return registry.DefaultMaxScan + 1
	}
	return search.MaxScan + 1
}

// offerDevices streams the candidates to the selection.
func offerDevices(ctx context.Context, tx pgx.Tx, c *clause, search *registry.Search, selection *registry.Selection) error {
	limit := c.arg(scanLimit(search))
	rows, err := tx.Query(ctx, `SELECT d.id, `+deviceColumns+` FROM devices d WHERE `+c.text+` LIMIT `+limit, c.args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	var id string
	var row deviceRow
	var doc pgtype.DriverBytes
	columns := append([]any{&id, &doc}, row.columns()[1:]...)
	for rows.Next() {
		if err := rows.Scan(columns...); err != nil {
			return err
		}
		status := row.status()
		candidate := registry.Candidate{ID: id, Doc: doc, Status: &status, Gateway: search.IsGateway != nil && *search.IsGateway}
		if err := selection.Offer(candidate); err != nil {
			return err
		}
	}
	return rows.Err()
}

// SearchTenants implements registry.Finder.
func (s *Store) SearchTenants(ctx context.Context, search registry.Search) (registry.TenantPage, error) {
	var page registry.TenantPage
	err := s.readState(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		if search.Plain() {
			page, err = plainTenants(ctx, tx, &search)
		} else {
			page, err = findTenants(ctx, tx, &search)
		}
		return err
	})
	return page, err
}

func plainTenants(ctx context.Context, tx pgx.Tx, search *registry.Search) (page registry.TenantPage, err error) {
	if err := tx.QueryRow(ctx, `SELECT tenants FROM state`).Scan(&page.Total); err != nil {
		return page, err
	}
	rows, err := tx.Query(ctx, `SELECT `+tenantColumns+` FROM (SELECT id FROM tenants ORDER BY id OFFSET $1 LIMIT $2) k
		JOIN tenants t ON t.id = k.id ORDER BY t.id`, max(search.Offset, 0), max(search.Limit, 1))
	if err != nil {
		return page, err
	}
	page.Tenants, err = scanTenants(rows)
	return page, err
}

func findTenants(ctx context.Context, tx pgx.Tx, search *registry.Search) (page registry.TenantPage, err error) {
	c := &clause{text: "true"}
	if use, ok := search.UseIndex(nil); ok {
		c.byText("id", &use)
	}
	limit := c.arg(scanLimit(search))
	rows, err := tx.Query(ctx, `SELECT id, doc FROM tenants WHERE `+c.text+` LIMIT `+limit, c.args...)
	if err != nil {
		return page, err
	}
	defer rows.Close()
	selection := registry.NewSelection(*search)
	var id string
	var doc pgtype.DriverBytes
	for rows.Next() {
		if err := rows.Scan(&id, &doc); err != nil {
			return page, err
		}
		if err := selection.Offer(registry.Candidate{ID: id, Doc: doc}); err != nil {
			return page, err
		}
	}
	if err := rows.Err(); err != nil {
		return page, err
	}
	var ids []string
	if page.Total, ids = selection.Page(); len(ids) == 0 {
		return page, nil
	}
	rows, err = tx.Query(ctx, `SELECT `+tenantColumns+` FROM unnest($1::text[]) WITH ORDINALITY n (id, number)
		JOIN tenants t ON t.id = n.id ORDER BY n.number`, ids)
	if err != nil {
		return page, err
	}
	page.Tenants, err = scanTenants(rows)
	return page, err
}

func scanTenants(rows pgx.Rows) ([]registry.TenantRecord, error) {
	defer rows.Close()
	var all []registry.TenantRecord
	for rows.Next() {
		t, err := scanTenant(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, rows.Err()
}

// Export implements registry.Finder.
func (s *Store) Export(ctx context.Context, tenant iot.TenantID, after iot.DeviceID, max int) ([]registry.FullDevice, error) {
	if !storable(string(after)) {
		return nil, errText
	}
	var all []registry.FullDevice
	err := s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		all = nil
		rows, err := c.Query(ctx, `SELECT d.id, d.credentials_version,
				ARRAY(SELECT c.doc FROM credentials c WHERE c.tenant = d.tenant AND c.device = d.id ORDER BY c.position), `+deviceColumns+`
			FROM devices d WHERE d.tenant = $1 AND d.id > $2 ORDER BY d.id LIMIT $3`, text(tenant), string(after), max)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			full, err := scanFull(rows, tenant)
			if err != nil {
				return err
			}
			all = append(all, full)
		}
		return rows.Err()
	})
	return all, err
}

func scanFull(rows pgx.Rows, tenant iot.TenantID) (full registry.FullDevice, err error) {
	var id string
	var docs [][]byte
	var row deviceRow
	c := &full.Credentials
	if err := rows.Scan(append([]any{&id, &c.Version, &docs}, row.columns()...)...); err != nil {
		return full, err
	}
	d, err := row.record(tenant, iot.DeviceID(id))
	if err != nil {
		return full, err
	}
	full.Device = *d
	c.Tenant, c.Device, c.Set = tenant, d.ID, make([]iot.Credential, len(docs))
	for i := range docs {
		if err := decode(docs[i], &c.Set[i]); err != nil {
			return full, err
		}
	}
	return full, nil
}
