package pgstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// CreateDevice implements registry.Store.
func (s *Store) CreateDevice(ctx context.Context, d registry.DeviceRecord, credentialsVersion string, maxDevices int64) error {
	return s.alter(ctx, d.Tenant, wanted{ids: []iot.DeviceID{d.ID}}, func(u *unit) error {
		if err := u.checkTenant(); err != nil {
			return err
		}
		if err := u.canCreate(&d, maxDevices); err != nil {
			return err
		}
		u.create(d, credentialsVersion)
		return nil
	})
}

// Device implements registry.Store.
func (s *Store) Device(ctx context.Context, tenant iot.TenantID, id iot.DeviceID) (registry.DeviceRecord, error) {
	d := registry.DeviceRecord{Tenant: tenant, ID: id}
	err := s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		var row deviceRow
		err := c.QueryRow(ctx, `SELECT `+deviceColumns+` FROM tenants t LEFT JOIN devices d ON d.tenant = t.id AND d.id = $2 WHERE t.id = $1`,
			text(tenant), text(id)).Scan(row.columns()...)
		if errors.Is(err, pgx.ErrNoRows) {
			return errNoTenant
		}
		if err != nil {
			return err
		}
		found, err := row.record(tenant, id)
		if err == nil && found == nil {
			err = errNoDevice
		}
		if err == nil {
			d = *found
		}
		return err
	})
	return d, err
}

// UpdateDevice implements registry.Store.
func (s *Store) UpdateDevice(ctx context.Context, d registry.DeviceRecord, ifVersion string) error {
	return s.alter(ctx, d.Tenant, wanted{ids: []iot.DeviceID{d.ID}}, func(u *unit) error {
		if err := u.checkTenant(); err != nil {
			return err
		}
		row, err := u.find(d.ID, ifVersion)
		if err != nil {
			return err
		}
		if err := checkTexts(&d); err != nil {
			return err
		}
		u.update(row, &d)
		return nil
	})
}

// DeleteDevice implements registry.Store.
func (s *Store) DeleteDevice(ctx context.Context, tenant iot.TenantID, id iot.DeviceID, ifVersion string, at time.Time) error {
	return s.alter(ctx, tenant, wanted{ids: []iot.DeviceID{id}}, func(u *unit) error {
		d, err := u.find(id, ifVersion)
		if err != nil {
			return err
		}
		u.remove(d, at)
		return nil
	})
}

// DeleteDevices implements registry.Store.
func (s *Store) DeleteDevices(ctx context.Context, tenant iot.TenantID, at time.Time) error {
	return s.alter(ctx, tenant, wanted{counted: true}, func(u *unit) error {
		u.all, u.devices = true, 0
		u.note(registry.Change{Kind: registry.DevicesDeleted, At: at})
		return nil
	})
}

// MarkNotified implements registry.Prover.
func (s *Store) MarkNotified(ctx context.Context, tenant iot.TenantID, id iot.DeviceID, ifVersion, version string, at time.Time) error {
	return s.alter(ctx, tenant, wanted{ids: []iot.DeviceID{id}}, func(u *unit) error {
		if err := u.checkTenant(); err != nil {
			return err
		}
		d, err := u.find(id, ifVersion)
		if err != nil {
			return err
		}
		d.record.Version, d.record.Status.Updated.Time, d.dirty = version, at, true
		d.record.Status.AutoProvisioningNotificationSent = true
		u.noteDevice(d, registry.Update, at)
		return nil
	})
}

// deviceRow is a device as a LEFT JOIN yields it: all NULL when there is none.
type deviceRow struct {
	doc                   []byte
	version               pgtype.Text
	created, updated      pgtype.Int8
	provisioned, notified pgtype.Bool
}

func (r *deviceRow) columns() []any {
	return []any{&r.doc, &r.version, &r.created, &r.updated, &r.provisioned, &r.notified}
}

// record returns nil when there is none.
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
