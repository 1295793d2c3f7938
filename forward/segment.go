package forward

import (
	"encoding/binary"

	"uvs/packet"
)

// TCP's congestion-window-reduced flag, which only a burst's first segment carries (RFC 3168 section 6.1.2).
const tcpCWR = 0x80

// Segments is how many frames Segment makes of the super-frame p; 0 if it cannot cut it.
func Segments(p *packet.Packet, v *packet.Vnet) int {
	size, n := v.GSOSize(), len(p.Frame)-p.Payload
	if size == 0 || n <= 0 || p.Fragment {
		return 0
	}
	switch v.GSOType() &^ packet.GSOECN {
	case packet.GSOTCPv4:
		if p.Proto != packet.ProtoTCP || !p.Dst.Is4() {
			return 0
		}
	case packet.GSOUDPL4:
		if p.Proto != packet.ProtoUDP || !p.Dst.Is4() {
			return 0
		}
	default:
		return 0
	}
	return (n + size - 1) / size
}

// SegmentRoom is the room in bytes that Segment's buf needs for p.
func SegmentRoom(p *packet.Packet, v *packet.Vnet) int {
	return Segments(p, v) * (FrameHead + TunnelLen + p.Payload - p.L3)
}

// Segment cuts the super-frame p into the frames that a device with segmentation offload would put on the wire, and
// calls emit for each, in order: head is an empty virtio-net header and p's headers adjusted, written to buf; body is a
// part of p. Each has gso_size bytes of payload but the last, which may have fewer; IP identifications count up, TCP
// sequence numbers follow, FIN and PSH stand on the last and CWR on the first, all checksums are complete. With t not
// nil each segment is encapsulated, which no virtio-net header could ask of a device. It returns false, having emitted
// nothing, if p is no super-frame of TCP or UDP over IPv4 or buf has less than SegmentRoom.
func Segment(buf []byte, p *packet.Packet, v *packet.Vnet, t *Tunnel, emit func(head, body []byte)) bool {
	count := Segments(p, v)
	if count == 0 || len(buf) < SegmentRoom(p, v) {
		return false
	}
	outer := 0
	if t != nil {
		outer = TunnelLen
	}
	n := FrameHead + outer + p.Payload - p.L3
	payload, size := p.Frame[p.Payload:], v.GSOSize()
	for i := range count {
		head := buf[:n:n]
		buf = buf[n:]
		body := payload[i*size : min((i+1)*size, len(payload))]
		clear(head[:packet.VnetLen])
		copy(head[packet.VnetLen:], p.Frame[:packet.EthLen])
		inner := head[FrameHead+outer:]
		copy(inner, p.Frame[p.L3:p.Payload])

		ip := (*packet.IPv4)(inner)
		ip.SetTotalLen(len(inner) + len(body))
		ip.SetID(ip.ID() + uint16(i))
		packet.FixIPv4Checksum(inner)
		l4 := inner[p.L4-p.L3:]
		if p.Proto == packet.ProtoTCP {
			segmentTCP(l4, ip, body, i*size, i == 0, i == count-1)
		} else {
			segmentUDP(l4, ip, body)
		}
		if t != nil {
			t.outer(head[FrameHead:], ip, len(inner)+len(body))
		}
		emit(head, body)
	}
	return true
}

// segmentTCP makes of the super-frame's TCP header that of the segment whose payload body begins at offset at.
func segmentTCP(h []byte, ip *packet.IPv4, body []byte, at int, first, last bool) {
	binary.BigEndian.PutUint32(h[4:8], binary.BigEndian.Uint32(h[4:8])+uint32(at))
	if !first {
		h[13] &^= tcpCWR
	}
	if !last {
		h[13] &^= packet.TCPFin | packet.TCPPsh
	}
	binary.BigEndian.PutUint16(h[16:18], 0)
	s := packet.Pseudo4(ip.Src(), ip.Dst(), packet.ProtoTCP, len(h)+len(body))
	s = uint64(packet.Fold(packet.Sum(h, s)))
	binary.BigEndian.PutUint16(h[16:18], ^packet.Fold(packet.Sum(body, s)))
}

// segmentUDP makes of the super-frame's UDP header that of the datagram with the payload body.
func segmentUDP(h []byte, ip *packet.IPv4, body []byte) {
	n := len(h) + len(body)
	binary.BigEndian.PutUint16(h[4:6], uint16(n))
	binary.BigEndian.PutUint16(h[6:8], 0)
	s := packet.Pseudo4(ip.Src(), ip.Dst(), packet.ProtoUDP, n)
	s = uint64(packet.Fold(packet.Sum(h, s)))
	binary.BigEndian.PutUint16(h[6:8], notZero(^packet.Fold(packet.Sum(body, s))))
}
