package forward

import (
	"encoding/binary"
	"hash/crc32"

	"uvs/packet"
)

// NATIn turns a packet of the client to the virtual service into one to the real server: destination address and port.
// v is the virtio-net header in front of the frame that p was decoded from. Checksums are mended (RFC 1624), so that a
// wrong one stays wrong and the server drops the packet; a UDP datagram without one gets one, as IPVS does. The TTL is
// left to the caller. Of a fragment only the first has ports to rewrite, and a UDP checksum of 0 stays.
func NATIn(p *packet.Packet, v *packet.Vnet, server packet.Addr, port uint16) {
	ip := p.IPv4()
	old := ip.Dst()
	ip.SetDst(server.V4())
	natL4(p, v, old, server.V4(), p.L4+2, port)
	p.Dst, p.DstPort = server, port
}

// NATOut turns a packet of the real server to the client into one from the virtual service: source address and port.
// Everything else is as NATIn has it.
func NATOut(p *packet.Packet, v *packet.Vnet, virtual packet.Addr, port uint16) {
	ip := p.IPv4()
	old := ip.Src()
	ip.SetSrc(virtual.V4())
	natL4(p, v, old, virtual.V4(), p.L4, port)
	p.Src, p.SrcPort = virtual, port
}

// natL4 writes port at the offset portAt of the frame and mends the L4 checksum for it and for the address that has
// become new.
func natL4(p *packet.Packet, v *packet.Vnet, old, new uint32, portAt int, port uint16) {
	b := p.Frame[p.L4:]
	var field []byte
	switch p.Proto {
	case packet.ProtoTCP:
		if !hasPorts(p, 18) {
			return
		}
		field = b[16:18]
	case packet.ProtoUDP:
		if !hasPorts(p, packet.UDPLen) {
			return
		}
		field = b[6:8]
	case packet.ProtoSCTP:
		if hasPorts(p, 12) {
			natSCTP(p, v, portAt, port)
		}
		return
	default:
		return
	}
	oldPort := binary.BigEndian.Uint16(p.Frame[portAt:])
	binary.BigEndian.PutUint16(p.Frame[portAt:], port)
	sum := binary.BigEndian.Uint16(field)
	switch {
	case partial(p, v):
		// The device adds the ports when it completes the sum; only the pseudo-header's part is ours.
		sum = packet.UpdatePartial32(sum, old, new)
	case p.Proto == packet.ProtoTCP:
		sum = packet.Update48(sum, old, new, oldPort, port)
	case sum != 0:
		sum = notZero(packet.Update48(sum, old, new, oldPort, port))
	case !p.Fragment:
		sum = udpChecksum(p)
	}
	binary.BigEndian.PutUint16(field, sum)
}

// hasPorts says that n bytes of the L4 header are there: not so in later fragments, nor in a first one that is cut in
// the header.
func hasPorts(p *packet.Packet, n int) bool {
	return len(p.Frame)-p.L4 >= n && (!p.Fragment || p.IPv4().FragOffset() == 0)
}

// udpChecksum is the checksum of the UDP datagram in p as it now stands, its checksum field taken as 0.
func udpChecksum(p *packet.Packet) uint16 {
	ip, u := p.IPv4(), p.UDP()
	b := p.Frame[p.L4 : p.L4+u.Len()]
	s := packet.Pseudo4(ip.Src(), ip.Dst(), packet.ProtoUDP, len(b)) + uint64(^u.Checksum())
	return notZero(^packet.Fold(packet.Sum(b, s)))
}

// notZero gives a computed UDP checksum of 0 its other form, since 0 says that there is none (RFC 768).
func notZero(c uint16) uint16 {
	if c == 0 {
		return 0xffff
	}
	return c
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// natSCTP rewrites a port. The CRC covers no address. A wrong CRC is left as it is, and so wrong; IPVS would hide the
// damage under a new one. A CRC left to the device is computed here, since the virtio-net header that goes out cannot
// say anything but 16-bit sums.
func natSCTP(p *packet.Packet, v *packet.Vnet, portAt int, port uint16) {
	b := p.Frame[p.L4:]
	owed := partial(p, v)
	if binary.BigEndian.Uint16(p.Frame[portAt:]) == port && !owed {
		return
	}
	right := owed || !p.Fragment && binary.LittleEndian.Uint32(b[8:12]) == sctpCRC(b)
	binary.BigEndian.PutUint16(p.Frame[portAt:], port)
	if right {
		binary.LittleEndian.PutUint32(b[8:12], sctpCRC(b))
	}
	if owed {
		v.SetFlags(v.Flags() &^ packet.VnetNeedsCsum)
	}
}

// sctpCRC is the CRC32c of the SCTP packet b, its checksum field taken as 0 (RFC 9260 section 6.8).
func sctpCRC(b []byte) uint32 {
	var zero [4]byte
	c := crc32.Update(0, castagnoli, b[:8])
	c = crc32.Update(c, castagnoli, zero[:])
	return crc32.Update(c, castagnoli, b[12:])
}
