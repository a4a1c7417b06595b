//go:build race

package management_test

// slower divides how much the tests do: the race detector takes its time.
const slower = 10
