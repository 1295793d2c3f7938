//go:build race

package conntrack

// slowdown is how much less a test does that one goroutine runs, because the race detector finds nothing there.
const slowdown = 5
