// Package sqlitestore keeps the registry and the assertion's signing keys in
// one SQLite file, for installations of one machine. It implements
// registry.Store, registry.Feed and assertion.KeyStore.
//
// The file is in WAL mode with synchronous=FULL, so what was answered is on
// disk. There is one writing connection and a few reading ones; each reads a
// consistent state with one statement. The package holds no rules.
//
//	s, err := sqlitestore.Open(ctx, "data/registry.db", sqlitestore.Options{})
//	defer s.Close()
package sqlitestore
