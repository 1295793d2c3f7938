package packet

// Flow is the addressing of a packet: what identifies its connection.
type Flow struct {
	Src, Dst         Addr
	SrcPort, DstPort uint16
	Proto            uint8
}

// Reverse is the flow of the answer.
func (f Flow) Reverse() Flow {
	return Flow{Src: f.Dst, Dst: f.Src, SrcPort: f.DstPort, DstPort: f.SrcPort, Proto: f.Proto}
}

// Fault is what Decode found wrong with a frame, or NoFault.
type Fault uint8

// What Decode may find.
const (
	NoFault         Fault = iota
	FaultShort            // cut short: no whole Ethernet, IP or L4 header
	FaultEtherType        // neither IPv4 nor IPv6
	FaultIPHeader         // version, header length, total length or options lie, or a source route
	FaultIPChecksum       // the IPv4 header checksum is wrong
	FaultL4Header         // TCP data offset or UDP length lie
	FaultAddress          // source or destination cannot stand in a packet on a wire (multicast source, unspecified)
	NumFaults
)

// Packet is a decoded frame: its flow, and where its parts lie. It is scratch space of the worker, overwritten by every
// Decode.
type Packet struct {
	Flow
	// Frame is the Ethernet frame, cut after the IP datagram: padding is gone.
	Frame []byte
	// L3, L4 and Payload are offsets in Frame of the IP header, of what follows it, and of TCP's or UDP's payload.
	// Payload equals L4 for other protocols.
	L3, L4, Payload int
	// TCPFlags is the set of TCP* flags, 0 for other protocols.
	TCPFlags uint8
	// TTL is the time to live or hop limit.
	TTL uint8
	// Fragment says that this is a part of a datagram; ports and offsets beyond L4 are not set. Of IPv6, L4 is then behind
	// the fragment header.
	Fragment bool
	// FragmentAt is the offset in Frame of IPv6's fragment header, an atomic fragment's (RFC 6946) too; 0 if there is none.
	FragmentAt int
}

// Event is what the packet says to the state of its connection: the flags of a TCP packet, SCTPEvent of an SCTP packet,
// nothing of others.
func (p *Packet) Event() uint8 {
	if p.Proto == ProtoSCTP {
		return SCTPEvent(p.L4Bytes())
	}
	return p.TCPFlags
}

// Is4 says that it is an IPv4 packet, not one of IPv6.
func (p *Packet) Is4() bool { return p.Dst.Is4() }

// IPLen is the length in bytes of the IP datagram, which IPVS counts as the packet's bytes.
func (p *Packet) IPLen() int { return len(p.Frame) - p.L3 }

// IPv4 is the IP header of an IPv4 packet.
func (p *Packet) IPv4() *IPv4 { return (*IPv4)(p.Frame[p.L3:]) }

// IPv6 is the IP header of an IPv6 packet.
func (p *Packet) IPv6() *IPv6 { return (*IPv6)(p.Frame[p.L3:]) }

// FragmentHeader is IPv6's fragment header, if FragmentAt says that there is one.
func (p *Packet) FragmentHeader() *Fragment { return (*Fragment)(p.Frame[p.FragmentAt:]) }

// LaterFragment says that p is a fragment but not its datagram's first: it has no L4 header.
func (p *Packet) LaterFragment() bool {
	switch {
	case !p.Fragment:
		return false
	case p.Is4():
		return p.IPv4().FragOffset() != 0
	}
	return p.FragmentHeader().Offset() != 0
}

// DecTTL lowers the time to live or hop limit by one; it must not be 0. TTL stays what it was on arrival.
func (p *Packet) DecTTL() {
	if p.Is4() {
		p.IPv4().DecTTL()
		return
	}
	ip := p.IPv6()
	ip.SetHopLimit(ip.HopLimit() - 1)
}

// MayFragment says that a router may cut p up: never of IPv6, and of IPv4 without DF.
func (p *Packet) MayFragment() bool { return p.Is4() && !p.IPv4().DF() }

// IsICMP says that p is an ICMP message of its own family: ICMP over IPv6 or ICMPv6 over IPv4 is nobody's.
func (p *Packet) IsICMP() bool {
	if p.Is4() {
		return p.Proto == ProtoICMP
	}
	return p.Proto == ProtoICMPv6
}

// Pseudo is the unfolded sum of the pseudo-header of a packet with p's addresses; n is the length in bytes of the L4 header
// and payload.
func (p *Packet) Pseudo(proto uint8, n int) uint64 {
	if p.Is4() {
		return Pseudo4(p.Src.V4(), p.Dst.V4(), proto, n)
	}
	return Pseudo6(p.Src, p.Dst, proto, n)
}

// L4Bytes is the L4 header and what follows it.
func (p *Packet) L4Bytes() []byte { return p.Frame[p.L4:] }

// Ports are those of a TCP, UDP or SCTP packet.
func (p *Packet) Ports() *Ports { return (*Ports)(p.Frame[p.L4:]) }

// TCP is the header of a TCP packet.
func (p *Packet) TCP() *TCP { return (*TCP)(p.Frame[p.L4:]) }

// UDP is the header of a UDP packet.
func (p *Packet) UDP() *UDP { return (*UDP)(p.Frame[p.L4:]) }

// SCTP is the header of an SCTP packet.
func (p *Packet) SCTP() *SCTP { return (*SCTP)(p.Frame[p.L4:]) }

// ICMP is the header of an ICMP packet.
func (p *Packet) ICMP() *ICMP { return (*ICMP)(p.Frame[p.L4:]) }

// Decode reads the frame into p. Unless it returns NoFault, p is not to be used. L4 checksums are not looked at: IPVS
// forwards a packet with a wrong one, and the receiver judges it.
func Decode(frame []byte, p *Packet) Fault { return decode(frame, p, false) }

// DecodeOwn is Decode for what the machine itself sends to a device of ours: there a loopback address may be the source.
func DecodeOwn(frame []byte, p *Packet) Fault { return decode(frame, p, true) }

func decode(frame []byte, p *Packet, own bool) Fault {
	eth, b, ok := ParseEth(frame)
	if !ok {
		return FaultShort
	}
	switch eth.Type() {
	case EtherIPv4:
		return decode4(frame, b, p, own)
	case EtherIPv6:
		return decode6(frame, b, p, own)
	default:
		return FaultEtherType
	}
}

func decode4(frame, b []byte, p *Packet, own bool) Fault {
	if len(b) < IPv4Len {
		return FaultShort
	}
	ip, l4, ok := ParseIPv4(b)
	if !ok {
		return FaultIPHeader
	}
	if !IPv4ChecksumOK(b) {
		return FaultIPChecksum
	}
	if n := ip.HeaderLen(); n > IPv4Len && !optionsOK(b[IPv4Len:n]) {
		return FaultIPHeader
	}
	src := ip.Src()
	if src>>28 >= 0xe || src>>24 == 127 && !own || src>>24 == 0 {
		return FaultAddress // RFC 1122 section 3.2.1.3: never a source on a wire
	}
	p.Src, p.Dst, p.Proto = AddrFrom4(src), AddrFrom4(ip.Dst()), ip.Proto()
	p.L3, p.L4 = EthLen, EthLen+ip.HeaderLen()
	p.Frame = frame[:p.L4+len(l4)]
	p.TTL, p.FragmentAt = ip.TTL(), 0
	if p.Fragment = ip.IsFragment(); p.Fragment {
		p.SrcPort, p.DstPort, p.TCPFlags, p.Payload = 0, 0, 0, p.L4
		return NoFault
	}
	return p.decodeL4(l4)
}

func (p *Packet) decodeL4(b []byte) Fault {
	p.TCPFlags = 0
	switch p.Proto {
	case ProtoTCP:
		h, payload, ok := ParseTCP(b)
		if !ok {
			return l4Fault(b, TCPLen)
		}
		p.SrcPort, p.DstPort, p.TCPFlags = h.SrcPort(), h.DstPort(), h.Flags()
		p.Payload = len(p.Frame) - len(payload)
	case ProtoUDP:
		h, _, ok := ParseUDP(b)
		if !ok {
			return l4Fault(b, UDPLen)
		}
		p.SrcPort, p.DstPort = h.SrcPort(), h.DstPort()
		p.Payload = p.L4 + UDPLen
	case ProtoICMP, ProtoICMPv6:
		if len(b) < ICMPLen {
			return FaultShort
		}
		p.SrcPort, p.DstPort, p.Payload = 0, 0, p.L4
	case ProtoSCTP:
		if len(b) < SCTPLen {
			return FaultShort
		}
		h := (*SCTP)(b)
		p.SrcPort, p.DstPort = h.SrcPort(), h.DstPort()
		p.Payload = p.L4 + SCTPLen
	default:
		p.SrcPort, p.DstPort, p.Payload = 0, 0, p.L4
	}
	return NoFault
}

func l4Fault(b []byte, headerLen int) Fault {
	if len(b) < headerLen {
		return FaultShort
	}
	return FaultL4Header
}

// DecodeQuoted reads the IP packet that an ICMP error quotes, starting at b: only its IP header and the first eight bytes
// behind it need be there (RFC 792), its total length may exceed b, and its checksums may be meaningless. Frame, offsets and
// TCPFlags of q are relative to b. ok is false if the quote is too short or not a packet that has a flow.
func DecodeQuoted(b []byte, q *Packet) bool {
	if len(b) > 0 && b[0]>>4 == 6 {
		return decodeQuoted6(b, q)
	}
	if len(b) < IPv4Len || b[0]>>4 != 4 {
		return false
	}
	ip := (*IPv4)(b)
	n := ip.HeaderLen()
	if n < IPv4Len || len(b) < n || ip.FragOffset() != 0 {
		return false
	}
	q.Frame = b
	q.Src, q.Dst, q.Proto = AddrFrom4(ip.Src()), AddrFrom4(ip.Dst()), ip.Proto()
	q.L3, q.L4, q.Payload, q.FragmentAt = 0, n, n, 0
	q.TTL, q.TCPFlags, q.Fragment = ip.TTL(), 0, ip.MF()
	q.SrcPort, q.DstPort = 0, 0
	return q.quotedPorts()
}

// quotedPorts reads the ports of a quoted packet; false if it has none.
func (p *Packet) quotedPorts() bool {
	switch p.Proto {
	case ProtoTCP, ProtoUDP, ProtoSCTP:
		if len(p.Frame) < p.L4+8 {
			return false
		}
		h := p.Ports()
		p.SrcPort, p.DstPort = h.Src(), h.Dst()
		return true
	}
	return false
}

// DecodeQuotedIP returns protocol, destination and payload of the packet at the start of a quote, whatever it carries, if the
// quote has its IP header whole, with extension headers, and it is no later fragment.
func DecodeQuotedIP(b []byte) (proto uint8, dst Addr, payload []byte, ok bool) {
	if len(b) > 0 && b[0]>>4 == 6 {
		return decodeQuotedIP6(b)
	}
	if len(b) < IPv4Len || b[0]>>4 != 4 {
		return 0, dst, nil, false
	}
	h := (*IPv4)(b)
	n := h.HeaderLen()
	if n < IPv4Len || len(b) < n || h.FragOffset() != 0 {
		return 0, dst, nil, false
	}
	return h.Proto(), AddrFrom4(h.Dst()), b[n:], true
}

// DecodeQuotedEcho reads the flow of the echo request that an ICMP error quotes, starting at b: SrcPort is its identifier,
// DstPort 0. ok is false if the quote is too short for that, or of anything else.
func DecodeQuotedEcho(b []byte) (f Flow, ok bool) {
	proto, dst, rest, ok := DecodeQuotedIP(b)
	if !ok || len(rest) < ICMPLen {
		return f, false
	}
	h := (*ICMP)(rest)
	f = Flow{Dst: dst, SrcPort: h.ID(), Proto: proto}
	switch {
	case dst.Is4() && proto == ProtoICMP && h.Type() == ICMPEcho:
		f.Src = AddrFrom4((*IPv4)(b).Src())
	case !dst.Is4() && proto == ProtoICMPv6 && h.Type() == ICMP6Echo:
		f.Src = (*IPv6)(b).Src()
	default:
		return f, false
	}
	return f, true
}
