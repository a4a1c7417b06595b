//go:build race

package forward_test

const raceEnabled = true // pools give less back then
