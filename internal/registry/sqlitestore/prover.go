package sqlitestore

import (
	"context"
	"database/sql"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// MarkNotified implements registry.Prover.
func (s *Store) MarkNotified(ctx context.Context, tenant iot.TenantID, device iot.DeviceID, ifVersion, version string, at time.Time) error {
	return s.write(ctx, func(ctx context.Context, c *conn) error {
		if err := c.checkTenant(ctx, tenant, ""); err != nil {
			return err
		}
		if err := c.checkDevice(ctx, tenant, device, ifVersion); err != nil {
			return err
		}
		var doc sql.RawBytes
		d := registry.DeviceRecord{Tenant: tenant, ID: device}
		err := c.each(ctx, `SELECT doc FROM devices WHERE tenant = ? AND id = ?`, []any{string(tenant), string(device)}, func(rows *sql.Rows) error {
			if err := rows.Scan(&doc); err != nil {
				return err
			}
			return decode(doc, &d.Device)
		})
		if err != nil {
			return err
		}
		if _, err := c.exec(ctx, `UPDATE devices SET notification_sent = 1, version = ?, updated = ? WHERE tenant = ? AND id = ?`,
			version, millis(at), string(tenant), string(device)); err != nil {
			return err
		}
		return s.record(ctx, c, d.Change(registry.Update, at))
	})
}

// KeepVerified implements registry.Prover.
func (s *Store) KeepVerified(ctx context.Context, tenant iot.TenantID, credentialType, authID string, v registry.Verified) error {
	return s.write(ctx, func(ctx context.Context, c *conn) error {
		_, err := c.exec(ctx, `INSERT INTO verified (tenant, type, auth_id, secret, mac, until)
			SELECT ?1, ?2, ?3, ?4, ?5, ?6 FROM credentials WHERE tenant = ?1 AND type = ?2 AND auth_id = ?3
			ON CONFLICT (tenant, type, auth_id, secret) DO UPDATE SET mac = excluded.mac, until = excluded.until`,
			string(tenant), credentialType, authID, v.SecretID, v.MAC, millis(v.Until))
		return err
	})
}

// dropCredentials removes a device's credentials with what is kept beside them.
// The index is named because SQLite may choose the primary key for a DELETE, of
// which the tenant alone is given: that reads every credential of the tenant.
func (c *conn) dropCredentials(ctx context.Context, tenant iot.TenantID, device iot.DeviceID) error {
	for _, text := range []string{
		`DELETE FROM verified WHERE tenant = ?1 AND (type, auth_id) IN (SELECT type, auth_id FROM credentials INDEXED BY credentials_of_device WHERE tenant = ?1 AND device = ?2)`,
		`DELETE FROM credentials INDEXED BY credentials_of_device WHERE tenant = ?1 AND device = ?2`,
	} {
		if _, err := c.exec(ctx, text, string(tenant), string(device)); err != nil {
			return err
		}
	}
	return nil
}
