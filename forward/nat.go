package forward

import (
	"uvs/packet"
)

// NATIn turns a packet of the client to the virtual service into one to the real server: destination address and port.
// v is the virtio-net header in front of the frame that p was decoded from. Checksums are mended (RFC 1624), so that a
// wrong one stays wrong and the server drops the packet; a UDP datagram without one gets one, as IPVS does in both families,
// though in IPv6 no sender may leave it out (RFC 8200 section 8.1). The TTL is left to the caller. Of a fragment only the
// first has ports to rewrite, and its UDP checksum of 0 stays. server is of p's family.
func NATIn(p *packet.Packet, v *packet.Vnet, server packet.Addr, port uint16) {
	var c change
	if p.Is4() {
		ip := p.IPv4()
		old, new := ip.Dst(), server.V4()
		ip.SetDst(new)
		c.addrs = packet.Difference4(old, new)
	} else {
		p.IPv6().SetDst(server)
		c.addrs = packet.Difference6(p.Dst, server)
	}
	p.Dst = server
	if hasPorts(p) {
		ports := p.Ports()
		c.oldPort, c.newPort = ports.Dst(), port
		right := sctpRight(p, v)
		ports.SetDst(port)
		c.mend(p, v, right)
	}
	p.DstPort = port
}

// NATOut turns a packet of the real server to the client into one from the virtual service: source address and port.
// Everything else is as NATIn has it.
func NATOut(p *packet.Packet, v *packet.Vnet, virtual packet.Addr, port uint16) {
	var c change
	if p.Is4() {
		ip := p.IPv4()
		old, new := ip.Src(), virtual.V4()
		ip.SetSrc(new)
		c.addrs = packet.Difference4(old, new)
	} else {
		p.IPv6().SetSrc(virtual)
		c.addrs = packet.Difference6(p.Src, virtual)
	}
	p.Src = virtual
	if hasPorts(p) {
		ports := p.Ports()
		c.oldPort, c.newPort = ports.Src(), port
		right := sctpRight(p, v)
		ports.SetSrc(port)
		c.mend(p, v, right)
	}
	p.SrcPort = port
}

// hasPorts says that the L4 header is one with ports and all there: it isn't in later fragments, and need not be in a
// first one.
func hasPorts(p *packet.Packet) bool {
	n := len(p.Frame) - p.L4
	if p.Fragment && p.LaterFragment() {
		return false
	}
	switch p.Proto {
	case packet.ProtoTCP:
		return n >= packet.TCPLen
	case packet.ProtoUDP:
		return n >= packet.UDPLen
	case packet.ProtoSCTP:
		return n >= packet.SCTPLen
	}
	return false
}

// change is what NAT did to a packet's addressing.
type change struct {
	addrs            uint64 // what the new address adds to the sum of the pseudo-header
	oldPort, newPort uint16
}

// mend brings p's L4 checksum from the old addressing to the new, which is in place. right is sctpRight's answer from
// before the change.
func (c change) mend(p *packet.Packet, v *packet.Vnet, right bool) {
	switch p.Proto {
	case packet.ProtoTCP:
		h := p.TCP()
		h.SetChecksum(c.update(h.Checksum(), partial(p, v)))
	case packet.ProtoUDP:
		h := p.UDP()
		switch part := partial(p, v); {
		case part:
			h.SetChecksum(c.update(h.Checksum(), true))
		case h.Checksum() != 0:
			h.SetChecksum(notZero(c.update(h.Checksum(), false)))
		case !p.Fragment:
			h.SetChecksum(udpChecksum(p))
		}
	case packet.ProtoSCTP:
		if right && (c.oldPort != c.newPort || partial(p, v)) {
			p.SCTP().SetChecksum(packet.CRC32c(p.L4Bytes()))
		}
		if partial(p, v) { // what goes out cannot tell the device to compute a CRC
			v.SetFlags(v.Flags() &^ packet.VnetNeedsCsum)
		}
	}
}

// update is the checksum sum after the change. In a partial one only the pseudo-header's part is ours: the device adds
// the ports when it completes it.
func (c change) update(sum uint16, partial bool) uint16 {
	if partial {
		return packet.UpdatePartial(sum, c.addrs)
	}
	return packet.UpdatePort(sum, c.addrs, c.oldPort, c.newPort)
}

// sctpRight says that p is an SCTP packet whose checksum is right, or still owed. Over a wrong one no new one is
// computed: IPVS does so and hides the damage. Always false for other protocols.
func sctpRight(p *packet.Packet, v *packet.Vnet) bool {
	if p.Proto != packet.ProtoSCTP || p.Fragment {
		return false
	}
	return partial(p, v) || p.SCTP().Checksum() == packet.CRC32c(p.L4Bytes())
}

// udpChecksum is the checksum of the UDP datagram in p, whose checksum field is 0.
func udpChecksum(p *packet.Packet) uint16 {
	n := p.UDP().Len()
	b := p.Frame[p.L4 : p.L4+n]
	return notZero(^packet.Fold(packet.Sum(b, p.Pseudo(packet.ProtoUDP, n))))
}

// notZero gives a computed UDP checksum of 0 its other form, since 0 says that there is none (RFC 768).
func notZero(c uint16) uint16 {
	if c == 0 {
		return 0xffff
	}
	return c
}
