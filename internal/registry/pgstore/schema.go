package pgstore

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// migrations bring the schema from version i to i+1; the table schema_version
// holds the version. A published step is never edited: a change is a new step.
//
// doc columns hold JSON as bytes, so that what was stored comes back to the
// letter. Times are Unix milliseconds, 0 = unset. Texts are compared by bytes.
// counters outlive tenants, and devices may too, so nothing refers to tenants
// by a foreign key.
var migrations = []string{`
CREATE TABLE state (
	only_row boolean PRIMARY KEY CHECK (only_row),
	tenants bigint NOT NULL,    -- how many there are
	generation bigint NOT NULL  -- moves with the set of index_paths
);
INSERT INTO state VALUES (true, 0, 0);

CREATE TABLE counters (
	tenant text COLLATE "C" PRIMARY KEY,
	sequence bigint NOT NULL,
	devices bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE tenants (
	id text COLLATE "C" PRIMARY KEY,
	alias text COLLATE "C" UNIQUE,
	anchor_group text COLLATE "C" NOT NULL,
	doc bytea NOT NULL,
	version text NOT NULL,
	created bigint NOT NULL,
	updated bigint NOT NULL
);

CREATE TABLE anchors (
	dn text COLLATE "C" NOT NULL,
	tenant text COLLATE "C" NOT NULL,
	PRIMARY KEY (dn, tenant)
);
CREATE INDEX anchors_of_tenant ON anchors (tenant);

CREATE TABLE devices (
	tenant text COLLATE "C" NOT NULL,
	id text COLLATE "C" NOT NULL,
	doc bytea NOT NULL,
	via_groups json,
	version text NOT NULL,
	credentials_version text NOT NULL,
	created bigint NOT NULL,
	updated bigint NOT NULL,
	auto_provisioned boolean NOT NULL,
	notification_sent boolean NOT NULL,
	PRIMARY KEY (tenant, id)
);

CREATE TABLE members (
	tenant text COLLATE "C" NOT NULL,
	gateway_group text COLLATE "C" NOT NULL,
	device text COLLATE "C" NOT NULL,
	PRIMARY KEY (tenant, gateway_group, device)
);
CREATE INDEX members_of_device ON members (tenant, device);

CREATE TABLE vias (
	tenant text COLLATE "C" NOT NULL,
	gateway text COLLATE "C" NOT NULL,
	device text COLLATE "C" NOT NULL,
	PRIMARY KEY (tenant, gateway, device)
);
CREATE INDEX vias_of_device ON vias (tenant, device);

CREATE TABLE credentials (
	tenant text COLLATE "C" NOT NULL,
	type text COLLATE "C" NOT NULL,
	auth_id text COLLATE "C" NOT NULL,
	device text COLLATE "C" NOT NULL,
	position integer NOT NULL,
	doc bytea NOT NULL,
	verified jsonb,
	PRIMARY KEY (tenant, type, auth_id)
);
CREATE INDEX credentials_of_device ON credentials (tenant, device);

CREATE TABLE feed (
	position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	tenant text COLLATE "C" NOT NULL,
	sequence bigint NOT NULL,
	kind text NOT NULL,
	device text COLLATE "C" NOT NULL,
	change text NOT NULL,
	enabled boolean NOT NULL,
	invalidate boolean NOT NULL,
	at bigint NOT NULL,
	UNIQUE (tenant, sequence)
);
CREATE INDEX feed_at ON feed (at, position);

CREATE TABLE signing_keys (
	kid text COLLATE "C" PRIMARY KEY,
	algorithm text NOT NULL,
	wrapped bytea,
	public_jwk bytea NOT NULL,
	not_before bigint NOT NULL,
	retire_after bigint NOT NULL,
	created bigint NOT NULL
);

CREATE TABLE index_paths (
	number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	path text COLLATE "C" NOT NULL UNIQUE, -- a JSON array of member names
	complete boolean NOT NULL              -- all devices are in index_keys
);

CREATE TABLE index_keys (
	tenant text COLLATE "C" NOT NULL,
	path bigint NOT NULL,
	value bytea NOT NULL,
	device text COLLATE "C" NOT NULL,
	PRIMARY KEY (tenant, path, value, device)
);
CREATE INDEX index_keys_of_device ON index_keys (tenant, device);
`}

// errNewer is a schema of a later program.
var errNewer = errors.New("the schema is newer than this program")

// migrate applies what is missing in one transaction under a lock, so that
// processes that start at once do it once. Where nothing is missing it only
// reads, so that a running installation needs no right to create tables.
func migrate(ctx context.Context, c *pgx.Conn, schema string) error {
	version, err := schemaVersion(ctx, c)
	if err != nil {
		return err
	}
	if version == len(migrations) {
		return nil
	}
	tx, err := c.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) // after the commit it does nothing
	// Others may be at it for longer than a statement may take: ctx is the limit here.
	for _, text := range []string{`SET LOCAL statement_timeout = 0`, `SET LOCAL lock_timeout = 0`} {
		if _, err := tx.Exec(ctx, text); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, lockOf(schema)); err != nil {
		return err
	}
	if err := bootstrap(ctx, tx, schema); err != nil {
		return err
	}
	if version, err = schemaVersion(ctx, c); err != nil {
		return err
	}
	if version > len(migrations) {
		return fmt.Errorf("schema %q: %w: version %d, where this program knows %d", schema, errNewer, version, len(migrations))
	}
	for _, step := range migrations[max(0, version):] {
		if _, err := c.PgConn().Exec(ctx, step).ReadAll(); err != nil {
			return fmt.Errorf("schema %q: %w", schema, err)
		}
	}
	if _, err := tx.Exec(ctx, `UPDATE schema_version SET version = $1`, len(migrations)); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// bootstrap makes the place where the version is kept.
func bootstrap(ctx context.Context, tx pgx.Tx, schema string) error {
	var known bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)`, schema).Scan(&known); err != nil {
		return err
	}
	if !known {
		if _, err := tx.Exec(ctx, `CREATE SCHEMA `+pgx.Identifier{schema}.Sanitize()); err != nil {
			return fmt.Errorf("schema %q: %w", schema, err)
		}
	}
	if _, err := tx.Exec(ctx, `CREATE TABLE IF NOT EXISTS schema_version (
		only_row boolean PRIMARY KEY CHECK (only_row), version integer NOT NULL)`); err != nil {
		return fmt.Errorf("schema %q: %w", schema, err)
	}
	_, err := tx.Exec(ctx, `INSERT INTO schema_version VALUES (true, 0) ON CONFLICT DO NOTHING`)
	return err
}

// schemaVersion is -1 where there is nothing yet.
func schemaVersion(ctx context.Context, c *pgx.Conn) (int, error) {
	var known bool
	// The search path names one schema only, so that this looks nowhere else.
	if err := c.QueryRow(ctx, `SELECT to_regclass('schema_version') IS NOT NULL`).Scan(&known); err != nil || !known {
		return -1, err
	}
	var version int
	err := c.QueryRow(ctx, `SELECT version FROM schema_version`).Scan(&version)
	if errors.Is(err, pgx.ErrNoRows) {
		return -1, nil
	}
	return version, err
}

// lockOf is the number of the advisory lock under which a schema is changed.
func lockOf(schema string) int64 {
	h := fnv.New64a()
	h.Write([]byte("sluice registry " + schema))
	return int64(h.Sum64())
}

func isCode(err error, codes ...string) bool {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return false
	}
	for _, c := range codes {
		if pe.Code == c {
			return true
		}
	}
	return false
}
