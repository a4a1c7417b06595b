package pgstore

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/jackc/pgx/v5"
)

// migrations bring the schema from version i to i+1; the table event_schema
// holds the version. A published step is never edited: a change is a new step.
//
// A state is JSON as bytes: the database reads nothing in it. Its row stays in
// its page, and is rewritten beside itself without a touch of an index. A batch
// is found by its last position, the order in which batches are read and end.
// Times are Unix milliseconds, 0 = never; expires is indexed by the hour, for
// which many batches share an entry. Names of tenants are compared by bytes.
var migrations = []string{`
CREATE TABLE event_partitions (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	tenant text COLLATE "C" NOT NULL,
	generation integer NOT NULL,
	number integer NOT NULL,
	state bytea NOT NULL, -- empty only inside of the transaction that makes the row
	UNIQUE (tenant, generation, number)
) WITH (fillfactor = 50, toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE event_batches (
	partition bigint NOT NULL,
	last bigint NOT NULL,
	first bigint NOT NULL,
	at bigint NOT NULL,
	expires bigint NOT NULL,
	body bytea NOT NULL,
	PRIMARY KEY (partition, last)
) WITH (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE event_batches ALTER body SET STORAGE EXTERNAL;
CREATE INDEX event_batches_expire ON event_batches ((expires / 3600000)) WHERE expires > 0;

CREATE TABLE event_dead_letters (
	partition bigint NOT NULL,
	position bigint NOT NULL,
	at bigint NOT NULL,
	attempts integer NOT NULL,
	reason bytea NOT NULL, -- a consumer's text, which may hold what the database takes for none
	record bytea NOT NULL,
	PRIMARY KEY (partition, position)
);
ALTER TABLE event_dead_letters ALTER record SET STORAGE EXTERNAL;
`}

// hour is the unit of the index of expiry, in ms.
const hour = 3_600_000

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
	if _, err := tx.Exec(ctx, `UPDATE event_schema SET version = $1`, len(migrations)); err != nil {
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
	if _, err := tx.Exec(ctx, `CREATE TABLE IF NOT EXISTS event_schema (
		only_row boolean PRIMARY KEY CHECK (only_row), version integer NOT NULL)`); err != nil {
		return fmt.Errorf("schema %q: %w", schema, err)
	}
	_, err := tx.Exec(ctx, `INSERT INTO event_schema VALUES (true, 0) ON CONFLICT DO NOTHING`)
	return err
}

// schemaVersion is -1 where there is nothing yet.
func schemaVersion(ctx context.Context, c *pgx.Conn) (int, error) {
	var known bool
	// The search path names one schema only, so that this looks nowhere else.
	if err := c.QueryRow(ctx, `SELECT to_regclass('event_schema') IS NOT NULL`).Scan(&known); err != nil || !known {
		return -1, err
	}
	var version int
	err := c.QueryRow(ctx, `SELECT version FROM event_schema`).Scan(&version)
	if errors.Is(err, pgx.ErrNoRows) {
		return -1, nil
	}
	return version, err
}

// lockOf is the number of the advisory lock under which a schema is changed:
// the registry takes the same one, because both may be told to make that schema.
func lockOf(schema string) int64 {
	h := fnv.New64a()
	h.Write([]byte("sluice registry " + schema))
	return int64(h.Sum64())
}
