// Package pgstore keeps the registry and the assertion's signing keys in
// PostgreSQL (12 or newer, encoding UTF8), for installations of several
// machines. It implements registry.Backend and assertion.KeyStore. The package
// holds no rules.
//
// Everything is in one schema of the database, which Open makes and brings up
// to date, so that several installations can share a database. A change of a
// tenant takes the tenant's row in the table counters first, which makes its
// sequence dense and in commit order; a change of a tenant's own document takes
// the row of the table state before that one. All locks are taken in that
// order. A read of the registry is one statement.
//
// # What the database user needs
//
// To make or upgrade the schema: CREATE on the database, or a schema of that
// name that exists already and on which it has USAGE and CREATE; the tables must
// belong to the user, or to a role it is member of. To run with a schema that
// is up to date: USAGE on the schema and SELECT, INSERT, UPDATE and DELETE on
// its tables (sequences need nothing: the columns are identities). Neither
// SUPERUSER nor any extension. A role that only runs needs nothing else:
//
//	GRANT USAGE ON SCHEMA sluice TO functions;
//	GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA sluice TO functions;
//
// # Connections
//
// The connection string is a URL or a list of keywords, with the parameters of
// libpq; sslmode says what TLS has to prove (verify-full against the host's
// name). A pooler in between must keep a session to a server (session mode),
// because timeouts and the search path are set when a connection is made. What
// is acknowledged is as durable as the server's synchronous_commit says; on, the
// default, is assumed.
//
//	s, err := pgstore.Open(ctx, "postgres://sluice:secret@db/iot?sslmode=verify-full", pgstore.Options{})
//	defer s.Close()
package pgstore
