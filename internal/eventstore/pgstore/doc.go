// Package pgstore keeps stored events in PostgreSQL (12 or newer, encoding
// UTF8), for installations of several machines. It implements
// eventstore.Store. The package holds no rules.
//
// Everything is in one schema of the database, which Open makes and brings up
// to date. Its tables have other names than the registry's, so that both can
// share a database and even a schema. A partition is one row with its state,
// and a change of it locks that row: changes of one partition come one after
// the other, whichever process makes them, and those of several lock their rows
// in the order of the keys. An append to a thousand partitions takes the same
// two round trips as one to a single partition; a change that removes batches
// takes three.
//
// An append is one row for each partition, with the records as one value; what
// has expired is found by an index of hours. Bodies are not compressed: events
// are read once and soon, and compressing costs more than it spares.
//
// # What is durable
//
// What Update acknowledges was flushed by the server (synchronous_commit is
// switched on where the server's or the user's default is off; fsync has to be
// on). Where a connection is lost during the commit nobody knows whether the
// change was made. The error says so (iot.ErrUnavailable); an append that comes
// again under the same record ids stores nothing twice.
//
// # What the database user needs
//
// To make or upgrade the schema: CREATE on the database, or a schema of that
// name that exists already and on which it has USAGE and CREATE; the tables must
// belong to the user, or to a role it is member of. To run with a schema that
// is up to date: USAGE on the schema and SELECT, INSERT, UPDATE and DELETE on
// its tables. Neither SUPERUSER nor any extension.
//
//	GRANT USAGE ON SCHEMA sluice_events TO functions;
//	GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA sluice_events TO functions;
//
// # Connections
//
// The connection string is a URL or a list of keywords, with the parameters of
// libpq; sslmode says what TLS has to prove (verify-full against the host's
// name), and several hosts with target_session_attrs=read-write follow a
// failover. A pooler in between must keep a session to a server (session mode),
// because timeouts and the search path are set when a connection is made.
//
//	s, err := pgstore.Open(ctx, "postgres://sluice:secret@db/iot?sslmode=verify-full", pgstore.Options{})
//	defer s.Close()
//	log := eventstore.New(s, eventstore.Options{})
package pgstore
