package sqlitestore

import (
	"context"
	"database/sql"

	"github.com/sluice-iot/sluice/internal/registry"
)

// others reads one page of the devices that are no gateways. There are usually
// few gateways, so the total is what they leave.
func (f *finder) others(ctx context.Context) error {
	total, err := f.count(ctx)
	if err != nil {
		return err
	}
	ids, err := f.gatewayIDs(ctx)
	if err != nil {
		return err
	}
	for id := range ids {
		known, err := f.c.exists(ctx, `SELECT 1 FROM devices WHERE tenant = ? AND id = ?`, string(f.tenant), id)
		if err != nil {
			return err
		}
		if known {
			total--
		}
	}
	f.page.Total = total
	return f.rows(ctx, deviceOf+`WHERE d.tenant = ?1
		AND NOT EXISTS (SELECT 1 FROM vias v WHERE v.tenant = ?1 AND v.gateway = d.id)
		AND NOT EXISTS (SELECT 1 FROM members m WHERE m.tenant = ?1 AND m.device = d.id)
		ORDER BY d.id LIMIT ?2 OFFSET ?3`, string(f.tenant), f.q.Limit, f.q.Offset)
}

// gateways offers those that act as gateways only, found by their names.
func (f *finder) gateways(ctx context.Context, sel *registry.Selection) error {
	ids, err := f.gatewayIDs(ctx)
	if err != nil {
		return err
	}
	for id := range ids {
		err := f.c.each(ctx, deviceOf+`WHERE d.tenant = ? AND d.id = ?`, []any{string(f.tenant), id}, func(rows *sql.Rows) error {
			var own string
			var row deviceRow
			if err := rows.Scan(append([]any{&own}, row.columns()...)...); err != nil {
				return err
			}
			status := row.status()
			return sel.Offer(registry.Candidate{ID: id, Doc: row.doc, Status: &status, Gateway: true})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// gatewayIDs are the names in any via and the members of any group. A gateway
// may act for very many devices, so its next is looked up rather than all read.
func (f *finder) gatewayIDs(ctx context.Context) (map[string]bool, error) {
	ids := map[string]bool{}
	next, more := "", true
	for more {
		var found sql.NullString
		err := f.c.row(ctx, `SELECT min(gateway) FROM vias WHERE tenant = ? AND gateway > ?`, []any{string(f.tenant), next}, &found)
		if err != nil {
			return nil, err
		}
		if next, more = found.String, found.Valid; more {
			ids[next] = true
		}
	}
	err := f.c.each(ctx, `SELECT DISTINCT device FROM members WHERE tenant = ?`, []any{string(f.tenant)}, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		ids[id] = true
		return err
	})
	return ids, err
}
