package bench

import (
	"net/netip"

	"uvs/packet"
)

const (
	frameLen     = 60 // the shortest Ethernet frame, without its checksum
	portsPerHost = 1 << 14
	firstPort    = 1024
	firstClient  = 198<<24 | 18<<16 // 198.18.0.0/15 is for benchmarks (RFC 2544)
	maxFlows     = portsPerHost << 17
)

// stream is UDP datagrams in frames of frameLen bytes, of many clients in turn: to a service, or answers from a server.
type stream struct {
	flows   int
	answers bool
	batch   [64][]byte // frames, virtio-net header first, each rewritten for every flow
	sum     uint64     // of what the UDP checksum covers and never changes
	next    int
}

// newStream makes the datagrams of a number of flows to a service.
func newStream(dst, src packet.MAC, to netip.AddrPort, flows int) *stream {
	return newEnds(dst, src, to, flows, false)
}

// newAnswers makes the answers to them from a server.
func newAnswers(dst, src packet.MAC, from netip.AddrPort, flows int) *stream {
	return newEnds(dst, src, from, flows, true)
}

func newEnds(dst, src packet.MAC, fixed netip.AddrPort, flows int, answers bool) *stream {
	s := &stream{flows: min(flows, maxFlows), answers: answers}
	h := packet.Header4{TTL: 64, DF: true, Proto: packet.ProtoUDP, Src: firstClient, Dst: packet.AddrFrom(fixed.Addr()).V4()}
	sport, dport := uint16(0), fixed.Port()
	if answers {
		h.Src, h.Dst, sport, dport = h.Dst, h.Src, dport, sport
	}
	const ipLen = frameLen - packet.EthLen
	for i := range s.batch {
		b := make([]byte, packet.VnetLen+frameLen)
		eth := b[packet.VnetLen:]
		packet.PutEth(eth, dst, src, packet.EtherIPv4)
		packet.PutIPv4(eth[packet.EthLen:], ipLen, h)
		packet.PutUDP(eth[packet.EthLen+packet.IPv4Len:], sport, dport, ipLen-packet.IPv4Len)
		s.batch[i] = b
	}
	udp := s.batch[0][packet.VnetLen+packet.EthLen+packet.IPv4Len:]
	s.sum = packet.Sum(udp, packet.Pseudo4(0, packet.AddrFrom(fixed.Addr()).V4(), packet.ProtoUDP, ipLen-packet.IPv4Len))
	return s
}

// fill makes b the next flow's frame.
func (s *stream) fill(b []byte) {
	client, port := uint32(firstClient+s.next/portsPerHost), uint16(firstPort+s.next%portsPerHost)
	if s.next++; s.next == s.flows {
		s.next = 0
	}
	ip := (*packet.IPv4)(b[packet.VnetLen+packet.EthLen:])
	l4 := b[packet.VnetLen+packet.EthLen+packet.IPv4Len:]
	if s.answers {
		ip.SetDst(client) // mends the header's checksum
		(*packet.Ports)(l4).SetDst(port)
	} else {
		ip.SetSrc(client)
		(*packet.Ports)(l4).SetSrc(port)
	}
	c := ^packet.Fold(s.sum + uint64(client) + uint64(port))
	if c == 0 {
		c = 0xffff
	}
	(*packet.UDP)(l4).SetChecksum(c)
}
