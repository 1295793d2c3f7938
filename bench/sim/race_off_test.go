//go:build !race

package sim

// scale divides the lengths of the tests' runs, which the race detector needs.
const scale = 1
