// Package sqlitestore keeps stored events in one SQLite file (modernc.org/sqlite,
// WAL, synchronous=FULL): an eventstore.Store for one machine.
//
//	store, err := sqlitestore.Open(ctx, "/var/lib/sluice/events.db", sqlitestore.Options{})
//	defer store.Close()
//	log := eventstore.New(store, eventstore.Options{})
//
// One goroutine writes. What waits for it is committed together, in one transaction
// with one sync, each change with an outcome of its own; so the more callers there are, the
// less a change costs. A batch is one row under a key made of its partition and its last position: a partition's
// rows lie side by side and are read, and removed, as a range. Batches that expire
// have one entry in an index by the hour, events have none.
//
// States that were used lately are kept in memory, so that an append to a busy partition
// reads nothing. Another process may open the file, too: SQLite tells that
// it has written (PRAGMA data_version), and what was kept is forgotten.
//
// The file does not shrink (auto_vacuum=NONE): pages that were freed are used
// again, and keeping track of where each page is, which shrinking needs, would cost a second page
// for most of those that are written. To shrink it, stop the program and run VACUUM.
package sqlitestore
