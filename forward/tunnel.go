package forward

import (
	"uvs/packet"
)

// Encapsulation is a way to put one packet into another.
type Encapsulation uint8

// The encapsulations; the values are the kernel's (IP_VS_CONN_F_TUNNEL_TYPE_*).
const (
	IPIP Encapsulation = iota // IP in IP (RFC 2003, RFC 2473, RFC 4213)
	GUE                       // generic UDP encapsulation, variant 0
	GRE                       // generic routing encapsulation (RFC 2784)
)

// MaxTunnelLen is the length in bytes of the longest headers that a Tunnel puts in front of a packet.
const MaxTunnelLen = packet.IPv6Len + packet.UDPLen + packet.GUELen + packet.GUERemoteLen

// Tunnel is the way to a real server through encapsulation. Outer and inner packet may each be of either family.
type Tunnel struct {
	Kind Encapsulation
	// Src is the director's address and Dst the real server's, of the outer header. Both are of one family.
	Src, Dst packet.Addr
	// Checksum protects the whole packet by a checksum in the GRE header or in GUE's UDP header.
	Checksum bool
	// RemoteChecksum leaves an inner checksum that was left to the device to the real server, who is told where it lies.
	// The one of GUE's UDP header is needed for that.
	RemoteChecksum bool
	// Port is the UDP port that the real server takes GUE at.
	Port uint16
	// PMTUDisc copies the inner DF bit to the outer header (IPVS's pmtu_disc, on by default); else outer packets
	// never have it and may be fragmented on their way.
	PMTUDisc bool
}

// HeadLen is the length in bytes of the headers that the tunnel puts in front of p.
func (t *Tunnel) HeadLen(p *packet.Packet, v *packet.Vnet) int {
	if t.Kind == IPIP {
		return t.ipLen()
	}
	return t.ipLen() + t.shimLen(p, v)
}

// shimLen is the length in bytes of what stands between the two IP headers.
func (t *Tunnel) shimLen(p *packet.Packet, v *packet.Vnet) int {
	switch {
	case t.Kind == GRE && t.Checksum:
		return packet.GRELen + packet.GREChecksumLen
	case t.Kind == GRE:
		return packet.GRELen
	case t.leavesChecksum(p, v):
		return packet.UDPLen + packet.GUELen + packet.GUERemoteLen
	}
	return packet.UDPLen + packet.GUELen
}

func (t *Tunnel) ipLen() int {
	if t.Dst.Is4() {
		return packet.IPv4Len
	}
	return packet.IPv6Len
}

// leavesChecksum says that the checksum of p is the real server's to complete.
func (t *Tunnel) leavesChecksum(p *packet.Packet, v *packet.Vnet) bool {
	return t.Kind == GUE && t.RemoteChecksum && leftUndone(p, v)
}

// leftUndone says that p is TCP or UDP and its checksum left to the device.
func leftUndone(p *packet.Packet, v *packet.Vnet) bool {
	return partial(p, v) && !p.Fragment && v.CsumOffset() == checksumOffset(p.Proto)
}

// checksumOffset is where TCP and UDP have their checksum, -1 for others.
func checksumOffset(proto uint8) int {
	switch proto {
	case packet.ProtoTCP:
		return tcpChecksumAt
	case packet.ProtoUDP:
		return udpChecksumAt
	}
	return -1
}

// Wrap puts the tunnel's headers in front of p, whose TTL has been decremented, and returns the frame in two parts: head,
// written to buf, which needs FrameHead+MaxTunnelLen bytes and begins with p's Ethernet header, and body, p's own IP packet.
// A checksum that was left to the device is completed first, unless the real server is to do it: nobody else would after the
// encapsulation. A super-frame cannot be wrapped: Segment cuts it first.
func (t *Tunnel) Wrap(buf []byte, p *packet.Packet, v *packet.Vnet) (head, body []byte) {
	head, body = buf[:FrameHead+t.HeadLen(p, v)], p.Frame[p.L3:]
	clear(head[:packet.VnetLen])
	copy(head[packet.VnetLen:FrameHead], p.Frame)
	if t.Kind == IPIP {
		CompleteChecksum(p.Frame, v)
		t.putIP(head[packet.VnetLen:], body, 0, len(head)-FrameHead+len(body))
		return head, body
	}
	t.wrap(head, body, p, v)
	return head, body
}

// wrap is Wrap for what has more than an IP header to write: apart, so that IP-in-IP needn't clear a load on the stack.
func (t *Tunnel) wrap(head, body []byte, p *packet.Packet, v *packet.Vnet) {
	in := load{packet: p, head: body}
	if v.NeedsCsum() {
		switch {
		case t.leavesChecksum(p, v):
			in.remote = true
			v.SetFlags(v.Flags() &^ packet.VnetNeedsCsum)
		case leftUndone(p, v):
			// Complete, it makes its packet's bytes sum up to the complement of what the field holds now.
			in.summed, in.sum = true, uint64(^packet.Word(p.Frame[p.L4+v.CsumOffset():]))
		}
		CompleteChecksum(p.Frame, v)
	}
	t.put(head[packet.VnetLen:], &in)
}

// putSegment writes to frame, from its Ethernet header on, the headers in front of a segment of the super-frame p. Its own
// headers, complete, are in head, and its payload is body.
func (t *Tunnel) putSegment(frame []byte, p *packet.Packet, v *packet.Vnet, head, body []byte) {
	l4 := p.L4 - p.L3
	pseudo := packet.Fold(p.Pseudo(p.Proto, len(head)-l4+len(body)))
	in := load{packet: p, head: head, body: body, summed: true, sum: uint64(^pseudo)}
	if in.remote = t.leavesChecksum(p, v); in.remote {
		field := head[l4+checksumOffset(p.Proto):]
		in.sum += uint64(^packet.Word(field)) + uint64(pseudo)
		packet.SetWord(field, pseudo)
	}
	t.put(frame, &in)
}

// load is a packet that a tunnel's headers are written for.
type load struct {
	packet *packet.Packet // it, or the super-frame that it was cut from: its addresses, and where its headers are
	// head are its headers, the IP header first, of an even length if there is a body; body is the rest.
	head, body []byte
	remote     bool // its checksum is the receiver's to complete
	// summed says that sum is that of its L4 header and payload, so that nobody need look at these.
	summed bool
	sum    uint64
}

// addTo adds the sum of the whole inner packet to the unfolded sum s, which is far from its largest.
func (in *load) addTo(s uint64) uint64 {
	if in.summed {
		return packet.Sum(in.head[:in.packet.L4-in.packet.L3], s+in.sum)
	}
	return packet.Sum(in.body, packet.Sum(in.head, s))
}

// put writes to frame, which is as long as Ethernet header and tunnel's headers, all but the Ethernet addresses.
func (t *Tunnel) put(frame []byte, in *load) {
	b := frame[packet.EthLen+t.ipLen():]
	var proto uint8
	switch t.Kind {
	case GRE:
		proto = packet.ProtoGRE
		inner := uint16(packet.EtherIPv6)
		if in.packet.Is4() {
			inner = packet.EtherIPv4
		}
		packet.PutGRE(b, inner, t.Checksum)
		if t.Checksum {
			packet.SetGREChecksum(b, in.addTo(0))
		}
	case GUE:
		proto = packet.ProtoUDP
		t.putGUE(b, in)
	}
	t.putIP(frame, in.head, proto, len(frame)-packet.EthLen+len(in.head)+len(in.body))
}

// putIP writes Ethernet type and outer IP header to frame. inner begins with the inner one, proto is the protocol of what
// follows the outer one, 0 if that is the inner one, and n the length in bytes of the outer packet.
func (t *Tunnel) putIP(frame, inner []byte, proto uint8, n int) {
	var tos, ttl uint8
	df := false
	innerProto := uint8(packet.ProtoIPIP)
	if inner[0]>>4 == 4 {
		ip := (*packet.IPv4)(inner)
		tos, ttl, df = ip.TOS(), ip.TTL(), t.PMTUDisc && ip.DF()
	} else {
		ip := (*packet.IPv6)(inner)
		tos, ttl, innerProto = ip.TrafficClass(), ip.HopLimit(), packet.ProtoIPv6
	}
	if tos&3 == 3 {
		tos ^= 1 // congestion marked before the tunnel is not marked in it (RFC 3168 section 9.1.1)
	}
	if proto == 0 {
		proto = innerProto
	}
	eth := (*packet.Eth)(frame)
	if !t.Dst.Is4() {
		eth.SetType(packet.EtherIPv6)
		packet.PutIPv6(frame[packet.EthLen:], n-packet.IPv6Len, packet.Header6{
			TrafficClass: tos, NextHeader: proto, HopLimit: ttl, Src: t.Src, Dst: t.Dst,
		})
		return
	}
	eth.SetType(packet.EtherIPv4)
	h := packet.Header4{TOS: tos, TTL: ttl, DF: df, Proto: proto, Src: t.Src.V4(), Dst: t.Dst.V4()}
	if !df {
		h.ID = nextID(h.Src, h.Dst, proto)
	}
	packet.PutIPv4(frame[packet.EthLen:], n, h)
}

// putGUE writes UDP and GUE header to b, which ends with them.
func (t *Tunnel) putGUE(b []byte, in *load) {
	p := in.packet
	g := packet.GUE{Proto: packet.ProtoIPIP, Remote: in.remote}
	if !p.Is4() {
		g.Proto = packet.ProtoIPv6
	}
	if in.remote {
		g.Start = p.L4 - p.L3
		g.Field = g.Start + checksumOffset(p.Proto)
	}
	n := len(b) + len(in.head) + len(in.body)
	packet.PutUDP(b, sourcePort(p), t.Port, n)
	packet.PutGUE(b[packet.UDPLen:], g)
	if !t.Checksum && !t.RemoteChecksum {
		return
	}
	pseudo := t.Src.Sum() + t.Dst.Sum() + packet.ProtoUDP + uint64(n)
	(*packet.UDP)(b).SetChecksum(notZero(^packet.Fold(packet.Sum(b, in.addTo(pseudo)))))
}

// sourcePort is GUE's UDP source port, by which routers and network cards spread tunnelled flows: of one flow it is always
// the same, and lies where Linux takes such ports from (ip_local_port_range).
func sourcePort(p *packet.Packet) uint16 {
	const first, count = 32768, 28232
	return first + uint16(mix(mixAddrs(p.Src, p.Dst), idKey[2], uint64(p.Proto)<<32|uint64(p.SrcPort)<<16|uint64(p.DstPort))%count)
}
