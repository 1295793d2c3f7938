package forward

import (
	"hash/maphash"
	"sync/atomic"

	"uvs/packet"
)

// ids are the counters that IP identifications are drawn from, one per hash of addresses and protocol. A single counter
// would tell everybody how many packets the director makes (RFC 7739 section 4); one per pair of hosts has no bound.
// They are shared by all workers, who draw from them only for packets of their own making.
var ids [1024]atomic.Uint32

var idSeed = maphash.MakeSeed()

type idKey struct {
	src, dst uint32
	proto    uint8
}

// nextID is the identification for the next packet without DF from src to dst. It is never 0, which some take for none.
func nextID(src, dst uint32, proto uint8) uint16 {
	h := maphash.Comparable(idSeed, idKey{src, dst, proto})
	for {
		// The hash's other bits make pairs that share a counter start at different places.
		if id := uint16(ids[h%uint64(len(ids))].Add(1)) + uint16(h>>32); id != 0 {
			return id
		}
	}
}

type idKey6 struct{ src, dst packet.Addr }

// nextID6 is the identification for the next packet of our own from src to dst that must be fragmented. It is never 0.
func nextID6(src, dst packet.Addr) uint32 {
	h := maphash.Comparable(idSeed, idKey6{src, dst})
	for {
		if id := ids[h%uint64(len(ids))].Add(1) + uint32(h>>32); id != 0 {
			return id
		}
	}
}
