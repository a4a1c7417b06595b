// Package pgtest starts a real PostgreSQL for tests: a server of its own with
// an empty database, on loopback, with fsync on and a password that has to be
// given, and with [StartFor] on one more address with TLS, for what runs in
// containers. Its data is in a temporary folder, which goes away with the server
// when the test ends. On Linux the server ends also with a test binary that is
// killed; only then the folder stays.
//
// PostgreSQL refuses to run as root; then it runs as the user nobody. The
// programs initdb and postgres are looked for in PATH and where Debian puts
// them. Where there is none the test is skipped, or fails with SLUICE_TEST_ALL=1.
//
//	db := pgtest.Start(t)
//	s, err := pgstore.Open(t.Context(), db.URL, pgstore.Options{Schema: pgtest.Schema()})
package pgtest
