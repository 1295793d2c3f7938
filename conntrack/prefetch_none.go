//go:build !amd64 && !arm64

package conntrack

const canPrefetch = false

func prefetch(*[entrySize]byte) {}
