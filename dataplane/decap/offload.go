package decap

import "uvs/packet"

// rebase makes v, which describes a frame, describe the packet ip that begins at start in it. It returns false if v
// speaks of what the packet doesn't have.
//
// Checksums yet to be completed and super-frames do occur here: where the host's own card or driver merged the tunnelled
// segments of a TCP stream (GRO looks into IP-in-IP even where nothing can decapsulate it), the inner checksum is only
// the pseudo-header's sum, and v alone says so.
func rebase(v *packet.Vnet, start int, ip []byte) bool {
	h := (*packet.IPv4)(ip)
	needs, gso := v.NeedsCsum(), v.GSOType()
	size, sum, at := v.GSOSize(), v.CsumStart()-start, v.CsumOffset()
	*v = packet.Vnet{}
	if !needs && gso == packet.GSONone {
		return true // DATA_VALID is left out: it was said of the outer packet
	}
	if h.IsFragment() {
		return false
	}
	if needs {
		if sum < h.HeaderLen() || sum+at+2 > len(ip) {
			return false
		}
		v.SetFlags(packet.VnetNeedsCsum)
		v.SetCsumStart(sum)
		v.SetCsumOffset(at)
	}
	if gso == packet.GSONone {
		return true
	}
	headers, ok := headerLen(ip, gso)
	if !ok || size == 0 {
		return false
	}
	v.SetGSOType(gso)
	v.SetGSOSize(size)
	v.SetHdrLen(headers)
	return true
}

// headerLen is the length in bytes of the headers that each segment of the super-frame ip has. ok is false if its type
// isn't that of its protocol.
func headerLen(ip []byte, gso uint8) (n int, ok bool) {
	h, l4, _ := packet.ParseIPv4(ip)
	switch gso {
	case packet.GSOTCPv4, packet.GSOTCPv4 | packet.GSOECN:
		if t, _, ok := packet.ParseTCP(l4); ok && h.Proto() == packet.ProtoTCP {
			return h.HeaderLen() + t.HeaderLen(), true
		}
	case packet.GSOUDPL4:
		if len(l4) >= packet.UDPLen && h.Proto() == packet.ProtoUDP {
			return h.HeaderLen() + packet.UDPLen, true
		}
	}
	return 0, false
}
