package pgstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sluice-iot/sluice/internal/eventstore"
)

var _ eventstore.Store = (*Store)(nil)

// Defaults of [Options].
const (
	DefaultSchema   = "sluice_events"
	DefaultMaxConns = 10
	DefaultTimeout  = 10 * time.Second
)

const (
	// connectTimeout bounds the making of a connection where the URL's
	// connect_timeout does not.
	connectTimeout = 5 * time.Second
	// migrateTimeout bounds the wait for others that change the schema.
	migrateTimeout = 30 * time.Minute
)

// Options tunes a [Store].
type Options struct {
	Schema   string // where the tables are; "" = DefaultSchema
	MaxConns int    // connections of this process, 1 to 1000; 0 = DefaultMaxConns
	// Timeout bounds one statement, and the wait for a connection; 0 = DefaultTimeout.
	Timeout time.Duration
}

// Store keeps events in one schema of a PostgreSQL. Safe for concurrent use.
type Store struct {
	pool    *pgxpool.Pool
	timeout time.Duration
	closed  atomic.Bool
}

// Open connects, makes the schema where it is missing and brings it up to
// date. The error is one line without the password. A database that does not
// answer is iot.ErrUnavailable.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	s := &Store{timeout: cmp.Or(max(o.Timeout, 0), DefaultTimeout)}
	schema := cmp.Or(o.Schema, DefaultSchema)
	config, err := configure(url, schema, s.timeout, o.MaxConns)
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, translate(ctx, err)
	}
	if err := s.prepare(ctx, schema); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// prepare checks the database and brings it up to date.
func (s *Store) prepare(ctx context.Context, schema string) error {
	ctx, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	c, err := s.acquire(ctx)
	if err != nil {
		return translate(ctx, err)
	}
	defer c.Release()
	if encoding := c.Conn().PgConn().ParameterStatus("server_encoding"); encoding != "UTF8" {
		return fmt.Errorf("event store: the encoding of the database is %q, want UTF8", encoding)
	}
	return openError(ctx, migrate(ctx, c.Conn(), schema))
}

// openError says what the database refused; what else went wrong with it is
// that it is away.
func openError(ctx context.Context, err error) error {
	var said *pgconn.PgError
	if errors.As(err, &said) && said.SeverityUnlocalized == "ERROR" || errors.Is(err, errNewer) {
		return fmt.Errorf("event store: %w", err)
	}
	return translate(ctx, err)
}

// Close waits for calls in progress and closes the connections. Later calls
// fail with iot.ErrUnavailable. Closing again does nothing.
func (s *Store) Close() error {
	s.closed.Store(true)
	s.pool.Close()
	return nil
}

func configure(text, schema string, timeout time.Duration, conns int) (*pgxpool.Config, error) {
	if conns < 0 || conns > 1000 {
		return nil, fmt.Errorf("MaxConns is %d, want 1 to 1000", conns)
	}
	if len(schema) > 63 || strings.IndexByte(schema, 0) >= 0 {
		return nil, fmt.Errorf("schema %.70q: want a name of at most 63 bytes", schema)
	}
	config, err := pgxpool.ParseConfig(text)
	if err != nil {
		return nil, parseError(text, err)
	}
	config.MaxConns = int32(cmp.Or(conns, DefaultMaxConns))
	config.MinConns, config.MinIdleConns = min(config.MinConns, config.MaxConns), min(config.MinIdleConns, config.MaxConns)
	config.PingTimeout = min(timeout, connectTimeout)
	config.AfterConnect = flushCommits
	cc := config.ConnConfig
	if cc.ConnectTimeout == 0 {
		cc.ConnectTimeout = connectTimeout
	}
	cc.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	cc.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		// A caller that goes away ends its statement, not the connection.
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: time.Second}
	}
	params := cc.RuntimeParams
	params["search_path"] = pgx.Identifier{schema}.Sanitize()
	params["statement_timeout"] = millisText(timeout)
	params["lock_timeout"] = millisText(timeout)
	params["idle_in_transaction_session_timeout"] = millisText(2 * timeout)
	params["jit"] = "off" // compiling costs more than these statements do
	// Every statement is meant to go by an index. While a table grows from
	// nothing the planner takes it for empty and would read all of it.
	for _, plan := range []string{"enable_seqscan", "enable_hashjoin", "enable_mergejoin"} {
		params[plan] = "off"
	}
	params["max_parallel_workers_per_gather"] = "0"
	if params["application_name"] == "" {
		params["application_name"] = "sluice"
	}
	return config, nil
}

// flushCommits sees to it that a commit is on disk when it is acknowledged.
// What promises more than that (replicas that have it, too) stays.
func flushCommits(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`)
	return err
}

func millisText(d time.Duration) string { return strconv.FormatInt(max(1, d.Milliseconds()), 10) }

// parseError says what is wrong with a connection string without a part of it
// that may be the password: where not even the URL can be taken apart, nothing
// of it is shown.
func parseError(text string, err error) error {
	const hint = "the database's URL is not valid: want postgres://USER:PASSWORD@HOST/DATABASE, with reserved characters of the password percent-encoded"
	u, broken := url.Parse(text)
	if broken != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return errors.New(hint)
	}
	reason := err
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) && parse.Unwrap() != nil {
		reason = parse.Unwrap()
	}
	said := strings.Join(strings.Fields(reason.Error()), " ")
	password, _ := u.User.Password()
	for _, secret := range []string{password, u.Query().Get("password"), u.Query().Get("sslpassword")} {
		if secret != "" && strings.Contains(said, secret) {
			return errors.New(hint)
		}
	}
	return fmt.Errorf("the database's URL is not valid: %s", said)
}
