package forward

import (
	"uvs/packet"
)

// ReplyLen is the room in bytes that the buffers of Reset, Unreachable and TimeExceeded need.
const ReplyLen = FrameHead + maxICMPError6

// The length in bytes of the longest IP packets sent as ICMP errors: every host takes 576 (RFC 1812 section 4.3.2.3), and
// every way in IPv6 carries 1280 (RFC 4443 section 2.4).
const (
	maxICMPError  = 576
	maxICMPError6 = 1280
)

// defaultTTL is the time to live of packets made here, as Linux has it.
const defaultTTL = 64

// Reset writes to buf the RST that Linux answers to a segment that belongs to no connection (RFC 9293 section 3.10.7.1),
// from p's destination to its source. Its Ethernet header goes back to where p came from. It is nil if p is itself a RST,
// no TCP packet, or not addressed from one host to one host. The caller answers only packets whose checksum is right.
func Reset(buf []byte, p *packet.Packet) []byte {
	if p.Proto != packet.ProtoTCP || p.Fragment || p.TCPFlags&packet.TCPRst != 0 || !unicast(p) {
		return nil
	}
	in := p.TCP()
	f, b := replyFrame(buf, p, packet.TCPLen, reply{
		tos: tos(p) &^ 3, // its congestion bits are the sender's own (RFC 3168 section 6.1.1)
		df:  true, proto: packet.ProtoTCP, src: p.Dst,
	})
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
	t.SetChecksum(^packet.Fold(packet.Sum(b, p.Pseudo(packet.ProtoTCP, len(b))))) // the same both ways
	return f
}

// Reason is why a packet cannot go on: the code of ICMP's destination unreachable (RFC 792, RFC 1122, RFC 1812), which names
// more reasons than ICMPv6 does. What it means in ICMPv6 is the same thing as near as can be.
type Reason uint8

// The reasons that a director has of its own. It may pass on others that it is told.
const (
	NoHost     = Reason(packet.ICMPCodeHost)       // the next hop does not answer
	NoPort     = Reason(packet.ICMPCodePort)       // nobody serves that
	NoProtocol = Reason(packet.ICMPCodeProtocol)   // nobody speaks that
	TooBig     = Reason(packet.ICMPCodeFragNeeded) // longer than the way on, and not to be fragmented
)

// icmp6 is the ICMPv6 message that says r: as RFC 7915 section 4.2 translates it, but that an unreachable host is ICMPv6's
// unreachable address, which is what Linux says when neighbour discovery fails.
func (r Reason) icmp6() (typ, code uint8) {
	switch r {
	case TooBig:
		return packet.ICMP6TooBig, 0
	case NoPort:
		return packet.ICMP6Unreachable, packet.ICMP6CodePort
	case NoProtocol:
		return packet.ICMP6ParameterProblem, packet.ICMP6CodeNextHeader
	case NoHost:
		return packet.ICMP6Unreachable, packet.ICMP6CodeAddress
	case 9, 10, 13, 15: // prohibited, by one rule or another
		return packet.ICMP6Unreachable, packet.ICMP6CodeProhibited
	}
	return packet.ICMP6Unreachable, packet.ICMP6CodeNoRoute
}

// Unreachable writes to buf an ICMP error of p's family that says that p cannot go on and why, from src to p's source: in
// IPv4 destination unreachable, in IPv6 that or packet too big. mtu is the next hop's for TooBig (RFC 1191, RFC 8201), else
// 0. Its Ethernet header goes back to where p came from. It is nil if p must not be answered (see MayAnswer). What IPVS
// quotes is the packet with its TTL decremented already when it was too long, and as it came when it had no way.
func Unreachable(buf []byte, p *packet.Packet, why Reason, mtu int, src packet.Addr) []byte {
	if p.Is4() {
		return icmpError(buf, p, packet.ICMPUnreachable, uint8(why), uint32(min(max(mtu, 0), 0xffff)), src)
	}
	typ, code := why.icmp6()
	rest := uint32(max(mtu, 0))
	if why == NoProtocol {
		rest = uint32(packet.NextHeaderAt(p.Frame[p.L3:], p.L4-p.L3))
	}
	return icmpError(buf, p, typ, code, rest, src)
}

// TimeExceeded writes to buf an ICMP message that p's time to live has run out, from src to p's source. Its Ethernet
// header goes back to where p came from. It is nil if p must not be answered (see MayAnswer).
func TimeExceeded(buf []byte, p *packet.Packet, src packet.Addr) []byte {
	typ := uint8(packet.ICMPTimeExceeded)
	if !p.Is4() {
		typ = packet.ICMP6TimeExceeded
	}
	return icmpError(buf, p, typ, 0, 0, src)
}

// icmpError quotes as much of p as an IP packet of 576 bytes holds, in IPv6 of 1280, as Linux does (RFC 1812 section
// 4.3.2.3, RFC 4443 section 2.4).
func icmpError(buf []byte, p *packet.Packet, typ, code uint8, rest uint32, src packet.Addr) []byte {
	if !MayAnswer(p) {
		return nil
	}
	r := reply{proto: packet.ProtoICMPv6, src: src}
	room := maxICMPError6 - packet.IPv6Len - packet.ICMPLen
	if p.Is4() {
		// Precedence is internetwork control, the rest the offender's (RFC 1812 section 4.3.2.5). Linux gives ICMPv6 none.
		r.proto, r.tos = packet.ProtoICMP, tos(p)&0x1e|0xc0
		room = maxICMPError - packet.IPv4Len - packet.ICMPLen
	}
	quote := p.Frame[p.L3:]
	quote = quote[:min(len(quote), room)]
	f, b := replyFrame(buf, p, packet.ICMPLen+len(quote), r)
	clear(b[:packet.ICMPLen])
	copy(b[packet.ICMPLen:], quote)
	h := (*packet.ICMP)(b)
	h.SetType(typ, code)
	h.SetRest(rest)
	var pseudo uint64
	if !p.Is4() {
		pseudo = packet.Pseudo6(src, p.Src, packet.ProtoICMPv6, len(b))
	}
	h.SetChecksum(^packet.Fold(packet.Sum(b, pseudo)))
	return f
}

// MayAnswer says that p may be answered with an ICMP error (RFC 1122 section 3.2.2, RFC 4443 section 2.4): it is not itself
// an ICMP error or a redirect, nor a fragment but the first, nor sent to or from a group, neither by its IP nor by its
// Ethernet address. ICMPv6 would allow packet too big about what goes to a group, but no router of groups is here.
func MayAnswer(p *packet.Packet) bool {
	if p.LaterFragment() {
		return false
	}
	if p.IsICMP() && (len(p.Frame)-p.L4 < packet.ICMPLen || !isQuery(p)) {
		return false
	}
	return unicast(p)
}

// isQuery says that the ICMP message p is none that says that something went wrong, or that another way is better.
func isQuery(p *packet.Packet) bool {
	h := p.ICMP()
	if p.Is4() {
		return h.IsQuery()
	}
	return !h.IsError6() && h.Type() != packet.ICMP6Redirect
}

// unicast says that p went from one host to one host. An address that is a subnet's broadcast is not known here; such a
// packet comes in a frame to a group. A loopback source is for packet.Decode to refuse: the host itself sends from one.
func unicast(p *packet.Packet) bool {
	eth := (*packet.Eth)(p.Frame)
	if eth.Dst().IsGroup() || eth.Src().IsGroup() {
		return false
	}
	if !p.Is4() {
		return !p.Src.IsMulticast6() && !p.Src.IsZero() && !p.Dst.IsMulticast6()
	}
	src, dst := p.Src.V4(), p.Dst.V4()
	return !isGroup(src) && src>>24 != 0 && !isGroup(dst) && dst>>24 != 0
}

// isGroup says that the IPv4 address a is multicast or the limited broadcast.
func isGroup(a uint32) bool { return a>>28 == 0xe || a == 0xffffffff }

// EchoReply turns the ICMP echo request p into its answer, in place, and sends it back to where it came from. It returns
// false and leaves p alone if p is no whole echo request with a right checksum, or not from one host to one host.
func EchoReply(p *packet.Packet, v *packet.Vnet) bool {
	request, answer := uint8(packet.ICMPEcho), uint8(packet.ICMPEchoReply)
	if !p.Is4() {
		request, answer = packet.ICMP6Echo, packet.ICMP6EchoReply
	}
	if !p.IsICMP() || p.Fragment || p.ICMP().Type() != request || p.ICMP().Code() != 0 || !unicast(p) || !ChecksumOK(p, v) {
		return false
	}
	CompleteChecksum(p.Frame, v)
	eth := (*packet.Eth)(p.Frame)
	Ethernet(p.Frame, eth.Src(), eth.Dst())
	h := p.ICMP()
	h.SetType(answer, 0)
	h.SetChecksum(packet.Update16(h.Checksum(), uint16(request)<<8, uint16(answer)<<8))
	p.Src, p.Dst, p.TTL = p.Dst, p.Src, defaultTTL
	if !p.Is4() {
		echoHeader6(p)
		return true
	}
	b, ip := p.Frame[p.L3:], p.IPv4()
	packet.ClearOptions(b) // they were for the way here
	ip.SetID(nextID(p.Src.V4(), p.Dst.V4(), packet.ProtoICMP))
	ip.SetFrag(false, false, 0)
	ip.SetTTL(defaultTTL)
	ip.SetSrc(p.Src.V4())
	ip.SetDst(p.Dst.V4())
	packet.FixIPv4Checksum(b)
	return true
}

// echoHeader6 gives an echo request's message, already turned, the header of its answer: without the extension headers,
// which were for the way here.
func echoHeader6(p *packet.Packet) {
	class := p.IPv6().TrafficClass()
	n := copy(p.Frame[p.L3+packet.IPv6Len:], p.L4Bytes())
	p.Frame = p.Frame[:p.L3+packet.IPv6Len+n]
	p.L4 = p.L3 + packet.IPv6Len
	p.Payload, p.FragmentAt = p.L4, 0
	packet.PutIPv6(p.Frame[p.L3:], n, packet.Header6{
		TrafficClass: class, NextHeader: packet.ProtoICMPv6, HopLimit: defaultTTL, Src: p.Src, Dst: p.Dst,
	})
}

// tos is p's type of service or traffic class.
func tos(p *packet.Packet) uint8 {
	if p.Is4() {
		return p.IPv4().TOS()
	}
	return p.IPv6().TrafficClass()
}

// reply is what differs between the IP headers of answers.
type reply struct {
	tos, proto uint8
	df         bool // of IPv4; without it the packet gets an identification
	src        packet.Addr
}

// replyFrame makes room in buf for a frame to p's source, by the station that p came from, and returns it with the n bytes
// behind its IP header.
func replyFrame(buf []byte, p *packet.Packet, n int, r reply) (frame, payload []byte) {
	eth := (*packet.Eth)(p.Frame)
	if !p.Is4() {
		f := buf[:FrameHead+packet.IPv6Len+n]
		putHead(f, eth.Src(), eth.Dst(), packet.EtherIPv6)
		packet.PutIPv6(f[FrameHead:], n, packet.Header6{
			TrafficClass: r.tos, NextHeader: r.proto, HopLimit: defaultTTL, Src: r.src, Dst: p.Src,
		})
		return f, f[FrameHead+packet.IPv6Len:]
	}
	f := buf[:FrameHead+packet.IPv4Len+n]
	putHead(f, eth.Src(), eth.Dst(), packet.EtherIPv4)
	h := packet.Header4{TOS: r.tos, DF: r.df, TTL: defaultTTL, Proto: r.proto, Src: r.src.V4(), Dst: p.Src.V4()}
	if !r.df {
		h.ID = nextID(h.Src, h.Dst, h.Proto)
	}
	packet.PutIPv4(f[FrameHead:], packet.IPv4Len+n, h)
	return f, f[FrameHead+packet.IPv4Len:]
}
