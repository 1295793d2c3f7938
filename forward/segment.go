package forward

import (
	"uvs/packet"
)

// Segments is how many frames Segment makes of the super-frame p; 0 if it cannot cut it.
func Segments(p *packet.Packet, v *packet.Vnet) int {
	size, n := v.GSOSize(), len(segmentPayload(p))
	if size == 0 || n == 0 || p.Fragment {
		return 0
	}
	switch v.GSOType() &^ packet.GSOECN {
	case packet.GSOTCPv4:
		if p.Proto != packet.ProtoTCP || !p.Is4() {
			return 0
		}
	case packet.GSOTCPv6:
		if p.Proto != packet.ProtoTCP || p.Is4() {
			return 0
		}
	case packet.GSOUDPL4:
		if p.Proto != packet.ProtoUDP {
			return 0
		}
	default:
		return 0
	}
	return (n + size - 1) / size
}

// SegmentRoom is the room in bytes that Segment's buf needs for p.
func SegmentRoom(p *packet.Packet, v *packet.Vnet) int {
	return Segments(p, v) * (FrameHead + MaxTunnelLen + p.Payload - p.L3)
}

// Segment cuts the super-frame p into the frames that a device with segmentation offload would put on the wire, and
// calls emit for each, in order: head is an empty virtio-net header and p's headers adjusted, written to buf; body is a
// part of p. Each has gso_size bytes of payload but the last, which may have fewer; IPv4's identifications count up, IPv6's
// extension headers are the same in all, TCP sequence numbers follow, FIN and PSH stand on the last and CWR on the first,
// all checksums are complete. With t not nil each segment is encapsulated, which no virtio-net header could ask of a device.
// It returns false, having emitted nothing, if p is no super-frame of TCP or UDP or buf has less than SegmentRoom.
func Segment(buf []byte, p *packet.Packet, v *packet.Vnet, t *Tunnel, emit func(head, body []byte)) bool {
	count := Segments(p, v)
	if count == 0 || len(buf) < SegmentRoom(p, v) {
		return false
	}
	outer := 0
	if t != nil {
		outer = t.HeadLen(p, v)
	}
	n := FrameHead + outer + p.Payload - p.L3
	payload, size := segmentPayload(p), v.GSOSize()
	for i := range count {
		head := buf[:n:n]
		buf = buf[n:]
		body := payload[i*size : min((i+1)*size, len(payload))]
		clear(head[:packet.VnetLen])
		copy(head[packet.VnetLen:], p.Frame[:packet.EthLen])
		inner := head[FrameHead+outer:]
		copy(inner, p.Frame[p.L3:p.Payload])

		if p.Is4() {
			ip := (*packet.IPv4)(inner)
			ip.SetTotalLen(len(inner) + len(body))
			ip.SetID(ip.ID() + uint16(i))
			packet.FixIPv4Checksum(inner)
		} else {
			(*packet.IPv6)(inner).SetPayloadLen(len(inner) - packet.IPv6Len + len(body))
		}
		l4 := inner[p.L4-p.L3:]
		if p.Proto == packet.ProtoTCP {
			segmentTCP(l4, p, body, i*size, i == 0, i == count-1)
		} else {
			segmentUDP(l4, p, body)
		}
		if t != nil {
			t.putSegment(head[packet.VnetLen:FrameHead+outer], p, v, inner, body)
		}
		emit(head, body)
	}
	return true
}

// segmentPayload is what of p is cut up. Bytes behind UDP's own length are no part of the datagram.
func segmentPayload(p *packet.Packet) []byte {
	if p.Proto == packet.ProtoUDP && !p.Fragment {
		return p.Frame[p.Payload : p.L4+p.UDP().Len()]
	}
	return p.Frame[p.Payload:]
}

// segmentTCP makes of p's TCP header, copied to b, that of the segment whose payload body begins at offset at. FIN and
// PSH are the last segment's, the answer to a congestion mark is the first's (RFC 3168 section 6.1.2).
func segmentTCP(b []byte, p *packet.Packet, body []byte, at int, first, last bool) {
	h := (*packet.TCP)(b)
	h.SetSeq(h.Seq() + uint32(at))
	flags := h.Flags()
	if !first {
		flags &^= packet.TCPCwr
	}
	if !last {
		flags &^= packet.TCPFin | packet.TCPPsh
	}
	h.SetFlags(flags)
	h.SetChecksum(0)
	s := p.Pseudo(packet.ProtoTCP, len(b)+len(body))
	h.SetChecksum(^packet.Fold(packet.Sum(body, packet.Sum(b, s))))
}

// segmentUDP makes of p's UDP header, copied to b, that of the datagram with the payload body.
func segmentUDP(b []byte, p *packet.Packet, body []byte) {
	h, n := (*packet.UDP)(b), len(b)+len(body)
	h.SetLen(n)
	h.SetChecksum(0)
	s := p.Pseudo(packet.ProtoUDP, n)
	h.SetChecksum(notZero(^packet.Fold(packet.Sum(body, packet.Sum(b, s)))))
}
