package sched

import (
	"math/bits"
	"sync/atomic"

	"uvs/service"
)

const (
	// mhSize is the number of buckets, a prime: the kernel's for CONFIG_IP_VS_MH_TAB_INDEX=12, its default.
	mhSize = 4093
	// mhTurnBits bounds the turns of one round: relative weights are shifted until the largest fits.
	mhTurnBits = 6

	mhKey1 = 2654435761 // of the client's bucket, and of a server's first choice
	mhKey2 = 2654446892 // of the distance between a server's choices
)

// mh is Maglev hashing as ip_vs_mh.c decides it: the client's address, with the flag mh-port also its port, chooses one
// of 4093 buckets. Each server has an order of preference over all buckets, derived from its address and port; round
// after round the servers, in list order, take as many of their preferred free buckets as their relative weight says.
// Adding or removing a server thus moves few clients besides its own. The weights are the last ones that weren't 0: a
// server that is quiesced keeps its buckets. When the bucket's server is quiesced or overloaded the connection is
// refused; with the flag mh-fallback the client's key is hashed again with an offset until an eligible server comes up.
//
// A decision costs one SipHash and one load, with fallback up to 4093 of them when hardly a server is eligible. The
// table is built by Prepare, in a time that hardly depends on the number of servers, and swapped whole.
type mh struct {
	flags atomic.Uint32
	table atomic.Pointer[mhTable]
}

type mhTable [mhSize]*service.RealServer

func newMH(f service.SchedFlags) *mh {
	m := new(mh)
	m.flags.Store(uint32(f))
	return m
}

// Pick implements service.Scheduler.
func (m *mh) Pick(r *service.Request, _ []*service.RealServer) *service.RealServer {
	t := m.table.Load()
	if t == nil {
		return nil
	}
	flags := service.SchedFlags(m.flags.Load())
	key := sourceKey(&r.Flow, flags)
	h := hsiphash(key, mhKey1) % mhSize
	rs := t[h]
	if rs == nil || rs.Eligible() {
		return rs
	}
	if flags&service.SchedFlag1 == 0 {
		return nil
	}
	for offset := h; offset < h+mhSize; offset++ {
		if rs := t[hsiphash(key+offset%mhSize, mhKey1)%mhSize]; rs.Eligible() {
			return rs
		}
	}
	return nil
}

// Changed implements service.Scheduler: an edit of the service may change the flags.
func (m *mh) Changed(c service.Change) {
	if c.Kind == service.ServiceEdited {
		m.flags.Store(uint32(c.Flags))
	}
}

// mhCandidate is a server while the table is dealt out.
type mhCandidate struct {
	rs         *service.RealServer
	next, skip uint32 // the bucket it looks at next, and how far on the one after it lies
	turns      int32
}

// Prepare implements service.Scheduler.
func (m *mh) Prepare(servers []*service.RealServer) {
	t := new(mhTable)
	candidates := mhCandidates(servers)
	for free := mhSize; free > 0 && len(candidates) > 0; {
		for i := range candidates {
			c := &candidates[i]
			for turn := int32(0); turn < c.turns && free > 0; turn++ {
				for t[c.next] != nil {
					c.next = (c.next + c.skip) % mhSize
				}
				t[c.next] = c.rs
				free--
			}
		}
	}
	m.table.Store(t)
}

// mhCandidates lists the servers that get buckets: all but those whose weight was never above 0.
func mhCandidates(servers []*service.RealServer) []mhCandidate {
	var divisor, heaviest int64
	for _, rs := range servers {
		if w := int64(rs.LastWeight()); w > 0 {
			divisor, heaviest = gcd(divisor, w), max(heaviest, w)
		}
	}
	if divisor == 0 {
		return nil
	}
	shift := max(bits.Len64(uint64(heaviest/divisor))-mhTurnBits, 0)
	candidates := make([]mhCandidate, 0, len(servers))
	for _, rs := range servers {
		w := int64(rs.LastWeight())
		if w <= 0 {
			continue
		}
		key := mhServerWord(rs) + uint32(rs.Addr.Port())
		candidates = append(candidates, mhCandidate{
			rs:    rs,
			next:  hsiphash(key, mhKey1) % mhSize,
			skip:  hsiphash(key, mhKey2)%(mhSize-1) + 1,
			turns: int32(max(w/divisor>>shift, 1)),
		})
	}
	return candidates
}

// mhServerWord is fold of the server's address. Of an IPv6 server in an IPv4 service (a tunnel) the kernel takes the
// first word alone.
func mhServerWord(rs *service.RealServer) uint32 {
	if !rs.IP.Is4() && rs.Service.Addr.Addr().Is4() {
		hi, _ := rs.IP.Words()
		return uint32(hi >> 32)
	}
	return fold(rs.IP)
}
