package forward

import (
	"uvs/packet"
)

// ReplyLen is the room in bytes that the buffers of Reset, Unreachable and TimeExceeded need.
const ReplyLen = FrameHead + maxICMPError

// maxICMPError is the length in bytes of the longest IP packet sent as an ICMP error: every host takes 576
// (RFC 1812 section 4.3.2.3).
const maxICMPError = 576

// defaultTTL is the time to live of packets made here, as Linux has it.
const defaultTTL = 64

// Reset writes to buf the RST that Linux answers to a segment that belongs to no connection (RFC 9293 section 3.10.7.1),
// from p's destination to its source. Its Ethernet header goes back to where p came from. It is nil if p is itself a RST,
// no TCP packet, or not addressed from one host to one host. The caller answers only packets whose checksum is right.
func Reset(buf []byte, p *packet.Packet) []byte {
	if p.Proto != packet.ProtoTCP || p.Fragment || p.TCPFlags&packet.TCPRst != 0 || !unicast(p) {
		return nil
	}
	in, ip := p.TCP(), p.IPv4()
	f := replyFrame(buf, p, packet.TCPLen, packet.Header4{
		TOS: ip.TOS() &^ 3, // its congestion bits are the sender's own (RFC 3168 section 6.1.1)
		DF:  true, TTL: defaultTTL, Proto: packet.ProtoTCP, Src: ip.Dst(), Dst: ip.Src(),
	})
	b := f[FrameHead+packet.IPv4Len:]
	clear(b)
	ports := (*packet.Ports)(b)
	ports.SetSrc(p.DstPort)
	ports.SetDst(p.SrcPort)
	t := (*packet.TCP)(b)
	t.SetHeaderLen(packet.TCPLen)
	if p.TCPFlags&packet.TCPAck != 0 {
		t.SetSeq(in.Ack())
		t.SetFlags(packet.TCPRst)
	} else {
		n := uint32(len(p.Frame) - p.Payload)
		if p.TCPFlags&packet.TCPSyn != 0 {
			n++
		}
		if p.TCPFlags&packet.TCPFin != 0 {
			n++
		}
		t.SetAck(in.Seq() + n) // SYN and FIN count as a byte each
		t.SetFlags(packet.TCPRst | packet.TCPAck)
	}
	s := packet.Pseudo4(ip.Dst(), ip.Src(), packet.ProtoTCP, len(b))
	t.SetChecksum(^packet.Fold(packet.Sum(b, s)))
	return f
}

// Unreachable writes to buf an ICMP destination-unreachable message of the given code about p, from src to p's source.
// mtu is the next hop's for packet.ICMPCodeFragNeeded (RFC 1191), else 0. Its Ethernet header goes back to where p came
// from. It is nil if RFC 1122 section 3.2.2 forbids to answer p with an ICMP error. What IPVS quotes is the packet with
// its TTL decremented already when it was too long, and as it came when it had no way.
func Unreachable(buf []byte, p *packet.Packet, code uint8, mtu int, src packet.Addr) []byte {
	return icmpError(buf, p, packet.ICMPUnreachable, code, mtu, src)
}

// TimeExceeded writes to buf an ICMP message that p's time to live has run out, from src to p's source. Its Ethernet
// header goes back to where p came from. It is nil if RFC 1122 section 3.2.2 forbids to answer p with an ICMP error.
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
	f := replyFrame(buf, p, packet.ICMPLen+len(quote), packet.Header4{
		// Precedence is internetwork control, the rest the offender's (RFC 1812 section 4.3.2.5).
		TOS: ip.TOS()&0x1e | 0xc0,
		ID:  nextID(src.V4(), ip.Src(), packet.ProtoICMP),
		TTL: defaultTTL, Proto: packet.ProtoICMP, Src: src.V4(), Dst: ip.Src(),
	})
	b := f[FrameHead+packet.IPv4Len:]
	clear(b[:packet.ICMPLen])
	copy(b[packet.ICMPLen:], quote)
	h := (*packet.ICMP)(b)
	h.SetType(typ, code)
	h.SetRest(uint32(min(max(mtu, 0), 0xffff)))
	h.SetChecksum(^packet.Fold(packet.Sum(b, 0)))
	return f
}

// MayAnswer says that p may be answered with an ICMP error (RFC 1122 section 3.2.2): it is not itself an ICMP error, nor
// a fragment but the first, nor sent to or from a group, neither by its IP nor by its Ethernet address.
func MayAnswer(p *packet.Packet) bool {
	if p.Fragment && p.IPv4().FragOffset() != 0 {
		return false
	}
	if p.Proto == packet.ProtoICMP && (len(p.Frame)-p.L4 < packet.ICMPLen || !p.ICMP().IsQuery()) {
		return false
	}
	return unicast(p)
}

// unicast says that p went from one host to one host. An address that is a subnet's broadcast is not known here; such a
// packet comes in a frame to a group.
func unicast(p *packet.Packet) bool {
	eth := (*packet.Eth)(p.Frame)
	if eth.Dst().IsGroup() || eth.Src().IsGroup() {
		return false
	}
	src, dst := p.Src.V4(), p.Dst.V4()
	return !isGroup(src) && src>>24 != 0 && src>>24 != 127 && !isGroup(dst) && dst>>24 != 0
}

// isGroup says that the IPv4 address a is multicast or the limited broadcast.
func isGroup(a uint32) bool { return a>>28 == 0xe || a == 0xffffffff }

// EchoReply turns the ICMP echo request p into its answer, in place, and sends it back to where it came from. It returns
// false and leaves p alone if p is no whole echo request with a right checksum, or not from one host to one host.
func EchoReply(p *packet.Packet, v *packet.Vnet) bool {
	if p.Proto != packet.ProtoICMP || p.Fragment || p.ICMP().Type() != packet.ICMPEcho || p.ICMP().Code() != 0 ||
		!unicast(p) || !ChecksumOK(p, v) {
		return false
	}
	CompleteChecksum(p.Frame, v)
	eth := (*packet.Eth)(p.Frame)
	Ethernet(p.Frame, eth.Src(), eth.Dst())
	h := p.ICMP()
	h.SetType(packet.ICMPEchoReply, 0)
	h.SetChecksum(packet.Update16(h.Checksum(), packet.ICMPEcho<<8, packet.ICMPEchoReply<<8))

	b, ip := p.Frame[p.L3:], p.IPv4()
	packet.ClearOptions(b) // they were for the way here
	src, dst := ip.Src(), ip.Dst()
	ip.SetID(nextID(dst, src, packet.ProtoICMP))
	ip.SetFrag(false, false, 0)
	ip.SetTTL(defaultTTL)
	ip.SetSrc(dst)
	ip.SetDst(src)
	packet.FixIPv4Checksum(b)
	p.Src, p.Dst, p.TTL = p.Dst, p.Src, defaultTTL
	return true
}

// replyFrame makes room in buf for a frame with the IPv4 header h and n bytes behind it, back to where p came from.
func replyFrame(buf []byte, p *packet.Packet, n int, h packet.Header4) []byte {
	n += packet.IPv4Len
	f := buf[:FrameHead+n]
	eth := (*packet.Eth)(p.Frame)
	putHead(f, eth.Src(), eth.Dst(), packet.EtherIPv4)
	packet.PutIPv4(f[FrameHead:], n, h)
	return f
}
