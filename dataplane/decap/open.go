package decap

import "uvs/packet"

// Open judges the tunnelled packet in frame, whose outer IP header begins at l3, and finds the packet inside,
// frame[start:end]. It is to be used only if the verdict is Delivered. It is changed in place where the tunnel's
// congestion marks say so, and v, the frame's virtio-net header, comes to describe it: offsets count from start. local are the
// host's own addresses.
//
// An inner checksum is neither verified nor completed, but for what v and GUE's header say of it: the director completes it,
// and the host's stack verifies it. The checksums of GRE and GUE are verified.
func (r *Rules) Open(frame []byte, l3 int, v *packet.Vnet, local Addresses) (start, end int, verdict Verdict) {
	if l3 < 0 || l3 > len(frame) {
		return 0, 0, DropOuterHeader
	}
	o, ok := parseOuter(frame[l3:])
	switch {
	case !ok:
		return 0, 0, DropOuterHeader
	case !local.has(o.dst):
		return 0, 0, PassNotLocal
	case o.fragment && !r.allows(o.src):
		return 0, 0, PassFragment
	case o.fragment:
		return 0, 0, DropFragment
	case !r.allows(o.src):
		return 0, 0, DropDirector
	}
	o.at += l3
	in, verdict := r.unwrap(&o, v)
	if verdict != Delivered {
		return 0, 0, verdict
	}
	start = o.at + in.at
	b := o.payload[in.at:]
	n, verdict := r.inner(b, in.is6, o.tos, local)
	if verdict != Delivered {
		return 0, 0, verdict
	}
	if in.remote.start != 0 && !passOn(v, in.remote) || !rebase(v, start, b[:n]) {
		return 0, 0, DropOffload
	}
	return start, start + n, Delivered
}

// outer is what an outer IP header says.
type outer struct {
	src, dst packet.Addr
	proto    uint8
	tos      uint8
	fragment bool
	payload  []byte
	at       int // offset of payload
}

// parseOuter reads the IP header at the start of b. ok is false if it lies. No extension header stands between IPv6's header
// and what a director puts behind it, but for a fragment header.
func parseOuter(b []byte) (o outer, ok bool) {
	if ip, payload, ok := packet.ParseIPv4(b); ok {
		return outer{
			src: packet.AddrFrom4(ip.Src()), dst: packet.AddrFrom4(ip.Dst()), proto: ip.Proto(), tos: ip.TOS(),
			fragment: ip.IsFragment(), payload: payload, at: ip.HeaderLen(),
		}, packet.IPv4ChecksumOK(b)
	}
	ip, payload, ok := packet.ParseIPv6(b)
	if !ok {
		return o, false
	}
	return outer{
		src: ip.Src(), dst: ip.Dst(), proto: ip.NextHeader(), tos: ip.TrafficClass(),
		fragment: ip.NextHeader() == packet.ProtoFragment, payload: payload, at: packet.IPv6Len,
	}, true
}

// wrapped is where a packet lies in the payload of the outer one.
type wrapped struct {
	at     int
	is6    bool
	remote remote
}

// remote is a checksum in a frame that its sender left to us; start is 0 if there is none.
type remote struct{ start, field int }

// unwrap finds the packet in an outer one: the kinds of tunnel differ in what stands between the two IP headers.
func (r *Rules) unwrap(o *outer, v *packet.Vnet) (in wrapped, verdict Verdict) {
	switch o.proto {
	case packet.ProtoIPIP, packet.ProtoIPv6: // nothing (RFC 2003, RFC 2473, RFC 4213)
		return wrapped{is6: o.proto == packet.ProtoIPv6}, Delivered
	case packet.ProtoGRE:
		h, _, ok := packet.ParseGRE(o.payload)
		switch {
		case !ok || h.Type() != packet.EtherIPv4 && h.Type() != packet.EtherIPv6:
			return in, DropTunnelHeader
		case h.HasChecksum() && v.GSOType() == packet.GSONone && sum(o.payload, o.at, v, 0) != 0xffff:
			return in, DropChecksum // of what was merged on receipt the first segment's is left, and all were right
		}
		return wrapped{at: h.HeaderLen(), is6: h.Type() == packet.EtherIPv6}, Delivered
	case packet.ProtoUDP:
		if r.guePort != 0 {
			return r.unwrapGUE(o, v)
		}
	}
	return in, DropProtocol
}

func (r *Rules) unwrapGUE(o *outer, v *packet.Vnet) (in wrapped, verdict Verdict) {
	u, b, ok := packet.ParseUDP(o.payload)
	if !ok {
		return in, DropTunnelHeader
	}
	if u.DstPort() != r.guePort {
		return in, DropProtocol
	}
	switch {
	case v.NeedsCsum() && v.CsumStart() == o.at:
		// The sender is next door, and left UDP's own checksum to a network card that never came.
		if v.GSOType() != packet.GSONone {
			return in, DropOffload // several outer packets at once
		}
		*v = packet.Vnet{}
	case u.Checksum() != 0:
		n := u.Len()
		pseudo := o.src.Sum() + o.dst.Sum() + packet.ProtoUDP + uint64(n)
		if v.GSOType() == packet.GSONone && sum(o.payload[:n], o.at, v, pseudo) != 0xffff {
			return in, DropChecksum
		}
	}
	g, payload, ok := packet.ParseGUE(b)
	if !ok || g.Proto != packet.ProtoIPIP && g.Proto != packet.ProtoIPv6 {
		return in, DropTunnelHeader
	}
	o.payload = o.payload[:u.Len()]
	in = wrapped{at: len(o.payload) - len(payload), is6: g.Proto == packet.ProtoIPv6}
	if g.Remote {
		if u.Checksum() == 0 {
			return in, DropChecksum // then nothing at all would protect the inner packet
		}
		at := o.at + in.at
		in.remote = remote{at + g.Start, at + g.Field}
	}
	return in, Delivered
}

// sum is the folded sum of b, which begins at offset at of its frame, and of s. A checksum in it that v says is yet to be
// completed counts as complete: then what it covers sums up to the complement of what the field holds.
func sum(b []byte, at int, v *packet.Vnet, s uint64) uint16 {
	if cut := v.CsumStart() - at; v.NeedsCsum() && cut >= 0 && cut+v.CsumOffset()+2 <= len(b) {
		field := packet.Word(b[cut+v.CsumOffset():])
		return packet.Fold(packet.Sum(b[:cut], s+uint64(^field)))
	}
	return packet.Fold(packet.Sum(b, s))
}

// passOn makes v ask the host's stack for a checksum that the tunnel's sender left undone. False if v asks for one already.
func passOn(v *packet.Vnet, r remote) bool {
	if v.NeedsCsum() || v.GSOType() != packet.GSONone {
		return false
	}
	v.SetFlags(packet.VnetNeedsCsum)
	v.SetCsumStart(r.start)
	v.SetCsumOffset(r.field - r.start)
	return true
}

// inner judges the packet at the start of b, takes over the outer header's congestion mark, and returns its length: what
// stands behind it is padding.
func (r *Rules) inner(b []byte, is6 bool, outerTOS uint8, local Addresses) (int, Verdict) {
	var src, dst packet.Addr
	var was uint8
	n := 0
	if is6 {
		ip, payload, ok := packet.ParseIPv6(b)
		if !ok {
			return 0, DropInnerHeader
		}
		src, dst, was, n = ip.Src(), ip.Dst(), ip.TrafficClass(), packet.IPv6Len+len(payload)
		if src.Is4() { // IPv4-mapped, which no packet may have
			return 0, DropSource
		}
	} else {
		ip, _, ok := packet.ParseIPv4(b)
		if !ok || !packet.IPv4ChecksumOK(b) {
			return 0, DropInnerHeader
		}
		src, dst, was, n = packet.AddrFrom4(ip.Src()), packet.AddrFrom4(ip.Dst()), ip.TOS(), ip.TotalLen()
	}
	switch {
	case badSource(src) || r.vips.has(src) || local.has(src):
		return 0, DropSource // the stack would drop one of its own addresses as well, but would not say so
	case !r.vips.has(dst) || dst.Is4() == is6:
		return 0, DropNotVIP
	}
	tos, ok := decapsulateECN(was, outerTOS)
	switch {
	case !ok:
		return 0, DropCongestion
	case tos == was:
	case is6:
		(*packet.IPv6)(b).SetTrafficClass(tos)
	default:
		(*packet.IPv4)(b).SetTOS(tos)
		packet.FixIPv4Checksum(b)
	}
	return n, Delivered
}
