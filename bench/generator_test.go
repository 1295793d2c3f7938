package bench

import (
	"net/netip"
	"testing"

	"uvs/forward"
	"uvs/packet"
)

// Every frame of a stream is a right one, of another flow than the others, and after all flows the first comes again.
func TestStreamsFramesAreRightAndOfEachFlowOnce(t *testing.T) {
	const flows = portsPerHost + 100
	s := newStream(packet.MAC{2, 1}, packet.MAC{2, 2}, netip.MustParseAddrPort("10.9.0.100:9"), flows)
	seen := make(map[packet.Flow]int)
	var first packet.Flow
	for i := range flows + 1 {
		b := s.batch[i%len(s.batch)]
		s.fill(b)
		var p packet.Packet
		if fault := packet.Decode(b[packet.VnetLen:], &p); fault != packet.NoFault {
			t.Fatalf("frame %d: fault %d", i, fault)
		}
		if len(b) != packet.VnetLen+frameLen || !forward.ChecksumOK(&p, (*packet.Vnet)(b)) || p.UDP().Checksum() == 0 {
			t.Fatalf("frame %d: %d bytes, checksum %#x", i, len(b)-packet.VnetLen, p.UDP().Checksum())
		}
		if i == 0 {
			first = p.Flow
		}
		seen[p.Flow]++
	}
	if len(seen) != flows || seen[first] != 2 {
		t.Errorf("%d flows of %d, the first %d times", len(seen), flows, seen[first])
	}
	if net := netip.MustParsePrefix("198.18.0.0/15"); !net.Contains(packet.AddrFrom4(firstClient+(maxFlows-1)/portsPerHost).Netip()) || net.Masked() != net {
		t.Error("the largest stream leaves the benchmarks' network")
	}
}
