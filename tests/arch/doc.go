// Package arch holds the rules of the house as tests: which package may import
// which, and what each package and file looks like.
//
// The rules are tables at the top of the test files. A rule names packages by
// pattern, the path inside this module with "*" for one segment and a closing
// "..." for any number of them; a rule whose pattern matches nothing fails, so
// that the tables cannot go stale.
//
// Only production code is looked at, as `go list -deps` reports it; tests may
// import what they like.
package arch
