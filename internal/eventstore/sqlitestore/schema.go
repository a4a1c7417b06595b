package sqlitestore

import (
	"context"
	"fmt"
)

// migrations bring the file from version i to i+1; PRAGMA user_version holds
// the version. A published step is never edited: a change is a new step.
//
// The id of batches and dead letters is that of their partition in the upper bits, and
// below it a position: the last one of a batch. bucket is the hour in
// whose course the last event of a batch expires, rounded up; NULL = one never does. Times are Unix milliseconds.
var migrations = []string{`
CREATE TABLE partitions (
	id INTEGER PRIMARY KEY,
	tenant TEXT NOT NULL,
	generation INTEGER NOT NULL,
	number INTEGER NOT NULL,
	state BLOB NOT NULL,
	UNIQUE (tenant, generation, number)
) STRICT;

CREATE TABLE batches (
	id INTEGER PRIMARY KEY,
	first INTEGER NOT NULL,
	at INTEGER NOT NULL,
	expires INTEGER NOT NULL,
	bucket INTEGER,
	body BLOB NOT NULL
) STRICT;
CREATE INDEX batches_of_bucket ON batches (bucket) WHERE bucket IS NOT NULL;

CREATE TABLE dead_letters (
	id INTEGER PRIMARY KEY,
	at INTEGER NOT NULL,
	attempts INTEGER NOT NULL,
	reason TEXT NOT NULL,
	record BLOB NOT NULL
) STRICT;
`}

// A row's id has room for so many partitions and positions.
const (
	positionBits = 40
	maxPosition  = 1<<positionBits - 1
	maxPartition = 1<<(63-positionBits) - 1
)

// rowID is the id of a batch or a dead letter. Positions beyond what a row can have count as the last one.
func rowID(partition int64, position uint64) int64 {
	return partition<<positionBits | int64(min(position, maxPosition))
}

func positionOf(id int64) uint64 { return uint64(id) & maxPosition }

const bucketMS = 3_600_000

// bucketOf is the first hour before which everything has expired; nil = never.
func bucketOf(expires int64) any {
	if expires <= 0 {
		return nil
	}
	return (expires-1)/bucketMS + 1
}

// migrate applies what is missing in one transaction, so that two processes
// that open a new file at once do it once.
func (c *conn) migrate(ctx context.Context) error {
	version, err := c.schemaVersion(ctx)
	if err != nil || version == len(migrations) {
		return err
	}
	if _, err := c.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	if err := c.migrateTo(ctx); err != nil {
		c.exec(ctx, "ROLLBACK") // fails only where SQLite has rolled back already
		return err
	}
	_, err = c.exec(ctx, "COMMIT")
	return err
}

func (c *conn) migrateTo(ctx context.Context) error {
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
}

func (c *conn) schemaVersion(ctx context.Context) (version int, err error) {
	err = c.sql.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version)
	return version, err
}
