package forward

import (
	"uvs/packet"
)

// CompleteChecksum finishes, in place, the checksum that the device was to complete, and clears NEEDS_CSUM. frame starts
// at the Ethernet header; p.Frame will do, padding must not follow. Where it starts and where it lies is the virtio-net
// header's word; if that points outside the frame nothing but the flag changes. It must not be called for a super-frame
// that stays one.
func CompleteChecksum(frame []byte, v *packet.Vnet) {
	if !v.NeedsCsum() {
		return
	}
	v.SetFlags(v.Flags() &^ packet.VnetNeedsCsum)
	start, offset := v.CsumStart(), v.CsumOffset()
	if start+offset+2 > len(frame) {
		return
	}
	b := frame[start:]
	switch {
	case offset == sctpChecksumAt && isSCTP(frame, start) && len(b) >= packet.SCTPLen:
		(*packet.SCTP)(b).SetChecksum(packet.CRC32c(b))
	default:
		// The field holds the pseudo-header's sum, so the sum over everything includes it.
		c := ^packet.Fold(packet.Sum(b, 0))
		if offset == udpChecksumAt {
			c = notZero(c)
		}
		packet.SetWord(b[offset:], c)
	}
}

// Where the checksum fields lie in their headers, which tells protocols apart.
const (
	tcpChecksumAt  = 16
	udpChecksumAt  = 6
	sctpChecksumAt = 8
)

// isSCTP says that the IP packet in frame is SCTP's, starting at start.
func isSCTP(frame []byte, start int) bool {
	var p packet.Packet
	return packet.Decode(frame, &p) == packet.NoFault && p.Proto == packet.ProtoSCTP && p.L4 == start
}

// ChecksumOK says that the L4 checksum of p is right, as far as can be known: it is taken as right if the device has
// verified it or is still to complete it, if UDP over IPv4 has none, and in fragments and other protocols. UDP over IPv6
// without one is wrong (RFC 8200 section 8.1). IPVS forwards a packet with a wrong one, but nobody answers it or believes an
// ICMP error that has one.
func ChecksumOK(p *packet.Packet, v *packet.Vnet) bool {
	if p.Fragment || partial(p, v) || v.Flags()&packet.VnetDataValid != 0 {
		return true
	}
	b := p.L4Bytes()
	switch p.Proto {
	case packet.ProtoICMP:
		return packet.Fold(packet.Sum(b, 0)) == 0xffff
	case packet.ProtoSCTP:
		return p.SCTP().Checksum() == packet.CRC32c(b)
	case packet.ProtoTCP, packet.ProtoICMPv6:
	case packet.ProtoUDP:
		if p.UDP().Checksum() == 0 {
			return p.Is4()
		}
		b = b[:p.UDP().Len()]
	default:
		return true
	}
	return packet.Fold(packet.Sum(b, p.Pseudo(p.Proto, len(b)))) == 0xffff
}
