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
	var d uint64
	if server.Is4() {
		ip := p.IPv4()
		d = packet.Difference4(ip.Dst(), server.V4())
		ip.SetDst(server.V4())
	} else {
		d = packet.Difference6(p.Dst, server)
		p.IPv6().SetDst(server)
	}
	p.Dst = server
	translate(p, v, destination, port, d)
	p.DstPort = port
}

// NATOut turns a packet of the real server to the client into one from the virtual service: source address and port.
// Everything else is as NATIn has it.
func NATOut(p *packet.Packet, v *packet.Vnet, virtual packet.Addr, port uint16) {
	var d uint64
	if virtual.Is4() {
		ip := p.IPv4()
		d = packet.Difference4(ip.Src(), virtual.V4())
		ip.SetSrc(virtual.V4())
	} else {
		d = packet.Difference6(p.Src, virtual)
		p.IPv6().SetSrc(virtual)
	}
	p.Src = virtual
	translate(p, v, source, port, d)
	p.SrcPort = port
}

// end is one of a packet's two.
type end bool

const (
	source      end = true
	destination end = false
)

// set replaces the port at that end and returns what it was.
func (e end) set(h *packet.Ports, port uint16) (old uint16) {
	if e == source {
		old = h.Src()
		h.SetSrc(port)
		return old
	}
	old = h.Dst()
	h.SetDst(port)
	return old
}

// translate replaces a port of p and mends the L4 checksum for it and for an address of the pseudo-header, which changed
// by d already. A packet without ports stays: later fragments, other protocols, a first fragment that is too short.
func translate(p *packet.Packet, v *packet.Vnet, e end, port uint16, d uint64) {
	if p.Fragment && p.LaterFragment() {
		return
	}
	switch n := len(p.Frame) - p.L4; {
	case p.Proto == packet.ProtoTCP && n >= packet.TCPLen:
		old, h := e.set(p.Ports(), port), p.TCP()
		if partial(p, v) { // only the pseudo-header's part is ours: the device adds the ports when it completes it
			h.SetChecksum(packet.UpdatePartial(h.Checksum(), d))
		} else {
			h.SetChecksum(packet.UpdatePort(h.Checksum(), d, old, port))
		}
	case p.Proto == packet.ProtoUDP && n >= packet.UDPLen:
		old, h := e.set(p.Ports(), port), p.UDP()
		switch c := h.Checksum(); {
		case partial(p, v):
			h.SetChecksum(packet.UpdatePartial(c, d))
		case c != 0:
			h.SetChecksum(notZero(packet.UpdatePort(c, d, old, port)))
		case !p.Fragment:
			h.SetChecksum(udpChecksum(p))
		}
	case p.Proto == packet.ProtoSCTP && n >= packet.SCTPLen:
		translateSCTP(p, v, e, port)
	}
}

// translateSCTP replaces a port of SCTP, whose checksum knows no pseudo-header. Over a wrong one no new one is computed:
// IPVS does so and hides the damage.
func translateSCTP(p *packet.Packet, v *packet.Vnet, e end, port uint16) {
	h, owed := p.SCTP(), partial(p, v)
	right := !p.Fragment && (owed || h.Checksum() == packet.CRC32c(p.L4Bytes()))
	old := e.set(p.Ports(), port)
	if right && (owed || old != port) {
		h.SetChecksum(packet.CRC32c(p.L4Bytes()))
	}
	if owed { // what goes out cannot tell the device to compute a CRC
		v.SetFlags(v.Flags() &^ packet.VnetNeedsCsum)
	}
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
