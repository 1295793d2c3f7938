//go:build !race

package conntrack

// slowdown is how much less a test does under the race detector.
const slowdown = 1
