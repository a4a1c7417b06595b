//go:build race

package peer_test

// A pool drops values at random under the race detector.
const raceEnabled = true
