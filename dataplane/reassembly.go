package dataplane

import (
	"uvs/conntrack"
	"uvs/dataplane/fragment"
	"uvs/dataplane/link"
	"uvs/packet"
)

// reassembled is a gathered datagram on its way: decided and rewritten whole, sent in the pieces it came in.
type reassembled struct {
	datagram *fragment.Datagram
	largest  int // IP bytes of its largest piece
}

// pieces is how many frames brought the datagram.
func (r *reassembled) pieces() int { return r.datagram.Pieces() }

// takeFragment adds a fragment to its datagram and, when that is whole, brings the datagram to its verdict, which counts
// for each of its fragments.
func (s *slowPath) takeFragment(q *port, f *link.Frame) (v Verdict, fragments uint64) {
	d, discarded := s.gather.Add(f.Eth(), s.now)
	s.verdicts[DropFragment] += uint64(discarded)
	if d == nil {
		return verdictNone, 0
	}
	r := &reassembled{datagram: d, largest: d.Largest()}
	whole := link.Frame{Buf: d.Buf(), Type: f.Type}
	n := uint64(d.Pieces())
	if fault := q.decode(whole.Eth(), s.pkt); fault != packet.NoFault {
		return faultVerdict[fault], n
	}
	var k conntrack.Key
	dir := conntrack.In
	if q.inside {
		dir = conntrack.Out
	}
	s.plane.cfg.Conns.Hash(&s.pkt.Flow, dir, &k)
	s.path.fragment = r
	v = s.receive(q, &whole, &k)
	s.path.fragment = nil
	return v, n
}
