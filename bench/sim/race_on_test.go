//go:build race

package sim

// scale divides the lengths of the tests' runs: the race detector makes them twenty times as long.
const scale = 25
