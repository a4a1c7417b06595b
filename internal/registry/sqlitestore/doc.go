// Package sqlitestore keeps the registry and the assertion's signing keys in
// one SQLite file, for installations of one machine. It implements
// registry.Backend and assertion.KeyStore.
//
// The file is in WAL mode with synchronous=FULL, so what was answered is on
// disk. There is one writing connection and a few reading ones; each reads a
// consistent state, where it can be with one statement. The package holds no rules.
//
// Searches use indexes on the paths in Options.Indexes. They are in the file,
// with what they hold, so that every program that has it open keeps them.
//
//	s, err := sqlitestore.Open(ctx, "data/registry.db", sqlitestore.Options{})
//	defer s.Close()
package sqlitestore
