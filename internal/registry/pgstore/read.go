package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// Ways to find the one tenant of a query; $1 is the id or alias, or the DN.
const (
	tenantByID = `SELECT * FROM tenants WHERE id = $1
		UNION ALL SELECT * FROM tenants WHERE alias = $1 AND NOT EXISTS (SELECT 1 FROM tenants WHERE id = $1)`
	tenantByDN = `SELECT * FROM tenants WHERE id =
		(SELECT CASE count(*) WHEN 1 THEN min(tenant) END FROM anchors WHERE dn = $1)`
)

// snapshotOf is one statement: one round trip, and one state without a
// transaction around it. $2 type, $3 auth-id, $4 device, $5 gateway; NULL is a
// text that no row can have, and none where it is not given.
const snapshotOf = `WITH t AS (%s)
SELECT ` + tenantColumns + `,
	coalesce((SELECT sequence FROM counters WHERE tenant = t.id), 0),
	c.doc, c.device, c.verified,
	` + deviceColumns + `,
	g.doc, g.version, g.created, g.updated, g.auto_provisioned, g.notification_sent,
	CASE WHEN d.via_groups IS NOT NULL THEN (
		SELECT array_agg(DISTINCT m.device ORDER BY m.device)
		FROM json_array_elements_text(d.via_groups) v (name) JOIN members m ON m.tenant = t.id AND m.gateway_group = v.name
	) END
FROM t
LEFT JOIN credentials c ON c.tenant = t.id AND c.type = $2 AND c.auth_id = $3
LEFT JOIN devices d ON d.tenant = t.id AND d.id = CASE $4 WHEN '' THEN c.device ELSE $4 END
LEFT JOIN devices g ON g.tenant = t.id AND g.id = CASE $2 WHEN '' THEN $5 ELSE c.device END
	AND g.id IS DISTINCT FROM $4 AND $4 IS DISTINCT FROM ''`

var (
	snapshotByID = fmt.Sprintf(snapshotOf, tenantByID)
	snapshotByDN = fmt.Sprintf(snapshotOf, tenantByDN)
)

// Read implements registry.Store.
func (s *Store) Read(ctx context.Context, q registry.Query) (registry.Snapshot, error) {
	statement, key := snapshotByID, string(q.Tenant.ID)
	if key == "" {
		statement, key = snapshotByDN, q.Tenant.SubjectDN
	}
	var snap registry.Snapshot
	err := s.read(ctx, func(ctx context.Context, c *pgx.Conn) error {
		snap = registry.Snapshot{}
		rows, err := c.Query(ctx, statement, text(key), text(q.Type), text(q.AuthID), text(q.Device), text(q.Gateway))
		if err != nil {
			return err
		}
		defer rows.Close()
		if rows.Next() {
			err = scanSnapshot(rows, &q, &snap)
		} else if err = rows.Err(); err == nil {
			err = errNoTenant
		}
		rows.Close()
		return errors.Join(err, rows.Err())
	})
	return snap, err
}

func scanSnapshot(rows pgx.Rows, q *registry.Query, s *registry.Snapshot) error {
	var (
		tenantDoc, credential pgtype.DriverBytes
		verified              []byte
		members               []string
		created, updated      int64
		owner                 pgtype.Text
		device, gateway       deviceRow
	)
	columns := make([]any, 0, 22)
	columns = append(columns, (*string)(&s.Tenant.ID), &tenantDoc, &s.Tenant.Version, &created, &updated, &s.Sequence,
		&credential, &owner, &verified)
	columns = append(columns, device.columns()...)
	columns = append(columns, gateway.columns()...)
	if err := rows.Scan(append(columns, &members)...); err != nil {
		return err
	}
	s.Tenant.Created, s.Tenant.Updated = instant(created), instant(updated)
	if err := decode(tenantDoc, &s.Tenant.Tenant); err != nil {
		return err
	}
	var err error
	if credential != nil {
		s.Credential, s.Owner = new(iot.Credential), iot.DeviceID(owner.String)
		if err := decode(credential, s.Credential); err != nil {
			return err
		}
		if s.Verified, err = decodeVerified(verified); err != nil {
			return err
		}
	}
	s.DeviceID, s.GatewayID = q.Parties(s.Owner)
	if s.Device, err = device.record(s.Tenant.ID, s.DeviceID); err != nil {
		return err
	}
	for _, m := range members {
		s.Members = append(s.Members, iot.DeviceID(m))
	}
	s.Gateway, err = gateway.record(s.Tenant.ID, s.GatewayID)
	return err
}
