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
	udpChecksumAt  = 6
	sctpChecksumAt = 8
)

// isSCTP says that the IPv4 packet in frame is SCTP's, starting at start.
func isSCTP(frame []byte, start int) bool {
	_, b, ok := packet.ParseEth(frame)
	if !ok || len(b) < packet.IPv4Len {
		return false
	}
	ip := (*packet.IPv4)(b)
	return ip.Proto() == packet.ProtoSCTP && start == packet.EthLen+ip.HeaderLen()
}

// ChecksumOK says that the L4 checksum of p is right, as far as can be known: it is taken as right if the device has
// verified it or is still to complete it, if UDP has none, and in fragments and other protocols. IPVS forwards a packet
// with a wrong one, but nobody answers it or believes an ICMP error that has one.
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
	case packet.ProtoTCP:
	case packet.ProtoUDP:
		if p.UDP().Checksum() == 0 {
			return true
		}
		b = b[:p.UDP().Len()]
	default:
		return true
	}
	ip := p.IPv4()
	return packet.Fold(packet.Sum(b, packet.Pseudo4(ip.Src(), ip.Dst(), p.Proto, len(b)))) == 0xffff
}
