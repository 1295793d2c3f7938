package decap

import "uvs/packet"

// rebase makes v, which describes a frame, describe the packet ip that begins at start in it. It returns false if v
// speaks of what the packet doesn't have.
//
// Checksums yet to be completed and super-frames do occur here: where the host's own card or driver merged the tunnelled
// segments of a TCP stream (GRO looks into IP-in-IP and GRE even where nothing can decapsulate them), the inner checksum is
// only the pseudo-header's sum, and v alone says so.
func rebase(v *packet.Vnet, start int, ip []byte) bool {
	needs, gso := v.NeedsCsum(), v.GSOType()
	size, sum, at := v.GSOSize(), v.CsumStart()-start, v.CsumOffset()
	*v = packet.Vnet{}
	if !needs && gso == packet.GSONone {
		return true // DATA_VALID is left out: it was said of the outer packet
	}
	proto, l4, ok := transport(ip)
	if !ok {
		return false
	}
	if needs {
		if sum < l4 || sum+at+2 > len(ip) {
			return false
		}
		v.SetFlags(packet.VnetNeedsCsum)
		v.SetCsumStart(sum)
		v.SetCsumOffset(at)
	}
	if gso == packet.GSONone {
		return true
	}
	headers, ok := headerLen(proto, ip[l4:], gso, ip[0]>>4 == 6)
	if !ok || size == 0 {
		return false
	}
	v.SetGSOType(gso)
	v.SetGSOSize(size)
	v.SetHdrLen(l4 + headers)
	return true
}

// transport is the protocol that the IP packet ip, whose header was parsed, carries, and where that begins. ok is false if it
// is a fragment or its extension headers lie.
func transport(ip []byte) (proto uint8, at int, ok bool) {
	if ip[0]>>4 == 4 {
		h := (*packet.IPv4)(ip)
		return h.Proto(), h.HeaderLen(), !h.IsFragment()
	}
	switch next := (*packet.IPv6)(ip).NextHeader(); next {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMPv6:
		return next, packet.IPv6Len, true
	}
	var p packet.Packet
	ok = packet.DecodeQuoted(ip, &p) && !p.Fragment
	return p.Proto, p.L4, ok
}

// headerLen is the length in bytes of the header that each segment of a super-frame has behind its IP header. l4 begins with
// it. ok is false if the super-frame's type isn't that of its protocol.
func headerLen(proto uint8, l4 []byte, gso uint8, is6 bool) (n int, ok bool) {
	tcp := uint8(packet.GSOTCPv4)
	if is6 {
		tcp = packet.GSOTCPv6
	}
	switch gso {
	case tcp, tcp | packet.GSOECN:
		if t, _, ok := packet.ParseTCP(l4); ok && proto == packet.ProtoTCP {
			return t.HeaderLen(), true
		}
	case packet.GSOUDPL4:
		if len(l4) >= packet.UDPLen && proto == packet.ProtoUDP {
			return packet.UDPLen, true
		}
	}
	return 0, false
}
