//go:build race

package sqlitestore_test

// The race detector makes the atomic writes of SQLite in C, where the fault that a file which became
// read-only causes cannot be handled.
const raced = true
