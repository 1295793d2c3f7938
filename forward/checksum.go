package forward

import (
	"encoding/binary"

	"uvs/packet"
)

// CompleteChecksum finishes, in place, the checksum that the device was to complete, and clears NEEDS_CSUM. frame starts
// at the Ethernet header. Where it starts and where it lies is the virtio-net header's word; one that points outside the
// frame is ignored and its flag cleared. It must not be called for a super-frame that stays one.
func CompleteChecksum(frame []byte, v *packet.Vnet) {
	if !v.NeedsCsum() {
		return
	}
	v.SetFlags(v.Flags() &^ packet.VnetNeedsCsum)
	start, at := v.CsumStart(), v.CsumStart()+v.CsumOffset()
	end := frameEnd(frame)
	if at+2 > end {
		return
	}
	b := frame[start:end]
	if isSCTP(frame, start, v.CsumOffset()) && len(b) >= 12 {
		binary.LittleEndian.PutUint32(b[8:12], sctpCRC(b))
		return
	}
	// The field holds the pseudo-header's sum, so the sum over everything includes it.
	c := ^packet.Fold(packet.Sum(b, 0))
	if v.CsumOffset() == 6 {
		c = notZero(c) // UDP
	}
	binary.BigEndian.PutUint16(frame[at:], c)
}

// frameEnd is the offset in frame behind the IP datagram, where Ethernet's padding begins.
func frameEnd(frame []byte) int {
	eth, b, ok := packet.ParseEth(frame)
	if !ok || eth.Type() != packet.EtherIPv4 {
		return len(frame)
	}
	if _, l4, ok := packet.ParseIPv4(b); ok {
		return packet.EthLen + (*packet.IPv4)(b).HeaderLen() + len(l4)
	}
	return len(frame)
}

// isSCTP says that the checksum left to the device is SCTP's CRC32c: the offset of its field is 8, as no other's is.
func isSCTP(frame []byte, start, offset int) bool {
	return offset == 8 && start >= packet.EthLen+packet.IPv4Len && frame[packet.EthLen+9] == packet.ProtoSCTP
}

// ChecksumOK says that the L4 checksum of p is right, as far as can be known: it is taken as right if the device has
// verified it or is still to complete it, if UDP has none, and in fragments and other protocols. IPVS forwards a packet
// with a wrong one, but nobody answers it or believes an ICMP error that has one.
func ChecksumOK(p *packet.Packet, v *packet.Vnet) bool {
	if p.Fragment || partial(p, v) || v.Flags()&packet.VnetDataValid != 0 {
		return true
	}
	b := p.Frame[p.L4:]
	switch p.Proto {
	case packet.ProtoICMP:
		return packet.Fold(packet.Sum(b, 0)) == 0xffff
	case packet.ProtoUDP:
		if p.UDP().Checksum() == 0 {
			return true
		}
		b = b[:p.UDP().Len()]
	case packet.ProtoTCP:
	case packet.ProtoSCTP:
		return binary.LittleEndian.Uint32(b[8:12]) == sctpCRC(b)
	default:
		return true
	}
	return packet.Fold(packet.Sum(b, packet.Pseudo4(p.Src.V4(), p.Dst.V4(), p.Proto, len(b)))) == 0xffff
}
