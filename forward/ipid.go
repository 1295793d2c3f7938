package forward

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"uvs/packet"
)

// ids are the counters that IP identifications are drawn from, one per hash of addresses and protocol. A single counter
// would tell everybody how many packets the director makes (RFC 7739 section 4); one per pair of hosts has no bound.
// They are shared by all workers, who draw from them only for packets of their own making.
var ids [1024]atomic.Uint32

// idKey keeps stations from knowing which pairs share a counter.
var idKey = randomKey()

func randomKey() (k [3]uint64) {
	var b [24]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	for i := range k {
		k[i] = binary.NativeEndian.Uint64(b[8*i:])
	}
	return k
}

// mix hashes two words into h under idKey, in the manner of the connection table's hash: a tunnelled packet without DF needs it, and
// maphash takes several times as long.
func mix(h, a, b uint64) uint64 {
	hi, lo := bits.Mul64(h^a^idKey[0], b^idKey[1])
	return hi ^ lo
}

// nextID is the identification for the next packet without DF from src to dst. It is never 0, which some take for none.
func nextID(src, dst uint32, proto uint8) uint16 {
	h := mix(mix(0, uint64(src)<<32|uint64(dst), uint64(proto)), idKey[2], 0)
	for {
		// The hash's other bits make pairs that share a counter start at different places.
		if id := uint16(ids[h%uint64(len(ids))].Add(1)) + uint16(h>>32); id != 0 {
			return id
		}
	}
}

// nextID6 is the identification for the next packet of our own from src to dst that must be fragmented. It is never 0.
func nextID6(src, dst packet.Addr) uint32 {
	h := mixAddrs(src, dst)
	for {
		if id := ids[h%uint64(len(ids))].Add(1) + uint32(h>>32); id != 0 {
			return id
		}
	}
}

// mixAddrs hashes a pair of addresses of either family.
func mixAddrs(src, dst packet.Addr) uint64 {
	hi, lo := src.Words()
	dhi, dlo := dst.Words()
	return mix(mix(mix(0, hi, lo), dhi, dlo), idKey[2], 0)
}
