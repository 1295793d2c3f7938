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
	service := netip.MustParseAddrPort("10.9.0.100:9")
	checkStream(t, newStream(packet.MAC{2, 1}, packet.MAC{2, 2}, service, flows), flows)
	checkStream(t, newAnswers(packet.MAC{2, 2}, packet.MAC{2, 1}, service, flows), flows)
	there, back := newStream(packet.MAC{2, 1}, packet.MAC{2, 2}, service, flows), newAnswers(packet.MAC{2, 2}, packet.MAC{2, 1}, service, flows)
	for range flows {
		var p, q packet.Packet
		there.fill(there.batch[0])
		back.fill(back.batch[0])
		packet.Decode(there.batch[0][packet.VnetLen:], &p)
		packet.Decode(back.batch[0][packet.VnetLen:], &q)
		if q.Flow != p.Reverse() {
			t.Fatalf("%v is answered by %v", p.Flow, q.Flow)
		}
	}
	if net := netip.MustParsePrefix("198.18.0.0/15"); !net.Contains(packet.AddrFrom4(firstClient+(maxFlows-1)/portsPerHost).Netip()) || net.Masked() != net {
		t.Error("the largest stream leaves the benchmarks' network")
	}
}

func checkStream(t *testing.T, s *stream, flows int) {
	t.Helper()
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
}
