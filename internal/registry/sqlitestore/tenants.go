package sqlitestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// CreateTenant implements registry.Store.
func (s *Store) CreateTenant(ctx context.Context, t registry.TenantRecord) error {
	doc, err := json.Marshal(t.Tenant)
	if err != nil {
		return err
	}
	return s.write(ctx, func(ctx context.Context, c *conn) error {
		if err := c.checkConflicts(ctx, &t); err != nil {
			return err
		}
		n, err := c.exec(ctx, `INSERT INTO tenants (id, alias, anchor_group, doc, version, created, updated)
			VALUES (?, nullif(?, ''), ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
			string(t.ID), t.Tenant.Alias, t.Tenant.TrustAnchorGroup, doc, t.Version, millis(t.Created), millis(t.Updated))
		if err != nil {
			return err
		}
		if n == 0 {
			return iot.Errorf(iot.ErrExists, "tenant already exists")
		}
		if err := c.putAnchors(ctx, &t); err != nil {
			return err
		}
		return s.record(ctx, c, t.Change(registry.Create, t.Created))
	})
}

// UpdateTenant implements registry.Store.
func (s *Store) UpdateTenant(ctx context.Context, t registry.TenantRecord, ifVersion string) error {
	doc, err := json.Marshal(t.Tenant)
	if err != nil {
		return err
	}
	return s.write(ctx, func(ctx context.Context, c *conn) error {
		if err := c.checkTenant(ctx, t.ID, ifVersion); err != nil {
			return err
		}
		if err := c.checkConflicts(ctx, &t); err != nil {
			return err
		}
		_, err := c.exec(ctx, `UPDATE tenants SET alias = nullif(?, ''), anchor_group = ?, doc = ?, version = ?, updated = ? WHERE id = ?`,
			t.Tenant.Alias, t.Tenant.TrustAnchorGroup, doc, t.Version, millis(t.Updated), string(t.ID))
		if err != nil {
			return err
		}
		if err := c.putAnchors(ctx, &t); err != nil {
			return err
		}
		return s.record(ctx, c, t.Change(registry.Update, t.Updated))
	})
}

// DeleteTenant implements registry.Store.
func (s *Store) DeleteTenant(ctx context.Context, id iot.TenantID, ifVersion string, at time.Time) error {
	return s.write(ctx, func(ctx context.Context, c *conn) error {
		if err := c.checkTenant(ctx, id, ifVersion); err != nil {
			return err
		}
		if _, err := c.exec(ctx, `DELETE FROM tenants WHERE id = ?`, string(id)); err != nil {
			return err
		}
		if _, err := c.exec(ctx, `DELETE FROM anchors WHERE tenant = ?`, string(id)); err != nil {
			return err
		}
		return s.record(ctx, c, registry.Change{
			Tenant: id, Kind: registry.TenantChanged, Change: registry.Delete, InvalidateCache: true, At: at,
		})
	})
}

// Tenant implements registry.Store.
func (s *Store) Tenant(ctx context.Context, id iot.TenantID) (t registry.TenantRecord, err error) {
	err = s.read(ctx, func(ctx context.Context, c *conn) error {
		t, err = c.tenant(ctx, id)
		return err
	})
	return t, err
}

func (c *conn) tenant(ctx context.Context, id iot.TenantID) (registry.TenantRecord, error) {
	t := registry.TenantRecord{ID: id}
	var doc []byte
	var created, updated int64
	err := c.row(ctx, `SELECT doc, version, created, updated FROM tenants WHERE id = ?`, []any{string(id)},
		&doc, &t.Version, &created, &updated)
	if errors.Is(err, sql.ErrNoRows) {
		return t, errNoTenant
	}
	if err != nil {
		return t, err
	}
	t.Created, t.Updated = instant(created), instant(updated)
	return t, decode(doc, &t.Tenant)
}

// checkTenant returns errNoTenant or errVersion unless the tenant is there in that version.
func (c *conn) checkTenant(ctx context.Context, id iot.TenantID, ifVersion string) error {
	var version string
	err := c.row(ctx, `SELECT version FROM tenants WHERE id = ?`, []any{string(id)}, &version)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return errNoTenant
	case err != nil:
		return err
	case ifVersion != "" && ifVersion != version:
		return errVersion
	}
	return nil
}

// checkConflicts looks for other tenants with the same alias or trust anchor.
func (c *conn) checkConflicts(ctx context.Context, t *registry.TenantRecord) error {
	for i := range t.Tenant.TrustedCA {
		taken, err := c.exists(ctx, `SELECT 1 FROM anchors a JOIN tenants t ON t.id = a.tenant
			WHERE a.dn = ?1 AND a.tenant <> ?2 AND (?3 = '' OR t.anchor_group <> ?3) LIMIT 1`,
			t.Tenant.TrustedCA[i].SubjectDN, string(t.ID), t.Tenant.TrustAnchorGroup)
		if err != nil {
			return err
		}
		if taken {
			return iot.Errorf(iot.ErrExists, "trusted-ca[%d]: another tenant of a different trust anchor group uses the same CA", i)
		}
	}
	taken, err := c.exists(ctx, `SELECT 1 FROM tenants WHERE alias = ?1 AND id <> ?1`, string(t.ID))
	if err == nil && taken {
		return iot.Errorf(iot.ErrExists, "tenant id is the alias of another tenant")
	}
	if err != nil || t.Tenant.Alias == "" {
		return err
	}
	taken, err = c.exists(ctx, `SELECT 1 FROM tenants WHERE id <> ?2 AND (alias = ?1 OR id = ?1)`, t.Tenant.Alias, string(t.ID))
	if err == nil && taken {
		err = iot.Errorf(iot.ErrExists, "tenant alias already in use")
	}
	return err
}

func (c *conn) putAnchors(ctx context.Context, t *registry.TenantRecord) error {
	if _, err := c.exec(ctx, `DELETE FROM anchors WHERE tenant = ?`, string(t.ID)); err != nil {
		return err
	}
	for _, a := range t.Tenant.TrustedCA { // the same DN may come twice
		_, err := c.exec(ctx, `INSERT INTO anchors (dn, tenant) VALUES (?, ?) ON CONFLICT DO NOTHING`, a.SubjectDN, string(t.ID))
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) exists(ctx context.Context, text string, args ...any) (bool, error) {
	var one int
	err := c.row(ctx, text, args, &one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

func decode(doc []byte, dst any) error {
	if err := json.Unmarshal(doc, dst); err != nil {
		return fmt.Errorf("stored document: %w", err)
	}
	return nil
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func instant(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
