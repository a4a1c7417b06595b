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

// Credentials implements registry.Store.
func (s *Store) Credentials(ctx context.Context, tenant iot.TenantID, device iot.DeviceID) (registry.CredentialsRecord, error) {
	r := registry.CredentialsRecord{Tenant: tenant, Device: device, Set: []iot.Credential{}}
	err := s.read(ctx, func(ctx context.Context, c *conn) error {
		known := false
		err := c.each(ctx, `SELECT d.credentials_version, c.doc FROM tenants t
			LEFT JOIN devices d ON d.tenant = t.id AND d.id = ?2
			LEFT JOIN credentials c INDEXED BY credentials_of_device ON c.tenant = d.tenant AND c.device = d.id
			WHERE t.id = ?1 ORDER BY c.position`, []any{string(tenant), string(device)},
			func(rows *sql.Rows) error {
				known = true
				return scanCredential(rows, &r)
			})
		if err == nil && !known {
			err = errNoTenant
		}
		return err
	})
	return r, err
}

func scanCredential(rows *sql.Rows, r *registry.CredentialsRecord) error {
	var version sql.NullString
	var doc sql.RawBytes
	if err := rows.Scan(&version, &doc); err != nil {
		return err
	}
	if !version.Valid {
		return errNoDevice
	}
	r.Version = version.String
	if doc == nil {
		return nil
	}
	var c iot.Credential
	if err := decode(doc, &c); err != nil {
		return err
	}
	r.Set = append(r.Set, c)
	return nil
}

// PutCredentials implements registry.Store.
func (s *Store) PutCredentials(ctx context.Context, r registry.CredentialsRecord, ifVersion string, at time.Time) error {
	docs := make([][]byte, len(r.Set))
	for i := range r.Set {
		var err error
		if docs[i], err = json.Marshal(r.Set[i]); err != nil {
			return err
		}
	}
	return s.write(ctx, func(ctx context.Context, c *conn) error {
		if err := c.checkTenant(ctx, r.Tenant, ""); err != nil {
			return err
		}
		if err := c.checkCredentials(ctx, &r, ifVersion); err != nil {
			return err
		}
		err := c.dropCredentials(ctx, r.Tenant, r.Device)
		for i := 0; err == nil && i < len(docs); i++ {
			err = c.insertCredential(ctx, &r, i, docs[i])
		}
		if err != nil {
			return err
		}
		if _, err := c.exec(ctx, `UPDATE devices SET credentials_version = ? WHERE tenant = ? AND id = ?`,
			r.Version, string(r.Tenant), string(r.Device)); err != nil {
			return err
		}
		return s.record(ctx, c, registry.Change{Tenant: r.Tenant, Kind: registry.CredentialsChanged, Device: r.Device, At: at})
	})
}

func (c *conn) checkCredentials(ctx context.Context, r *registry.CredentialsRecord, ifVersion string) error {
	var version string
	err := c.row(ctx, `SELECT credentials_version FROM devices WHERE tenant = ? AND id = ?`,
		[]any{string(r.Tenant), string(r.Device)}, &version)
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

func (c *conn) insertCredential(ctx context.Context, r *registry.CredentialsRecord, i int, doc []byte) error {
	n, err := c.exec(ctx, `INSERT INTO credentials (tenant, type, auth_id, device, position, doc)
		VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		string(r.Tenant), r.Set[i].Type, r.Set[i].AuthID, string(r.Device), i, doc)
	if err == nil && n == 0 {
		err = iot.Errorf(iot.ErrExists, "credentials[%d]: (type, auth-id) is in use already", i)
	}
	return err
}
