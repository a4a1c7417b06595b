package sqlitestore

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// Ways to find the one tenant of a query; ?1 is the id or alias, or the DN.
const (
	tenantByID = `SELECT * FROM tenants WHERE id = ?1
		UNION ALL SELECT * FROM tenants WHERE alias = ?1 AND NOT EXISTS (SELECT 1 FROM tenants WHERE id = ?1)`
	tenantByDN = `SELECT * FROM tenants WHERE id =
		(SELECT CASE count(*) WHEN 1 THEN min(tenant) END FROM anchors WHERE dn = ?1)`
)

// snapshotOf is one statement, because one statement sees one state without
// the cost of a transaction around it. ?2 type, ?3 auth-id, ?4 device, ?5 gateway.
const snapshotOf = `WITH t AS (%s)
SELECT t.id, t.doc, t.version, t.created, t.updated,
	coalesce((SELECT sequence FROM counters WHERE tenant = t.id), 0),
	c.doc, c.device,
	CASE WHEN c.device IS NOT NULL THEN (
		SELECT json_group_array(json_object('s', v.secret, 'm', hex(v.mac), 'u', v.until))
		FROM verified v WHERE v.tenant = t.id AND v.type = ?2 AND v.auth_id = ?3
	) END,
	d.doc, d.version, d.created, d.updated, d.auto_provisioned, d.notification_sent,
	g.doc, g.version, g.created, g.updated, g.auto_provisioned, g.notification_sent,
	CASE WHEN d.via_groups IS NOT NULL THEN (
		SELECT json_group_array(DISTINCT m.device ORDER BY m.device)
		FROM json_each(d.via_groups) v JOIN members m ON m.tenant = t.id AND m.gateway_group = v.value
	) END
FROM t
LEFT JOIN credentials c ON c.tenant = t.id AND c.type = ?2 AND c.auth_id = ?3
LEFT JOIN devices d ON d.tenant = t.id AND d.id = CASE ?4 WHEN '' THEN c.device ELSE ?4 END
LEFT JOIN devices g ON g.tenant = t.id AND g.id = CASE ?2 WHEN '' THEN ?5 ELSE c.device END AND g.id <> ?4 AND ?4 <> ''`

var (
	snapshotByID = fmt.Sprintf(snapshotOf, tenantByID)
	snapshotByDN = fmt.Sprintf(snapshotOf, tenantByDN)
)

// Read implements registry.Store.
func (s *Store) Read(ctx context.Context, q registry.Query) (registry.Snapshot, error) {
	text, key := snapshotByID, string(q.Tenant.ID)
	if key == "" {
		text, key = snapshotByDN, q.Tenant.SubjectDN
	}
	var snap registry.Snapshot
	err := s.read(ctx, func(ctx context.Context, c *conn) error {
		found := false
		err := c.each(ctx, text, []any{key, q.Type, q.AuthID, string(q.Device), string(q.Gateway)}, func(rows *sql.Rows) error {
			found = true
			return scanSnapshot(rows, &q, &snap)
		})
		if err == nil && !found {
			err = errNoTenant
		}
		return err
	})
	return snap, err
}

func scanSnapshot(rows *sql.Rows, q *registry.Query, s *registry.Snapshot) error {
	var (
		id                                       string
		tenantDoc, credential, verified, members sql.RawBytes
		created, updated                         int64
		owner                                    sql.NullString
		device, gateway                          deviceRow
	)
	columns := []any{&id, &tenantDoc, &s.Tenant.Version, &created, &updated, &s.Sequence, &credential, &owner, &verified}
	columns = append(columns, device.columns()...)
	columns = append(columns, gateway.columns()...)
	if err := rows.Scan(append(columns, &members)...); err != nil {
		return err
	}
	s.Tenant.ID = iot.TenantID(id)
	s.Tenant.Created, s.Tenant.Updated = instant(created), instant(updated)
	if err := decode(tenantDoc, &s.Tenant.Tenant); err != nil {
		return err
	}
	if credential != nil {
		s.Credential, s.Owner = new(iot.Credential), iot.DeviceID(owner.String)
		if err := decode(credential, s.Credential); err != nil {
			return err
		}
		if len(verified) > len("[]") {
			if err := decodeVerified(verified, s); err != nil {
				return err
			}
		}
	}
	s.DeviceID, s.GatewayID = q.Parties(s.Owner)
	var err error
	if s.Device, err = device.record(s.Tenant.ID, s.DeviceID); err != nil {
		return err
	}
	if s.Gateway, err = gateway.record(s.Tenant.ID, s.GatewayID); err != nil || members == nil {
		return err
	}
	return json.Unmarshal(members, &s.Members)
}

func decodeVerified(list []byte, s *registry.Snapshot) error {
	var rows []struct {
		Secret string `json:"s"`
		MAC    string `json:"m"`
		Until  int64  `json:"u"`
	}
	if err := decode(list, &rows); err != nil {
		return err
	}
	for _, r := range rows {
		mac, err := hex.DecodeString(r.MAC)
		if err != nil {
			return fmt.Errorf("stored MAC: %w", err)
		}
		s.Verified = append(s.Verified, registry.Verified{SecretID: r.Secret, MAC: mac, Until: instant(r.Until)})
	}
	return nil
}
