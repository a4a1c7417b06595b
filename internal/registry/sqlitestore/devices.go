package sqlitestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// CreateDevice implements registry.Store.
func (s *Store) CreateDevice(ctx context.Context, d registry.DeviceRecord, credentialsVersion string, maxDevices int64) error {
	doc, groups, err := encodeDevice(&d.Device)
	if err != nil {
		return err
	}
	return s.write(ctx, func(ctx context.Context, c *conn) error {
		if err := c.checkTenant(ctx, d.Tenant, ""); err != nil {
			return err
		}
		if err := c.checkLimit(ctx, d.Tenant, maxDevices); err != nil {
			return err
		}
		n, err := c.exec(ctx, `INSERT INTO devices (tenant, id, doc, via_groups, version, credentials_version,
				created, updated, auto_provisioned, notification_sent)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			string(d.Tenant), string(d.ID), doc, groups, d.Version, credentialsVersion,
			millis(d.Status.Created.Time), millis(d.Status.Updated.Time), d.Status.AutoProvisioned, d.Status.AutoProvisioningNotificationSent)
		if err != nil {
			return err
		}
		if n == 0 {
			return iot.Errorf(iot.ErrExists, "device already exists")
		}
		if err := c.putMembers(ctx, &d); err != nil {
			return err
		}
		if err := c.countDevices(ctx, d.Tenant, 1); err != nil {
			return err
		}
		return s.record(ctx, c, deviceChange(&d, registry.Create, d.Status.Created.Time))
	})
}

// Device implements registry.Store.
func (s *Store) Device(ctx context.Context, tenant iot.TenantID, id iot.DeviceID) (registry.DeviceRecord, error) {
	d := registry.DeviceRecord{Tenant: tenant, ID: id}
	err := s.read(ctx, func(ctx context.Context, c *conn) error {
		var row deviceRow
		err := c.row(ctx, `SELECT d.doc, d.version, d.created, d.updated, d.auto_provisioned, d.notification_sent
			FROM tenants t LEFT JOIN devices d ON d.tenant = t.id AND d.id = ? WHERE t.id = ?`,
			[]any{string(id), string(tenant)}, row.columns()...)
		if errors.Is(err, sql.ErrNoRows) {
			return errNoTenant
		}
		if err != nil {
			return err
		}
		found, err := row.record(tenant, id)
		if err != nil {
			return err
		}
		if found == nil {
			return errNoDevice
		}
		d = *found
		return nil
	})
	return d, err
}

// UpdateDevice implements registry.Store.
func (s *Store) UpdateDevice(ctx context.Context, d registry.DeviceRecord, ifVersion string) error {
	doc, groups, err := encodeDevice(&d.Device)
	if err != nil {
		return err
	}
	return s.write(ctx, func(ctx context.Context, c *conn) error {
		if err := c.checkTenant(ctx, d.Tenant, ""); err != nil {
			return err
		}
		if err := c.checkDevice(ctx, d.Tenant, d.ID, ifVersion); err != nil {
			return err
		}
		_, err := c.exec(ctx, `UPDATE devices SET doc = ?, via_groups = ?, version = ?, updated = ? WHERE tenant = ? AND id = ?`,
			doc, groups, d.Version, millis(d.Status.Updated.Time), string(d.Tenant), string(d.ID))
		if err != nil {
			return err
		}
		if err := c.putMembers(ctx, &d); err != nil {
			return err
		}
		return s.record(ctx, c, deviceChange(&d, registry.Update, d.Status.Updated.Time))
	})
}

// DeleteDevice implements registry.Store.
func (s *Store) DeleteDevice(ctx context.Context, tenant iot.TenantID, id iot.DeviceID, ifVersion string, at time.Time) error {
	return s.write(ctx, func(ctx context.Context, c *conn) error {
		if err := c.checkDevice(ctx, tenant, id, ifVersion); err != nil {
			return err
		}
		for _, text := range []string{
			`DELETE FROM devices WHERE tenant = ? AND id = ?`,
			`DELETE FROM members WHERE tenant = ? AND device = ?`,
			`DELETE FROM credentials WHERE tenant = ? AND device = ?`,
		} {
			if _, err := c.exec(ctx, text, string(tenant), string(id)); err != nil {
				return err
			}
		}
		if err := c.countDevices(ctx, tenant, -1); err != nil {
			return err
		}
		return s.record(ctx, c, registry.Change{
			Tenant: tenant, Kind: registry.DeviceChanged, Device: id, Change: registry.Delete, At: at,
		})
	})
}

// DeleteDevices implements registry.Store.
func (s *Store) DeleteDevices(ctx context.Context, tenant iot.TenantID, at time.Time) error {
	return s.write(ctx, func(ctx context.Context, c *conn) error {
		for _, text := range []string{
			`DELETE FROM devices WHERE tenant = ?`,
			`DELETE FROM members WHERE tenant = ?`,
			`DELETE FROM credentials WHERE tenant = ?`,
			`UPDATE counters SET devices = 0 WHERE tenant = ?`,
		} {
			if _, err := c.exec(ctx, text, string(tenant)); err != nil {
				return err
			}
		}
		return s.record(ctx, c, registry.Change{Tenant: tenant, Kind: registry.DevicesDeleted, At: at})
	})
}

func deviceChange(d *registry.DeviceRecord, change string, at time.Time) registry.Change {
	return registry.Change{
		Tenant: d.Tenant, Kind: registry.DeviceChanged, Device: d.ID, Change: change, Enabled: d.Device.IsEnabled(), At: at,
	}
}

// encodeDevice returns the document and, where there are any, the viaGroups
// as a JSON array for the query that finds their members.
func encodeDevice(d *iot.Device) (doc []byte, groups sql.NullString, err error) {
	if doc, err = json.Marshal(d); err != nil || len(d.ViaGroups) == 0 {
		return doc, groups, err
	}
	b, err := json.Marshal(d.ViaGroups)
	return doc, sql.NullString{String: string(b), Valid: true}, err
}

// checkDevice returns errNoDevice or errVersion unless the device is there in
// that version. It does not ask for the tenant.
func (c *conn) checkDevice(ctx context.Context, tenant iot.TenantID, id iot.DeviceID, ifVersion string) error {
	var version string
	err := c.row(ctx, `SELECT version FROM devices WHERE tenant = ? AND id = ?`, []any{string(tenant), string(id)}, &version)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return errNoDevice
	case err != nil:
		return err
	case ifVersion != "" && ifVersion != version:
		return errVersion
	}
	return nil
}

func (c *conn) checkLimit(ctx context.Context, tenant iot.TenantID, maxDevices int64) error {
	if maxDevices < 0 {
		return nil
	}
	var count int64
	err := c.row(ctx, `SELECT devices FROM counters WHERE tenant = ?`, []any{string(tenant)}, &count)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if count >= maxDevices {
		return iot.Errorf(iot.ErrForbidden, "configured device limit reached [max devices: %d]", maxDevices)
	}
	return nil
}

func (c *conn) countDevices(ctx context.Context, tenant iot.TenantID, by int) error {
	_, err := c.exec(ctx, `INSERT INTO counters (tenant, sequence, devices) VALUES (?1, 0, ?2)
		ON CONFLICT (tenant) DO UPDATE SET devices = devices + ?2`, string(tenant), by)
	return err
}

func (c *conn) putMembers(ctx context.Context, d *registry.DeviceRecord) error {
	_, err := c.exec(ctx, `DELETE FROM members WHERE tenant = ? AND device = ?`, string(d.Tenant), string(d.ID))
	for i := 0; err == nil && i < len(d.Device.MemberOf); i++ {
		_, err = c.exec(ctx, `INSERT INTO members (tenant, gateway_group, device) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
			string(d.Tenant), d.Device.MemberOf[i], string(d.ID))
	}
	return err
}

// deviceRow is a device as a LEFT JOIN yields it: all NULL when there is none.
type deviceRow struct {
	doc                   []byte
	version               sql.NullString
	created, updated      sql.NullInt64
	provisioned, notified sql.NullBool
}

func (r *deviceRow) columns() []any {
	return []any{&r.doc, &r.version, &r.created, &r.updated, &r.provisioned, &r.notified}
}

func (r *deviceRow) record(tenant iot.TenantID, id iot.DeviceID) (*registry.DeviceRecord, error) {
	if !r.version.Valid {
		return nil, nil
	}
	d := &registry.DeviceRecord{Tenant: tenant, ID: id, Version: r.version.String, Status: iot.DeviceStatus{
		Created:                          iot.Timestamp{Time: instant(r.created.Int64)},
		Updated:                          iot.Timestamp{Time: instant(r.updated.Int64)},
		AutoProvisioned:                  r.provisioned.Bool,
		AutoProvisioningNotificationSent: r.notified.Bool,
	}}
	return d, decode(r.doc, &d.Device)
}
