//go:build !race

package management_test

// slower divides how much the tests do.
const slower = 1
