//go:build amd64 || arm64

package conntrack

const canPrefetch = true

// prefetch tells the processor that a cache line will be read soon. Go has no other way to say so, and a read instead
// would make the next lock wait for it.
//
//go:noescape
func prefetch(line *[entrySize]byte)
