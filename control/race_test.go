//go:build race

package control

// slowdown is by how much the race detector may stretch a time limit.
const slowdown = 20
