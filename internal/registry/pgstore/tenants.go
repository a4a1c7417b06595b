package pgstore

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// tenantUnit is what a change of a tenant's document reads under the locks.
type tenantUnit struct {
	version  string // "" = it does not exist
	sequence int64
	devices  int64
	// What the wanted document conflicts with.
	idTaken    bool // another tenant's alias
	aliasTaken bool
	anchor     int // position from 1 of the first anchor in use; 0 = none
}

// alterTenant makes one change of a tenant. f checks the unit and queues what
// is to be written.
func (s *Store) alterTenant(ctx context.Context, t *registry.TenantRecord, f func(*tenantUnit, *pgx.Batch) (registry.Change, error)) error {
	if !storable(string(t.ID), t.Version, t.Tenant.Alias, t.Tenant.TrustAnchorGroup) || !storable(subjects(t)...) {
		return errText
	}
	var change registry.Change
	err := s.change(ctx, func(ctx context.Context, x *tx) error {
		u, err := beginTenant(ctx, x, t)
		if err != nil {
			return err
		}
		b := &pgx.Batch{}
		if change, err = f(u, b); err != nil {
			return err
		}
		u.sequence++
		change.Tenant, change.Sequence, change.At = t.ID, uint64(u.sequence), instant(millis(change.At))
		b.Queue(`UPDATE counters SET sequence = $2 WHERE tenant = $1`, string(t.ID), u.sequence)
		queueChanges(b, []registry.Change{change})
		s.pruner.due([]registry.Change{change}).queue(b)
		return x.finish(ctx, b)
	})
	if err == nil {
		s.observe(ctx, []registry.Change{change})
	}
	return err
}

// beginTenant takes the locks: first the one row of state, because what must
// be unique is so among all tenants, then the tenant's counters.
func beginTenant(ctx context.Context, x *tx, t *registry.TenantRecord) (*tenantUnit, error) {
	u := &tenantUnit{}
	b := &pgx.Batch{}
	b.Queue(`SELECT 1 FROM state FOR UPDATE`)
	b.Queue(`INSERT INTO counters (tenant, sequence, devices) VALUES ($1, 0, 0) ON CONFLICT DO NOTHING`, string(t.ID))
	lockCounters(b, string(t.ID), &u.sequence, &u.devices)
	b.Queue(`SELECT coalesce((SELECT version FROM tenants WHERE id = $1), ''),
		EXISTS (SELECT 1 FROM tenants WHERE alias = $1 AND id <> $1),
		$2 <> '' AND EXISTS (SELECT 1 FROM tenants WHERE (alias = $2 OR id = $2) AND id <> $1),
		coalesce((SELECT min(a.position) FROM unnest($3::text[]) WITH ORDINALITY a (dn, position)
			JOIN anchors x ON x.dn = a.dn AND x.tenant <> $1
			JOIN tenants o ON o.id = x.tenant
			WHERE $4 = '' OR o.anchor_group <> $4), 0)`,
		string(t.ID), t.Tenant.Alias, subjects(t), t.Tenant.TrustAnchorGroup).QueryRow(func(row pgx.Row) error {
		return row.Scan(&u.version, &u.idTaken, &u.aliasTaken, &u.anchor)
	})
	return u, x.load(ctx, b)
}

func subjects(t *registry.TenantRecord) []string {
	dns := make([]string, len(t.Tenant.TrustedCA))
	for i := range dns {
		dns[i] = t.Tenant.TrustedCA[i].SubjectDN
	}
	return dns
}

// CreateTenant implements registry.Store.
func (s *Store) CreateTenant(ctx context.Context, t registry.TenantRecord) error {
	doc, err := json.Marshal(t.Tenant)
	if err != nil {
		return err
	}
	return s.alterTenant(ctx, &t, func(u *tenantUnit, b *pgx.Batch) (registry.Change, error) {
		if err := u.checkConflicts(); err != nil {
			return registry.Change{}, err
		}
		if u.version != "" {
			return registry.Change{}, iot.Errorf(iot.ErrExists, "tenant already exists")
		}
		b.Queue(`INSERT INTO tenants (id, alias, anchor_group, doc, version, created, updated) VALUES ($1, nullif($2, ''), $3, $4, $5, $6, $7)`,
			string(t.ID), t.Tenant.Alias, t.Tenant.TrustAnchorGroup, doc, t.Version, millis(t.Created), millis(t.Updated))
		b.Queue(`UPDATE state SET tenants = tenants + 1`)
		queueAnchors(b, &t)
		return t.Change(registry.Create, t.Created), nil
	})
}

// UpdateTenant implements registry.Store.
func (s *Store) UpdateTenant(ctx context.Context, t registry.TenantRecord, ifVersion string) error {
	doc, err := json.Marshal(t.Tenant)
	if err != nil {
		return err
	}
	return s.alterTenant(ctx, &t, func(u *tenantUnit, b *pgx.Batch) (registry.Change, error) {
		if err := u.checkVersion(ifVersion); err != nil {
			return registry.Change{}, err
		}
		if err := u.checkConflicts(); err != nil {
			return registry.Change{}, err
		}
		b.Queue(`UPDATE tenants SET alias = nullif($2, ''), anchor_group = $3, doc = $4, version = $5, updated = $6 WHERE id = $1`,
			string(t.ID), t.Tenant.Alias, t.Tenant.TrustAnchorGroup, doc, t.Version, millis(t.Updated))
		queueAnchors(b, &t)
		return t.Change(registry.Update, t.Updated), nil
	})
}

// DeleteTenant implements registry.Store.
func (s *Store) DeleteTenant(ctx context.Context, id iot.TenantID, ifVersion string, at time.Time) error {
	return s.alterTenant(ctx, &registry.TenantRecord{ID: id}, func(u *tenantUnit, b *pgx.Batch) (registry.Change, error) {
		if err := u.checkVersion(ifVersion); err != nil {
			return registry.Change{}, err
		}
		b.Queue(`DELETE FROM tenants WHERE id = $1`, string(id))
		b.Queue(`DELETE FROM anchors WHERE tenant = $1`, string(id))
		b.Queue(`UPDATE state SET tenants = tenants - 1`)
		return registry.Change{Kind: registry.TenantChanged, Change: registry.Delete, InvalidateCache: true, At: at}, nil
	})
}

// Tenant implements registry.Store.
func (s *Store) Tenant(ctx context.Context, id iot.TenantID) (registry.TenantRecord, error) {
	var t registry.TenantRecord
	err := s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		row := c.QueryRow(ctx, `SELECT `+tenantColumns+` FROM tenants t WHERE t.id = $1`, text(id))
		var err error
		if t, err = scanTenant(row); errors.Is(err, pgx.ErrNoRows) {
			err = errNoTenant
		}
		return err
	})
	t.ID = id
	return t, err
}

const tenantColumns = `t.id, t.doc, t.version, t.created, t.updated`

func scanTenant(row pgx.Row) (registry.TenantRecord, error) {
	var t registry.TenantRecord
	var doc []byte
	var created, updated int64
	if err := row.Scan((*string)(&t.ID), &doc, &t.Version, &created, &updated); err != nil {
		return t, err
	}
	t.Created, t.Updated = instant(created), instant(updated)
	return t, decode(doc, &t.Tenant)
}

// checkVersion returns errNoTenant or errVersion unless the tenant is there in that version.
func (u *tenantUnit) checkVersion(ifVersion string) error {
	switch {
	case u.version == "":
		return errNoTenant
	case ifVersion != "" && ifVersion != u.version:
		return errVersion
	}
	return nil
}

func (u *tenantUnit) checkConflicts() error {
	switch {
	case u.anchor > 0:
		return iot.Errorf(iot.ErrExists, "trusted-ca[%d]: another tenant of a different trust anchor group uses the same CA", u.anchor-1)
	case u.idTaken:
		return iot.Errorf(iot.ErrExists, "tenant id is the alias of another tenant")
	case u.aliasTaken:
		return iot.Errorf(iot.ErrExists, "tenant alias already in use")
	}
	return nil
}

func queueAnchors(b *pgx.Batch, t *registry.TenantRecord) {
	b.Queue(`DELETE FROM anchors WHERE tenant = $1`, string(t.ID))
	if dns := subjects(t); len(dns) > 0 { // the same DN may come twice
		b.Queue(`INSERT INTO anchors (dn, tenant) SELECT DISTINCT dn, $1 FROM unnest($2::text[]) n (dn)`, string(t.ID), dns)
	}
}
