package replay

import (
	"encoding/binary"

	"uvs/packet"
)

// Link types (LINKTYPE_*) that can be read.
const (
	linkNull     = 0 // a family of the writing machine's
	linkEthernet = 1
	linkRaw      = 101
	linkLoop     = 108
	linkSLL      = 113 // Linux's cooked capture, of "any" interface
	linkIPv4     = 228
	linkIPv6     = 229
	linkSLL2     = 276
)

// linkRawBSD are what some systems write instead of linkRaw.
var linkRawBSD = [...]uint32{12, 14}

// skipped is why a packet says nothing about connections.
type skipped uint8

const (
	kept skipped = iota
	skipLink
	skipNotIP
	skipCut
	skipMalformed
	skipFragment
	skipProtocol
	numSkips
)

// skipNames are the reasons in words.
var skipNames = [numSkips]string{
	skipLink: "of a link type that can't be read", skipNotIP: "not IP", skipCut: "cut too short by the capture", skipMalformed: "malformed",
	skipFragment: "fragments", skipProtocol: "neither TCP, UDP nor SCTP",
}

// decoder reads captured packets by the packet path's own decoder. That wants whole frames: what the capture cut off is filled
// up by whatever the buffer held, which nobody looks at.
type decoder struct {
	pkt packet.Packet
	buf [packet.EthLen + 40 + 0xffff]byte
}

// decode reads one packet into d.pkt.
func (d *decoder) decode(r *record) skipped {
	b, kind, why := network(r)
	if why != kept {
		return why
	}
	total := 0
	switch {
	case kind == packet.EtherIPv4 && len(b) >= packet.IPv4Len:
		total = int(binary.BigEndian.Uint16(b[2:]))
	case kind == packet.EtherIPv6 && len(b) >= packet.IPv6Len:
		total = packet.IPv6Len + int(binary.BigEndian.Uint16(b[4:]))
	case kind == packet.EtherIPv4 || kind == packet.EtherIPv6:
		return skipCut
	default:
		return skipNotIP
	}
	n := copy(d.buf[packet.EthLen:], b[:min(len(b), total)])
	(*packet.Eth)(d.buf[:packet.EthLen]).SetType(kind)
	p := &d.pkt
	switch fault := packet.DecodeOwn(d.buf[:packet.EthLen+total], p); {
	case fault != packet.NoFault && n < min(total, enoughForIPv6):
		return skipCut // it may be the missing part that makes no sense
	case fault != packet.NoFault:
		return skipMalformed
	case p.Fragment:
		return skipFragment
	}
	var need int
	switch p.Proto {
	case packet.ProtoTCP:
		need = 14 // ports and flags
	case packet.ProtoUDP:
		need = packet.UDPLen
	case packet.ProtoSCTP:
		need = packet.SCTPLen + 4
	default:
		return skipProtocol
	}
	if n < p.L4-packet.EthLen+need {
		return skipCut
	}
	return kept
}

// enoughForIPv6 is a length within which headers nearly always end.
const enoughForIPv6 = 128

// network is the IP packet of a captured frame, and its type as of Ethernet.
func network(r *record) (b []byte, kind uint16, why skipped) {
	b = r.data
	link := r.link
	for _, raw := range linkRawBSD {
		if link == raw {
			link = linkRaw
		}
	}
	switch {
	case link == linkEthernet && len(b) >= packet.EthLen:
		kind, b = binary.BigEndian.Uint16(b[12:]), b[packet.EthLen:]
	case link == linkSLL && len(b) >= 16:
		kind, b = binary.BigEndian.Uint16(b[14:]), b[16:]
	case link == linkSLL2 && len(b) >= 20:
		kind, b = binary.BigEndian.Uint16(b), b[20:]
	case (link == linkNull || link == linkLoop) && len(b) >= 4:
		return version(b[4:])
	case link == linkRaw || link == linkIPv4 || link == linkIPv6:
		return version(b)
	case link == linkEthernet || link == linkSLL || link == linkSLL2 || link == linkNull || link == linkLoop:
		return nil, 0, skipCut
	default:
		return nil, 0, skipLink
	}
	for (kind == packet.EtherVLAN || kind == packet.EtherQinQ || kind == 0x9100) && len(b) >= 4 {
		kind, b = binary.BigEndian.Uint16(b[2:]), b[4:]
	}
	return b, kind, kept
}

// version tells the kind of a bare IP packet by its first bits.
func version(b []byte) ([]byte, uint16, skipped) {
	switch {
	case len(b) == 0:
		return nil, 0, skipCut
	case b[0]>>4 == 4:
		return b, packet.EtherIPv4, kept
	case b[0]>>4 == 6:
		return b, packet.EtherIPv6, kept
	}
	return nil, 0, skipNotIP
}
