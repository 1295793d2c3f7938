package packet

import "encoding/binary"

// Protocol numbers that IPv6 uses for its extension headers (RFC 8200 section 4).
const (
	extHopByHop    = 0
	extRouting     = 43
	extFragment    = ProtoFragment
	extAuth        = 51 // RFC 4302
	extNone        = 59
	extDestination = 60
)

// IPv6Len is the length in bytes of an IPv6 header without extension headers.
const IPv6Len = 40

// IPv6 is a view of an IPv6 header (RFC 8200 section 3).
type IPv6 [IPv6Len]byte

// ParseIPv6 returns the header at the start of b and what follows it, extension headers first; that ends where the header
// says, so that Ethernet padding is left out. ok is false if b is cut short, not IPv6, or a jumbogram (RFC 2675).
func ParseIPv6(b []byte) (h *IPv6, payload []byte, ok bool) {
	if len(b) < IPv6Len || b[0]>>4 != 6 {
		return nil, nil, false
	}
	h = (*IPv6)(b)
	n := h.PayloadLen()
	if len(b) < IPv6Len+n || n == 0 && h.NextHeader() != extNone {
		return nil, nil, false
	}
	return h, b[IPv6Len : IPv6Len+n], true
}

// TrafficClass is what IPv4 calls the type of service: six bits DSCP, two bits ECN.
func (h *IPv6) TrafficClass() uint8 { return h[0]<<4 | h[1]>>4 }

// SetTrafficClass replaces the traffic class.
func (h *IPv6) SetTrafficClass(c uint8) {
	h[0] = h[0]&0xf0 | c>>4
	h[1] = h[1]&0x0f | c<<4
}

// FlowLabel is the 20 bits by which routers may tell flows apart (RFC 6437).
func (h *IPv6) FlowLabel() uint32 { return binary.BigEndian.Uint32(h[0:4]) & 0xfffff }

// PayloadLen is the length in bytes of what follows the header, extension headers included.
func (h *IPv6) PayloadLen() int { return int(binary.BigEndian.Uint16(h[4:6])) }

// SetPayloadLen replaces the payload length.
func (h *IPv6) SetPayloadLen(n int) { binary.BigEndian.PutUint16(h[4:6], uint16(n)) }

// NextHeader is the protocol of what follows the header: an extension header or the payload.
func (h *IPv6) NextHeader() uint8 { return h[6] }

// SetNextHeader replaces the protocol of what follows the header.
func (h *IPv6) SetNextHeader(proto uint8) { h[6] = proto }

// HopLimit is what IPv4 calls the time to live.
func (h *IPv6) HopLimit() uint8 { return h[7] }

// SetHopLimit replaces the hop limit.
func (h *IPv6) SetHopLimit(n uint8) { h[7] = n }

// Src is the source address.
func (h *IPv6) Src() Addr { return AddrFrom16((*[16]byte)(h[8:24])) }

// Dst is the destination address.
func (h *IPv6) Dst() Addr { return AddrFrom16((*[16]byte)(h[24:40])) }

// SetSrc replaces the source address. IPv6's header has no checksum of its own.
func (h *IPv6) SetSrc(a Addr) { putAddr(h[8:24], a) }

// SetDst replaces the destination address.
func (h *IPv6) SetDst(a Addr) { putAddr(h[24:40], a) }

func putAddr(b []byte, a Addr) {
	_ = b[15]
	binary.BigEndian.PutUint64(b[:8], a.hi)
	binary.BigEndian.PutUint64(b[8:16], a.lo)
}

// Header6 is what PutIPv6 writes into an IPv6 header.
type Header6 struct {
	TrafficClass uint8
	FlowLabel    uint32 // 20 bits
	NextHeader   uint8
	HopLimit     uint8
	Src, Dst     Addr
}

// PutIPv6 writes to the start of b a header that n bytes follow.
func PutIPv6(b []byte, n int, f Header6) {
	h := (*IPv6)(b)
	binary.BigEndian.PutUint32(h[0:4], 6<<28|uint32(f.TrafficClass)<<20|f.FlowLabel&0xfffff)
	h.SetPayloadLen(n)
	h[6], h[7] = f.NextHeader, f.HopLimit
	h.SetSrc(f.Src)
	h.SetDst(f.Dst)
}

// FragmentLen is the length in bytes of IPv6's fragment header.
const FragmentLen = 8

// Fragment is a view of IPv6's fragment header (RFC 8200 section 4.5).
type Fragment [FragmentLen]byte

// NextHeader is the protocol of what is fragmented.
func (h *Fragment) NextHeader() uint8 { return h[0] }

// Offset is the offset in bytes of this fragment in its datagram.
func (h *Fragment) Offset() int { return int(binary.BigEndian.Uint16(h[2:4]) &^ 7) }

// MF is the more-fragments bit.
func (h *Fragment) MF() bool { return h[3]&1 != 0 }

// ID is the identification that the fragments of a datagram share.
func (h *Fragment) ID() uint32 { return binary.BigEndian.Uint32(h[4:8]) }

// PutFragment writes a fragment header to the start of b; offset is in bytes, a multiple of 8.
func PutFragment(b []byte, next uint8, offset int, mf bool, id uint32) {
	_ = b[:FragmentLen]
	b[0], b[1] = next, 0
	v := uint16(offset) &^ 7
	if mf {
		v |= 1
	}
	binary.BigEndian.PutUint16(b[2:4], v)
	binary.BigEndian.PutUint32(b[4:8], id)
}

// maxExtensions bounds the walk through extension headers. No sender has use for more; RFC 8504 section 5.3 lets a host
// refuse longer chains.
const maxExtensions = 8

// extensionLen is the length in bytes of the extension header of protocol proto at the start of b, which has at least two
// bytes; 0 if proto is no extension header that is walked over.
func extensionLen(proto uint8, b []byte) int {
	switch proto {
	case extHopByHop, extDestination, extRouting:
		return 8 + int(b[1])*8
	case extAuth:
		return 8 + int(b[1])*4
	case extFragment:
		return FragmentLen
	}
	return 0
}

// chain is what a walk through IPv6's extension headers found. Offsets are in the bytes walked through.
type chain struct {
	proto uint8
	at    int  // of what the last header leads to
	frag  int  // of the fragment header, -1 if there is none
	part  bool // that header is of a part of a datagram, not an atomic fragment's
	fixed int  // length of the headers that every fragment has: up to a routing header, else a hop-by-hop header
	fault Fault
}

// walkExtensions follows the extension headers in b, the first of which is of protocol next, to the payload, or behind the
// fragment header of a part of a datagram. A routing header that has addresses left to visit is a source route.
func walkExtensions(next uint8, b []byte) chain {
	c := chain{proto: next, frag: -1}
	for n := 0; !c.part; n++ {
		switch c.proto {
		case extHopByHop, extDestination, extRouting, extAuth, extFragment:
		default:
			return c
		}
		rest := b[c.at:]
		if len(rest) < 8 {
			c.fault = FaultShort
			return c
		}
		size := extensionLen(c.proto, rest)
		switch {
		case n == maxExtensions,
			c.proto == extHopByHop && n > 0, // RFC 8200 section 4.3: only right behind the IPv6 header
			c.proto == extRouting && rest[3] != 0,
			c.proto == extFragment && c.frag >= 0:
			c.fault = FaultIPHeader
			return c
		case len(rest) < size:
			c.fault = FaultShort
			return c
		}
		switch c.proto {
		case extFragment:
			h := (*Fragment)(rest)
			c.frag, c.part = c.at, h.Offset() != 0 || h.MF()
		case extHopByHop, extRouting:
			c.fixed = c.at + size
		}
		c.proto, c.at = rest[0], c.at+size
	}
	return c
}

// UnfragmentableLen is how many bytes at the start of the IPv6 packet b stand in each of its fragments (RFC 8200 section
// 4.5): the IPv6 header and what extension headers routers may have to read. ok is false if b's extension headers lie or
// hold a fragment header already.
func UnfragmentableLen(b []byte) (n int, ok bool) {
	ip, rest, ok := ParseIPv6(b)
	if !ok {
		return 0, false
	}
	c := walkExtensions(ip.NextHeader(), rest)
	return IPv6Len + c.fixed, c.fault == NoFault && c.frag < 0
}

// NextHeaderAt is the offset in the IPv6 packet b of the byte that says of what protocol the header at offset at is; 0 if no
// header of b's begins there.
func NextHeaderAt(b []byte, at int) int {
	said, h := 6, IPv6Len
	for h < at && len(b) >= h+8 {
		n := extensionLen(b[said], b[h:])
		if n == 0 {
			return 0
		}
		said, h = h, h+n
	}
	if h != at {
		return 0
	}
	return said
}

// decode6 is Decode for IPv6; b is the frame behind its Ethernet header.
func decode6(frame, b []byte, p *Packet, own bool) Fault {
	if len(b) < IPv6Len {
		return FaultShort
	}
	ip, rest, ok := ParseIPv6(b)
	if !ok {
		return FaultIPHeader
	}
	p.Src, p.Dst, p.TTL = ip.Src(), ip.Dst(), ip.HopLimit()
	p.L3, p.L4, p.Proto = EthLen, EthLen+IPv6Len, ip.NextHeader()
	p.FragmentAt, p.Fragment = 0, false
	p.Frame = frame[:p.L4+len(rest)]
	switch p.Proto {
	case ProtoTCP, ProtoUDP, ProtoICMPv6:
	default:
		c := walkExtensions(p.Proto, rest)
		if c.fault != NoFault {
			return c.fault
		}
		if c.frag >= 0 {
			p.FragmentAt = p.L4 + c.frag
		}
		p.Proto, p.Fragment = c.proto, c.part
		p.L4 += c.at
		rest = rest[c.at:]
	}
	if !fit6(p.Src, p.Dst, p.Proto, own) {
		return FaultAddress
	}
	if p.Fragment {
		p.SrcPort, p.DstPort, p.TCPFlags, p.Payload = 0, 0, 0, p.L4
		return NoFault
	}
	return p.decodeL4(rest)
}

// HeadersWhole says of a first fragment of IPv6 that it has all headers of its datagram, as it must (RFC 8200 section 4.5,
// RFC 7112): the fixed part of the L4 header too, and no other fragment header, nor a hop-by-hop header out of its place.
func (p *Packet) HeadersWhole() bool {
	c := walkExtensions(p.Proto, p.L4Bytes())
	if c.fault != NoFault || c.frag >= 0 || p.Proto == extHopByHop {
		return false
	}
	n := len(p.L4Bytes()) - c.at
	switch c.proto {
	case ProtoTCP:
		return n >= TCPLen
	case ProtoUDP:
		return n >= UDPLen
	case ProtoICMPv6:
		return n >= ICMPLen
	case ProtoSCTP:
		return n >= SCTPLen
	case extNone:
		return true
	}
	return n > 0
}

// fit6 says that an IPv6 packet may bear these addresses on a wire: no group, loopback or IPv4-mapped address as source
// (RFC 4291 section 2.5.3, 2.7), the unspecified one only in neighbour discovery, and nothing for loopback. own says that it
// never was on a wire, and loopback addresses are as good as others.
func fit6(src, dst Addr, proto uint8, own bool) bool {
	switch {
	case src.IsMulticast6(), src.hi == 0 && src.lo>>32 == 0xffff, dst.hi == 0 && (dst.lo == 0 || dst.lo>>32 == 0xffff):
		return false
	case (src.IsLoopback() || dst.IsLoopback()) && !own:
		return false
	}
	return !src.IsZero() || proto == ProtoICMPv6
}

// decodeQuoted6 is DecodeQuoted for IPv6.
func decodeQuoted6(b []byte, q *Packet) bool {
	if len(b) < IPv6Len {
		return false
	}
	ip := (*IPv6)(b)
	rest := b[IPv6Len:]
	rest = rest[:min(len(rest), ip.PayloadLen())]
	c := walkExtensions(ip.NextHeader(), rest)
	q.Src, q.Dst, q.Proto = ip.Src(), ip.Dst(), c.proto
	if c.fault != NoFault || !fit6(q.Src, q.Dst, q.Proto, true) { // an IPv4-mapped address would make an IPv4 packet of it
		return false
	}
	q.Frame = b
	q.L3, q.L4 = 0, IPv6Len+c.at
	q.Payload, q.FragmentAt = q.L4, 0
	q.TTL, q.TCPFlags, q.Fragment = ip.HopLimit(), 0, c.part
	q.SrcPort, q.DstPort = 0, 0
	if c.frag >= 0 {
		q.FragmentAt = IPv6Len + c.frag
		if c.part && (*Fragment)(rest[c.frag:]).Offset() != 0 {
			return false
		}
	}
	return q.quotedPorts()
}

// decodeQuotedIP6 is DecodeQuotedIP for IPv6.
func decodeQuotedIP6(b []byte) (proto uint8, dst Addr, payload []byte, ok bool) {
	if len(b) < IPv6Len {
		return 0, dst, nil, false
	}
	ip, rest := (*IPv6)(b), b[IPv6Len:]
	c := walkExtensions(ip.NextHeader(), rest)
	if c.fault != NoFault || c.part && (*Fragment)(rest[c.frag:]).Offset() != 0 {
		return 0, dst, nil, false
	}
	return c.proto, ip.Dst(), rest[c.at:], true
}
