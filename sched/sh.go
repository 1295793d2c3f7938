package sched

import (
	"sync/atomic"

	"uvs/packet"
	"uvs/service"
)

// sh is source hashing as ip_vs_sh.c decides it: the client's address, with the flag sh-port also its port, chooses one
// of 256 buckets. The buckets are dealt out in list order, each server taking as many in a row as its weight says, round
// and round until all are dealt; a weight of 0 still takes one, and weights that sum to more than 256 leave nothing for
// the last of the list, the servers added first. When the bucket's server is quiesced or overloaded the connection is
// refused; with the flag sh-fallback the following buckets are tried, in an order that depends on the client alone.
//
// A decision costs one multiplication and one load, with fallback up to 256 loads. The table is built by Prepare and
// swapped whole.
type sh struct {
	flags atomic.Uint32
	table atomic.Pointer[hashTable]
}

func newSH(f service.SchedFlags) *sh {
	s := new(sh)
	s.flags.Store(uint32(f))
	return s
}

// Pick implements service.Scheduler.
func (s *sh) Pick(r *service.Request, _ []*service.RealServer) *service.RealServer {
	t := s.table.Load()
	if t == nil {
		return nil
	}
	flags := service.SchedFlags(s.flags.Load())
	h := hash32(sourceKey(&r.Flow, flags), hashBits)
	rs := t[h]
	if rs == nil || rs.Eligible() {
		return rs
	}
	if flags&service.SchedFlag1 == 0 {
		return nil
	}
	// The kernel adds its offset, which starts at the bucket's number, to the bucket's number once more.
	for offset := h; offset < h+hashBuckets; offset++ {
		if rs := t[(offset%hashBuckets+h)%hashBuckets]; rs.Eligible() {
			return rs
		}
	}
	return nil
}

// sourceKey is what sh and mh hash: the client's folded address, plus its port when the second flag asks for it.
func sourceKey(f *packet.Flow, flags service.SchedFlags) uint32 {
	key := fold(f.Src)
	if flags&service.SchedFlag2 != 0 {
		key += uint32(f.SrcPort)
	}
	return key
}

// Changed implements service.Scheduler: an edit of the service may change the flags.
func (s *sh) Changed(c service.Change) {
	if c.Kind == service.ServiceEdited {
		s.flags.Store(uint32(c.Flags))
	}
}

// Prepare implements service.Scheduler.
func (s *sh) Prepare(servers []*service.RealServer) {
	t := new(hashTable)
	for i, at, dealt := 0, 0, int32(0); i < len(t) && len(servers) > 0; i++ {
		t[i] = servers[at]
		if dealt++; dealt >= servers[at].StagedWeight() {
			at, dealt = (at+1)%len(servers), 0
		}
	}
	s.table.Store(t)
}
