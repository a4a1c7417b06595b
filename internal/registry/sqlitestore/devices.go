package sqlitestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
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
		if err := s.relate(ctx, c, d.Tenant, d.ID, nil, nil, &d.Device, doc); err != nil {
			return err
		}
		if err := c.countDevices(ctx, d.Tenant, 1); err != nil {
			return err
		}
		return s.record(ctx, c, d.Change(registry.Create, d.Status.Created.Time))
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
		old, before, err := c.storedDevice(ctx, d.Tenant, d.ID, ifVersion)
		if err != nil {
			return err
		}
		_, err = c.exec(ctx, `UPDATE devices SET doc = ?, via_groups = ?, version = ?, updated = ? WHERE tenant = ? AND id = ?`,
			doc, groups, d.Version, millis(d.Status.Updated.Time), string(d.Tenant), string(d.ID))
		if err != nil {
			return err
		}
		if err := s.relate(ctx, c, d.Tenant, d.ID, before, old, &d.Device, doc); err != nil {
			return err
		}
		return s.record(ctx, c, d.Change(registry.Update, d.Status.Updated.Time))
	})
}

// DeleteDevice implements registry.Store.
func (s *Store) DeleteDevice(ctx context.Context, tenant iot.TenantID, id iot.DeviceID, ifVersion string, at time.Time) error {
	return s.write(ctx, func(ctx context.Context, c *conn) error {
		if err := s.deleteDevice(ctx, c, tenant, id, ifVersion); err != nil {
			return err
		}
		if err := c.countDevices(ctx, tenant, -1); err != nil {
			return err
		}
		return s.record(ctx, c, registry.Change{
			Tenant: tenant, Kind: registry.DeviceChanged, Device: id, Change: registry.Delete, At: at,
		})
	})
}

// deleteDevice removes a device with everything that hangs on it.
func (s *Store) deleteDevice(ctx context.Context, c *conn, tenant iot.TenantID, id iot.DeviceID, ifVersion string) error {
	old, before, err := c.storedDevice(ctx, tenant, id, ifVersion)
	if err != nil {
		return err
	}
	if _, err := c.exec(ctx, `DELETE FROM devices WHERE tenant = ? AND id = ?`, string(tenant), string(id)); err != nil {
		return err
	}
	if err := s.relate(ctx, c, tenant, id, before, old, nil, nil); err != nil {
		return err
	}
	return c.dropCredentials(ctx, tenant, id)
}

// DeleteDevices implements registry.Store.
func (s *Store) DeleteDevices(ctx context.Context, tenant iot.TenantID, at time.Time) error {
	return s.write(ctx, func(ctx context.Context, c *conn) error {
		for _, text := range []string{
			`DELETE FROM devices WHERE tenant = ?`,
			`DELETE FROM members WHERE tenant = ?`,
			`DELETE FROM vias WHERE tenant = ?`,
			`DELETE FROM device_index WHERE path IN (SELECT path FROM index_paths) AND tenant = ?`,
			`DELETE FROM verified WHERE tenant = ?`,
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

// storedDevice returns a device's document, as it is and decoded; errNoDevice or
// errVersion unless it is there in that version. It does not ask for the tenant.
func (c *conn) storedDevice(ctx context.Context, tenant iot.TenantID, id iot.DeviceID, ifVersion string) ([]byte, *iot.Device, error) {
	var doc []byte
	var version string
	err := c.row(ctx, `SELECT doc, version FROM devices WHERE tenant = ? AND id = ?`, []any{string(tenant), string(id)}, &doc, &version)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil, errNoDevice
	case err != nil:
		return nil, nil, err
	case ifVersion != "" && ifVersion != version:
		return nil, nil, errVersion
	}
	d := new(iot.Device)
	return doc, d, decode(doc, d)
}

// relate keeps what is found by other keys than the device's: membership in
// groups, gateways and indexes. before and after are nil where there is no device.
func (s *Store) relate(ctx context.Context, c *conn, tenant iot.TenantID, id iot.DeviceID, before *iot.Device, old []byte, after *iot.Device, doc []byte) error {
	none := &iot.Device{}
	if before == nil {
		before = none
	}
	if after == nil {
		after = none
	}
	if !slices.Equal(before.MemberOf, after.MemberOf) {
		if err := c.putRelation(ctx, tenant, string(id), before.MemberOf, after.MemberOf,
			`DELETE FROM members WHERE tenant = ? AND gateway_group = ? AND device = ?`,
			`INSERT INTO members (tenant, gateway_group, device) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`); err != nil {
			return err
		}
	}
	if !slices.Equal(before.Via, after.Via) {
		if err := c.putRelation(ctx, tenant, string(id), names(before.Via), names(after.Via),
			`DELETE FROM vias WHERE tenant = ? AND gateway = ? AND device = ?`,
			`INSERT INTO vias (tenant, gateway, device) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`); err != nil {
			return err
		}
	}
	return c.reindex(ctx, tenant, id, old, doc)
}

func names(ids []iot.DeviceID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}

func (c *conn) putRelation(ctx context.Context, tenant iot.TenantID, device string, before, after []string, remove, add string) error {
	for _, name := range before {
		if _, err := c.exec(ctx, remove, string(tenant), name, device); err != nil {
			return err
		}
	}
	for _, name := range after {
		if _, err := c.exec(ctx, add, string(tenant), name, device); err != nil {
			return err
		}
	}
	return nil
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
	d := &registry.DeviceRecord{Tenant: tenant, ID: id, Version: r.version.String, Status: r.status()}
	return d, decode(r.doc, &d.Device)
}

func (r *deviceRow) status() iot.DeviceStatus {
	return iot.DeviceStatus{
		Created:                          iot.Timestamp{Time: instant(r.created.Int64)},
		Updated:                          iot.Timestamp{Time: instant(r.updated.Int64)},
		AutoProvisioned:                  r.provisioned.Bool,
		AutoProvisioningNotificationSent: r.notified.Bool,
	}
}
