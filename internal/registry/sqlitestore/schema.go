package sqlitestore

import (
	"context"
	"fmt"
)

// migrations bring the file from version i to i+1; PRAGMA user_version holds
// the version. A published step is never edited: a change is a new step.
//
// doc columns hold JSON as bytes. index_paths names the members that device_index
// holds values of; one that is not complete is not searched.
// Times are Unix milliseconds, 0 = unset.
// counters outlive tenants, and devices may too, so nothing refers to tenants
// by a foreign key.
var migrations = []string{`
CREATE TABLE tenants (
	id TEXT PRIMARY KEY,
	alias TEXT UNIQUE,
	anchor_group TEXT NOT NULL,
	doc BLOB NOT NULL,
	version TEXT NOT NULL,
	created INTEGER NOT NULL,
	updated INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE anchors (
	dn TEXT NOT NULL,
	tenant TEXT NOT NULL,
	PRIMARY KEY (dn, tenant)
) STRICT, WITHOUT ROWID;
CREATE INDEX anchors_of_tenant ON anchors (tenant);

CREATE TABLE devices (
	tenant TEXT NOT NULL,
	id TEXT NOT NULL,
	doc BLOB NOT NULL,
	via_groups TEXT,
	version TEXT NOT NULL,
	credentials_version TEXT NOT NULL,
	created INTEGER NOT NULL,
	updated INTEGER NOT NULL,
	auto_provisioned INTEGER NOT NULL,
	notification_sent INTEGER NOT NULL,
	PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE members (
	tenant TEXT NOT NULL,
	gateway_group TEXT NOT NULL,
	device TEXT NOT NULL,
	PRIMARY KEY (tenant, gateway_group, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_of_device ON members (tenant, device);

CREATE TABLE credentials (
	tenant TEXT NOT NULL,
	type TEXT NOT NULL,
	auth_id TEXT NOT NULL,
	device TEXT NOT NULL,
	position INTEGER NOT NULL,
	doc BLOB NOT NULL,
	PRIMARY KEY (tenant, type, auth_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX credentials_of_device ON credentials (tenant, device, position);

CREATE TABLE counters (
	tenant TEXT PRIMARY KEY,
	sequence INTEGER NOT NULL,
	devices INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE feed (
	position INTEGER PRIMARY KEY AUTOINCREMENT,
	tenant TEXT NOT NULL,
	sequence INTEGER NOT NULL,
	kind TEXT NOT NULL,
	device TEXT NOT NULL,
	change TEXT NOT NULL,
	enabled INTEGER NOT NULL,
	invalidate INTEGER NOT NULL,
	at INTEGER NOT NULL,
	UNIQUE (tenant, sequence)
) STRICT;
CREATE INDEX feed_at ON feed (at);

CREATE TABLE signing_keys (
	kid TEXT PRIMARY KEY,
	algorithm TEXT NOT NULL,
	wrapped BLOB,
	public_jwk BLOB NOT NULL,
	not_before INTEGER NOT NULL,
	retire_after INTEGER NOT NULL,
	created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
`, `
CREATE TABLE verified (
	tenant TEXT NOT NULL,
	type TEXT NOT NULL,
	auth_id TEXT NOT NULL,
	secret TEXT NOT NULL,
	mac BLOB NOT NULL,
	until INTEGER NOT NULL,
	PRIMARY KEY (tenant, type, auth_id, secret)
) STRICT, WITHOUT ROWID;

CREATE TABLE vias (
	tenant TEXT NOT NULL,
	gateway TEXT NOT NULL,
	device TEXT NOT NULL,
	PRIMARY KEY (tenant, gateway, device)
) STRICT, WITHOUT ROWID;
INSERT INTO vias SELECT DISTINCT d.tenant, v.value, d.id
	FROM devices d, json_each(CAST(d.doc AS TEXT), '$.via') v;

CREATE TABLE index_paths (
	path INTEGER PRIMARY KEY,
	name TEXT NOT NULL UNIQUE,
	complete INTEGER NOT NULL
) STRICT;

CREATE TABLE device_index (
	path INTEGER NOT NULL,
	tenant TEXT NOT NULL,
	value TEXT NOT NULL,
	device TEXT NOT NULL,
	PRIMARY KEY (path, tenant, value, device)
) STRICT, WITHOUT ROWID;
`}

// migrate applies what is missing in one transaction, so that two processes
// that open a new file at once do it once.
func (c *conn) migrate(ctx context.Context) error {
	version, err := c.schemaVersion(ctx)
	if err != nil || version == len(migrations) {
		return err
	}
	return c.transact(ctx, func(ctx context.Context, c *conn) error {
		version, err := c.schemaVersion(ctx)
		if err != nil {
			return err
		}
		if version > len(migrations) {
			return fmt.Errorf("schema version %d is newer than this program's %d", version, len(migrations))
		}
		for _, step := range migrations[version:] {
			if _, err := c.sql.ExecContext(ctx, step); err != nil {
				return fmt.Errorf("schema: %w", err)
			}
		}
		_, err = c.sql.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(migrations)))
		return err
	})
}

func (c *conn) schemaVersion(ctx context.Context) (version int, err error) {
	err = c.sql.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version)
	return version, err
}
