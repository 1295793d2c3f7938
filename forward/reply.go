package forward

import (
	"encoding/binary"

	"uvs/packet"
)

// ReplyLen is the room in bytes that the buffers of Reset, Unreachable and TimeExceeded need.
const ReplyLen = FrameHead + maxICMPError

// maxICMPError is the length in bytes of the longest IP packet sent as an ICMP error: every host takes 576
// (RFC 1812 section 4.3.2.3).
const maxICMPError = 576

// defaultTTL is the time to live of packets made here, as Linux has it.
const defaultTTL = 64

// The DF bit in the IPv4 flags.
const flagDF = 0x4000

// Reset writes to buf the RST that Linux answers to a segment that belongs to no connection (RFC 9293 section 3.10.7.1),
// from p's destination to its source. Its Ethernet header goes back to where p came from. It is nil if p is itself a RST,
// no TCP packet, or not addressed from one host to one host. The caller answers only packets whose checksum is right.
func Reset(buf []byte, p *packet.Packet) []byte {
	if p.Proto != packet.ProtoTCP || p.Fragment || p.TCPFlags&packet.TCPRst != 0 || !unicast(p) {
		return nil
	}
	in := p.TCP()
	ip := p.IPv4()
	f := replyFrame(buf, p, packet.TCPLen)
	putIPv4(f[FrameHead:], ip.TOS(), 0, flagDF, packet.ProtoTCP, ip.Dst(), ip.Src())
	t := f[FrameHead+packet.IPv4Len:]
	clear(t)
	binary.BigEndian.PutUint16(t[0:2], p.DstPort)
	binary.BigEndian.PutUint16(t[2:4], p.SrcPort)
	t[12] = packet.TCPLen / 4 << 4
	if p.TCPFlags&packet.TCPAck != 0 {
		binary.BigEndian.PutUint32(t[4:8], in.Ack())
		t[13] = packet.TCPRst
	} else {
		n := uint32(len(p.Frame) - p.Payload) // SYN and FIN count as a byte each
		if p.TCPFlags&packet.TCPSyn != 0 {
			n++
		}
		if p.TCPFlags&packet.TCPFin != 0 {
			n++
		}
		binary.BigEndian.PutUint32(t[8:12], in.Seq()+n)
		t[13] = packet.TCPRst | packet.TCPAck
	}
	s := packet.Pseudo4(ip.Dst(), ip.Src(), packet.ProtoTCP, len(t))
	binary.BigEndian.PutUint16(t[16:18], ^packet.Fold(packet.Sum(t, s)))
	return f
}

// Unreachable writes to buf an ICMP destination-unreachable message of the given code about p, from src to p's source.
// mtu is the next hop's for packet.ICMPCodeFragNeeded (RFC 1191), else 0. It is nil if RFC 1122 section 3.2.2 forbids to
// answer p with an ICMP error.
func Unreachable(buf []byte, p *packet.Packet, code uint8, mtu int, src packet.Addr) []byte {
	return icmpError(buf, p, packet.ICMPUnreachable, code, mtu, src)
}

// TimeExceeded writes to buf an ICMP message that p's time to live has run out, from src to p's source. It is nil if
// RFC 1122 section 3.2.2 forbids to answer p with an ICMP error.
func TimeExceeded(buf []byte, p *packet.Packet, src packet.Addr) []byte {
	return icmpError(buf, p, packet.ICMPTimeExceeded, 0, 0, src)
}

// icmpError quotes as much of p as an IP packet of 576 bytes holds, as Linux does (RFC 1812 section 4.3.2.3).
func icmpError(buf []byte, p *packet.Packet, typ, code uint8, mtu int, src packet.Addr) []byte {
	if !MayAnswer(p) {
		return nil
	}
	ip := p.IPv4()
	quote := p.Frame[p.L3:]
	quote = quote[:min(len(quote), maxICMPError-packet.IPv4Len-packet.ICMPLen)]
	f := replyFrame(buf, p, packet.ICMPLen+len(quote))
	// Precedence is internetwork control, the rest of the type of service the offender's (RFC 1812 section 4.3.2.5).
	tos := ip.TOS()&0x1e | 0xc0
	putIPv4(f[FrameHead:], tos, nextID(src.V4(), ip.Src(), packet.ProtoICMP), 0, packet.ProtoICMP, src.V4(), ip.Src())
	m := f[FrameHead+packet.IPv4Len:]
	m[0], m[1] = typ, code
	binary.BigEndian.PutUint16(m[2:4], 0)
	binary.BigEndian.PutUint32(m[4:8], uint32(min(mtu, 0xffff)))
	copy(m[packet.ICMPLen:], quote)
	binary.BigEndian.PutUint16(m[2:4], ^packet.Fold(packet.Sum(m, 0)))
	return f
}

// MayAnswer says that p may be answered with an ICMP error (RFC 1122 section 3.2.2): it is not itself an ICMP error, nor
// a fragment but the first, nor sent to or from a group, neither by its IP nor by its Ethernet address.
func MayAnswer(p *packet.Packet) bool {
	if p.Fragment && p.IPv4().FragOffset() != 0 {
		return false
	}
	if p.Proto == packet.ProtoICMP && !icmpQuery(p) {
		return false
	}
	return unicast(p)
}

// icmpQuery says that the ICMP packet p is of a type known not to be an error.
func icmpQuery(p *packet.Packet) bool {
	if len(p.Frame) <= p.L4 {
		return false
	}
	switch p.Frame[p.L4] {
	case packet.ICMPEchoReply, packet.ICMPEcho, 9, 10, 13, 14, 15, 16, 17, 18:
		return true
	}
	return false
}

// unicast says that p went from one host to one host.
func unicast(p *packet.Packet) bool {
	if (*packet.Eth)(p.Frame).Dst().IsGroup() || (*packet.Eth)(p.Frame).Src().IsGroup() {
		return false
	}
	src, dst := p.Src.V4(), p.Dst.V4()
	return src>>28 < 0xe && src>>24 != 0 && src>>24 != 127 && dst>>28 < 0xe && dst != 0
}

// EchoReply turns the ICMP echo request p into its answer, in place, and sends it back to where it came from. It returns
// false and leaves p alone if p is no whole echo request with a right checksum, or not from one host to one host.
func EchoReply(p *packet.Packet, v *packet.Vnet) bool {
	if p.Proto != packet.ProtoICMP || p.Fragment || p.ICMP().Type() != packet.ICMPEcho || p.ICMP().Code() != 0 ||
		!unicast(p) || !ChecksumOK(p, v) {
		return false
	}
	eth := (*packet.Eth)(p.Frame)
	Ethernet(p.Frame, eth.Src(), eth.Dst())

	m := p.Frame[p.L4:]
	m[0] = packet.ICMPEchoReply
	if partial(p, v) {
		m[2], m[3] = 0, 0
		binary.BigEndian.PutUint16(m[2:4], ^packet.Fold(packet.Sum(m, 0)))
	} else {
		h := p.ICMP()
		h.SetChecksum(packet.Update16(h.Checksum(), packet.ICMPEcho<<8, packet.ICMPEchoReply<<8))
	}
	clear(v[:])

	b := p.Frame[p.L3:]
	for i := packet.IPv4Len; i < p.L4-p.L3; i++ {
		b[i] = 1 // options were for the way here: no operation
	}
	src, dst := p.Src, p.Dst
	putIPv4Len(b, p.L4-p.L3, p.IPv4().TOS(), nextID(dst.V4(), src.V4(), packet.ProtoICMP), 0, packet.ProtoICMP,
		dst.V4(), src.V4())
	p.Src, p.Dst, p.TTL = dst, src, defaultTTL
	return true
}

// replyFrame makes room in buf for a frame with n bytes behind an IPv4 header, back to where p came from.
func replyFrame(buf []byte, p *packet.Packet, n int) []byte {
	f := buf[:FrameHead+packet.IPv4Len+n]
	eth := (*packet.Eth)(p.Frame)
	putHead(f, eth.Src(), eth.Dst(), packet.EtherIPv4)
	return f
}

// putIPv4 writes to b a header without options for a packet that fills b.
func putIPv4(b []byte, tos uint8, id, frag uint16, proto uint8, src, dst uint32) {
	putIPv4Len(b, packet.IPv4Len, tos, id, frag, proto, src, dst)
}

// putIPv4Len is putIPv4 with a header of n bytes, whose options are there already.
func putIPv4Len(b []byte, n int, tos uint8, id, frag uint16, proto uint8, src, dst uint32) {
	b[0], b[1] = 0x40|byte(n/4), tos
	binary.BigEndian.PutUint16(b[2:4], uint16(len(b)))
	binary.BigEndian.PutUint16(b[4:6], id)
	binary.BigEndian.PutUint16(b[6:8], frag)
	b[8], b[9] = defaultTTL, proto
	binary.BigEndian.PutUint32(b[12:16], src)
	binary.BigEndian.PutUint32(b[16:20], dst)
	packet.FixIPv4Checksum(b)
}
