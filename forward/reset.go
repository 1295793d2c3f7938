package forward

import "uvs/packet"

// MakeReset turns the TCP segment p, in place, into a reset of its connection for the one it is addressed to: its
// sequence number is what that one waits for, if the segment is the next in order. Out of order it lies in the window, and
// RFC 5961 section 3.2 has the receiver ask with an ACK, whose answer by Reset fits. Payload and options go. It returns false
// and leaves p alone if p is no whole TCP segment.
func MakeReset(p *packet.Packet, v *packet.Vnet) bool {
	if p.Proto != packet.ProtoTCP || p.Fragment {
		return false
	}
	*v = packet.Vnet{}
	p.Frame = p.Frame[:p.L4+packet.TCPLen]
	p.Payload = len(p.Frame)
	if p.Is4() {
		p.IPv4().SetTotalLen(p.IPLen())
		packet.FixIPv4Checksum(p.Frame[p.L3:])
	} else {
		p.IPv6().SetPayloadLen(p.IPLen() - packet.IPv6Len)
	}
	t := p.TCP()
	t.SetHeaderLen(packet.TCPLen)
	p.TCPFlags = p.TCPFlags&packet.TCPAck | packet.TCPRst
	t.SetFlags(p.TCPFlags)
	t.SetChecksum(0)
	b := p.L4Bytes()
	t.SetChecksum(^packet.Fold(packet.Sum(b, p.Pseudo(packet.ProtoTCP, len(b)))))
	return true
}
