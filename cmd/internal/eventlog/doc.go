// Package eventlog puts the event store together for a program that serves its
// functions: the database of the configuration, the rules over it, and the functions that answer
// calls about it.
package eventlog
