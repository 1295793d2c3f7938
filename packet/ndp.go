package packet

import "encoding/binary"

// The well-known groups and the unit of options of neighbour discovery (RFC 4861) and listener discovery (RFC 3810).
var (
	AllNodes   = Addr{0xff02 << 48, 1}    // ff02::1
	AllRouters = Addr{0xff02 << 48, 2}    // ff02::2
	MLDRouters = Addr{0xff02 << 48, 0x16} // ff02::16, where reports of version 2 go
)

// Flags of a neighbour advertisement (RFC 4861 section 4.4).
const (
	NDPRouter    = 0x80 // the target is a router
	NDPSolicited = 0x40 // it answers a solicitation
	NDPOverride  = 0x20 // it replaces a MAC address known
)

// Options (RFC 4861 section 4.6).
const (
	ndpSourceMAC = 1
	ndpTargetMAC = 2
)

const (
	// NDPLen is the length in bytes of a solicitation or advertisement without options.
	NDPLen = 24
	// NDPMACLen is the length in bytes of the option that bears an Ethernet address.
	NDPMACLen = 8

	ndpHopLimit = 255 // no router has passed it on: it is from this segment
)

// NDP is what a neighbour solicitation or advertisement says (RFC 4861 sections 4.3 and 4.4).
type NDP struct {
	Type     uint8 // ICMP6NeighbourSolicit or ICMP6NeighbourAdvert
	Flags    uint8 // of an advertisement: NDPRouter, NDPSolicited, NDPOverride
	Src, Dst Addr  // of the packet; no Src in a solicitation asks whether anybody has the target (RFC 4862 section 5.4)
	Target   Addr
	// MAC is the address that the option bears: the sender's in a solicitation, the target's in an advertisement. It is all
	// zero where the option is missing.
	MAC MAC
}

// Of returns the station that n tells of and where it is: who asks, or who is announced. ok is false if it tells of none.
func (n *NDP) Of() (a Addr, mac MAC, ok bool) {
	if a = n.Src; n.Type == ICMP6NeighbourAdvert {
		a = n.Target
	}
	return a, n.MAC, !a.IsZero() && n.MAC != MAC{}
}

// IsNeighbourDiscovery says that p is of neighbour or listener discovery, whether or not it is a valid message: segments'
// own affairs, which no router passes on.
func (p *Packet) IsNeighbourDiscovery() bool {
	if p.Proto != ProtoICMPv6 || p.Fragment || p.Is4() {
		return false
	}
	switch t := p.ICMP().Type(); {
	case t >= ICMP6ListenerQuery && t <= ICMP6Redirect, t == ICMP6ListenerReport2:
		return true
	}
	return false
}

// ParseNDP reads a neighbour solicitation or advertisement into n. ok is false if p is neither, or not a valid one (RFC
// 4861 sections 7.1.1 and 7.1.2, RFC 6980), or bears a MAC address that no station can have: such a one is ignored.
func ParseNDP(p *Packet, n *NDP) (ok bool) {
	b := p.L4Bytes()
	if !p.IsNeighbourDiscovery() || p.TTL != ndpHopLimit || p.FragmentAt != 0 || len(b) < NDPLen || b[1] != 0 {
		return false
	}
	*n = NDP{Type: b[0], Src: p.Src, Dst: p.Dst, Target: AddrFrom16((*[16]byte)(b[8:24]))}
	var option uint8
	switch n.Type {
	case ICMP6NeighbourSolicit:
		option = ndpSourceMAC
		if n.Src.IsZero() && n.Dst != SolicitedNode(n.Dst) {
			return false
		}
	case ICMP6NeighbourAdvert:
		option = ndpTargetMAC
		n.Flags = b[4] & (NDPRouter | NDPSolicited | NDPOverride)
		if n.Dst.hi>>56 == 0xff && n.Flags&NDPSolicited != 0 {
			return false
		}
	default:
		return false
	}
	if n.Target.hi>>56 == 0xff || Fold(Sum(b, Pseudo6(p.Src, p.Dst, ProtoICMPv6, len(b)))) != 0xffff {
		return false
	}
	has, ok := n.options(b[NDPLen:], option)
	return ok && !(has && n.Type == ICMP6NeighbourSolicit && n.Src.IsZero())
}

// options walks through the options in b, which their lengths bound, for the one that bears a MAC address; has says that
// it is there. ok is false if one of them is malformed.
func (n *NDP) options(b []byte, option uint8) (has, ok bool) {
	for len(b) > 0 {
		if len(b) < 8 {
			return has, false
		}
		size := 8 * int(b[1])
		if size == 0 || size > len(b) {
			return has, false
		}
		if b[0] == option && !has {
			n.MAC = MAC(b[2:8])
			if has = true; size != NDPMACLen || n.MAC.IsGroup() || n.MAC == (MAC{}) {
				return has, false
			}
		}
		b = b[size:]
	}
	return has, true
}

// PutNDP writes to b, which must have NDPLen+NDPMACLen bytes if n has a MAC address and else NDPLen, the message that n
// says, checksum included.
func PutNDP(b []byte, n *NDP) {
	option := uint8(ndpSourceMAC)
	if n.Type == ICMP6NeighbourAdvert {
		option = ndpTargetMAC
	}
	size := NDPLen
	if n.MAC != (MAC{}) {
		size += NDPMACLen
	}
	b = b[:size]
	clear(b)
	b[0], b[4] = n.Type, n.Flags
	putAddr(b[8:24], n.Target)
	if size > NDPLen {
		b[24], b[25] = option, NDPMACLen/8
		copy(b[26:32], n.MAC[:])
	}
	SetWord(b[2:], ^Fold(Sum(b, Pseudo6(n.Src, n.Dst, ProtoICMPv6, len(b)))))
}

// SolicitedNode is the group that whoever has the IPv6 address a listens to (RFC 4291 section 2.7.1).
func SolicitedNode(a Addr) Addr { return Addr{0xff02 << 48, 1<<32 | 0xff<<24 | a.lo&0xffffff} }

// GroupMAC is the Ethernet address that frames to the IPv6 multicast address a go to (RFC 2464 section 7).
func GroupMAC(a Addr) MAC {
	m := MAC{0x33, 0x33}
	binary.BigEndian.PutUint32(m[2:], uint32(a.lo))
	return m
}
