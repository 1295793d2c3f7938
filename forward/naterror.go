package forward

import (
	"uvs/packet"
)

// NATErrorIn turns an ICMP error that the client or a router on its side sent about a packet of the virtual service
// into one about the packet that the real server sent: p's destination becomes the server, and in the quoted packet q
// the source (virtual address and port) becomes server and port. q is what packet.DecodeQuoted made of the bytes behind
// p's ICMP header, of p's family as server is. The quoted L4 checksum is left alone, as IPVS does: it is often cut off or
// was never complete. The TTL is left to the caller.
func NATErrorIn(p *packet.Packet, v *packet.Vnet, q *packet.Packet, server packet.Addr, port uint16) {
	old := quoteSum(q)
	var addrs uint64
	if p.Is4() {
		p.IPv4().SetDst(server.V4())
		q.IPv4().SetSrc(server.V4())
	} else {
		addrs = packet.Difference6(p.Dst, server)
		p.IPv6().SetDst(server)
		q.IPv6().SetSrc(server)
	}
	p.Dst = server
	q.Ports().SetSrc(port)
	q.Src, q.SrcPort = server, port
	mendICMP(p, v, q, addrs, old)
}

// NATErrorOut turns an ICMP error that the real server or a router on its side sent about a packet of the client into
// one about the packet that the client sent: p's source becomes the virtual address, whoever sent it, and in the quoted
// packet q the destination (server and port) becomes virtual and vport. Everything else is as NATErrorIn has it.
func NATErrorOut(p *packet.Packet, v *packet.Vnet, q *packet.Packet, virtual packet.Addr, vport uint16) {
	old := quoteSum(q)
	var addrs uint64
	if p.Is4() {
		p.IPv4().SetSrc(virtual.V4())
		q.IPv4().SetDst(virtual.V4())
	} else {
		addrs = packet.Difference6(p.Src, virtual)
		p.IPv6().SetSrc(virtual)
		q.IPv6().SetDst(virtual)
	}
	p.Src = virtual
	q.Ports().SetDst(vport)
	q.Dst, q.DstPort = virtual, vport
	mendICMP(p, v, q, addrs, old)
}

// QuoteUntranslated brings the UDP checksum in q, which p quotes, back from the real server's addressing to that of the
// virtual service, which NATErrorOut doesn't. It must come before that. IPVS quotes what the client sent unless it was
// translated, and then with the checksum of the translation.
func QuoteUntranslated(p *packet.Packet, v *packet.Vnet, q *packet.Packet, virtual packet.Addr, vport uint16) {
	if q.Proto != packet.ProtoUDP || len(q.Frame) < q.L4+packet.UDPLen || q.UDP().Checksum() == 0 {
		return
	}
	addrs := packet.Difference4(q.Dst.V4(), virtual.V4())
	if !q.Is4() {
		addrs = packet.Difference6(q.Dst, virtual)
	}
	h := q.UDP()
	old := h.Checksum()
	h.SetChecksum(notZero(packet.UpdatePort(old, addrs, q.DstPort, vport)))
	if !partial(p, v) {
		p.ICMP().SetChecksum(packet.Update16(p.ICMP().Checksum(), old, h.Checksum()))
	}
}

// quoteSum is the sum of the quoted bytes that a translation changes: the IP header, what extends it, and the ports.
func quoteSum(q *packet.Packet) uint64 { return packet.Sum(q.Frame[:q.L4+4], 0) }

// mendICMP computes the quoted IPv4 header's checksum, which a router may have left stale and IPVS sets right, then brings
// p's ICMP checksum from the quoted bytes' old sum to what they are now. ICMPv6's covers a pseudo-header too, the addresses
// in which changed by addrs; ICMP's has none.
func mendICMP(p *packet.Packet, v *packet.Vnet, q *packet.Packet, addrs, old uint64) {
	if p.Is4() {
		packet.FixIPv4Checksum(q.Frame)
	}
	h := p.ICMP()
	if partial(p, v) { // the device sums the message; ICMPv6's pseudo-header is summed in the field already
		if !p.Is4() {
			h.SetChecksum(packet.UpdatePartial(h.Checksum(), addrs))
		}
		return
	}
	c := packet.UpdateSum(h.Checksum(), old, quoteSum(q))
	if !p.Is4() {
		c = packet.UpdateDifference(c, addrs)
	}
	h.SetChecksum(c)
}
