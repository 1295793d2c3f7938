package forward

import (
	"testing"

	"uvs/packet"
)

func TestQueriesAreWholePackets(t *testing.T) {
	v4, v6 := packet.AddrFrom4(0x0a090032), packet.AddrFromWords(0x20010db8_00090000, 0x32)
	to4, to6 := packet.AddrFrom4(0x0a090064), packet.AddrFromWords(0x20010db8_00090000, 0x64)
	for _, tt := range []struct {
		name string
		q    Query
		size int // of the IP packet
	}{
		{"SYN", Query{Flow: packet.Flow{Src: v4, Dst: to4, SrcPort: 40000, DstPort: 80, Proto: packet.ProtoTCP}, Flags: packet.TCPSyn, Seq: 7}, 40},
		{"SYN of IPv6", Query{Flow: packet.Flow{Src: v6, Dst: to6, SrcPort: 40000, DstPort: 80, Proto: packet.ProtoTCP}, Flags: packet.TCPSyn}, 60},
		{"datagram", Query{Flow: packet.Flow{Src: v4, Dst: to4, SrcPort: 40000, DstPort: 53, Proto: packet.ProtoUDP}}, 28},
		{"datagram of IPv6", Query{Flow: packet.Flow{Src: v6, Dst: to6, SrcPort: 40000, DstPort: 53, Proto: packet.ProtoUDP}}, 48},
		{"echo", Query{Flow: packet.Flow{Src: v4, Dst: to4, SrcPort: 40000, Proto: packet.ProtoICMP}, Len: 1500, Uncut: true}, 1500},
		{"echo of IPv6", Query{Flow: packet.Flow{Src: v6, Dst: to6, SrcPort: 40000, Proto: packet.ProtoICMPv6}, Len: 1280}, 1280},
	} {
		b := make([]byte, tt.q.Size())
		for i := range b {
			b[i] = 0xff
		}
		f := tt.q.Put(b)
		var p packet.Packet
		if fault := packet.Decode(f[packet.VnetLen:], &p); fault != packet.NoFault || p.IPLen() != tt.size {
			t.Errorf("%s: fault %d, %d bytes", tt.name, fault, p.IPLen())
			continue
		}
		flow := p.Flow
		if p.IsICMP() {
			flow.SrcPort = p.ICMP().ID()
		}
		if flow != tt.q.Flow || p.TCPFlags != tt.q.Flags || p.TTL != 65 || !ChecksumOK(&p, (*packet.Vnet)(f)) {
			t.Errorf("%s: %+v, checksum right: %v", tt.name, p.Flow, ChecksumOK(&p, (*packet.Vnet)(f)))
		}
		if p.Is4() && p.IPv4().DF() != tt.q.Uncut || p.Proto == packet.ProtoTCP && p.TCP().Seq() != tt.q.Seq {
			t.Errorf("%s: %x", tt.name, f)
		}
	}
}
