package dataplane

import (
	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/forward"
	"uvs/packet"
	"uvs/service"
)

// tunnelError deals with the ICMP error w.pkt, with header h, about an outer packet of a tunnel, which the stations on its way
// send to the outer source: it is translated into one about the inner packet, from the VIP to the client, and a path MTU is
// remembered (ip_vs_in_icmp). quote is the outer packet as far as it was quoted. verdictNone says that it is not about a tunnel
// of ours.
func (w *path) tunnelError(h *packet.ICMP, quote []byte) Verdict {
	proto, server, rest, ok := packet.DecodeQuotedIP(quote)
	if !ok || server.Is4() != w.pkt.Is4() {
		return verdictNone
	}
	kind, port, inner := quotedInner(proto, rest)
	if inner != nil && w.probing() &&
		w.probeError(inner, ProbeAnswer{From: w.pkt.Src, Station: (*packet.Eth)(w.pkt.Frame).Src()}) {
		return AnsweredProbe
	}
	c, q := &w.conn, &w.quoted
	if inner == nil || !packet.DecodeQuoted(inner, q) || !w.plane.cfg.Conns.Find(&q.Flow, conntrack.In, w.now, c) ||
		c.Method != service.Tunnel || c.Server != server {
		return verdictNone
	}
	if t := w.aim(c); t.Kind != kind || kind == forward.GUE && t.Port != port {
		return verdictNone
	}
	what, why := outerError(h, server.Is4())
	if what == unreachable {
		w.notReachable(c.RS)
	}
	hop, status := w.plane.cfg.NextHops.Lookup(c.Client)
	if status != nexthop.Ready {
		return w.notReached(c.Client, status)
	}
	mtu := 0
	if what == tooBig {
		// The client is told what the tunnel carried so far, as IPVS does it: its next packet gets the new value.
		way := hop
		if server, _ := w.serverHop(c); server != nil {
			way = server
		}
		var none packet.Vnet
		mtu = w.tunnelMTU(q, &none, c, way)
		said := h.MTU6()
		if server.Is4() {
			said = h.MTU()
		}
		w.plane.mtus.learn(c.Server, said, w.now)
		if q.MayFragment() {
			return DropICMP // the client doesn't ask for path MTUs; the next one is cut up here
		}
	}
	// The quoted packet stands for one that just came from the client.
	about := append(append(w.whole[:0], make([]byte, packet.EthLen)...), inner...)
	w.whole = about
	q.Frame, q.L3, q.L4, q.Payload = about, packet.EthLen, q.L4+packet.EthLen, q.Payload+packet.EthLen
	if q.FragmentAt > 0 {
		q.FragmentAt += packet.EthLen
	}
	var b []byte
	switch what {
	case tooBig:
		b = forward.Unreachable(w.answer(), q, forward.TooBig, mtu, c.Virtual)
	case unreachable:
		b = forward.Unreachable(w.answer(), q, why, 0, c.Virtual)
	case timeExceeded:
		b = forward.TimeExceeded(w.answer(), q, c.Virtual)
	}
	if b == nil {
		return DropICMP
	}
	forward.Ethernet(b[packet.VnetLen:], hop.Dst, w.ports[hop.Iface].mac)
	w.tx[hop.Iface].Send(b, nil)
	return ForwardedICMP
}

// quotedInner returns how the packet with the payload b, of protocol proto, was encapsulated, to which UDP port, and what was
// inside; nil if it isn't what a tunnel sends.
func quotedInner(proto uint8, b []byte) (kind forward.Encapsulation, port uint16, inner []byte) {
	switch proto {
	case packet.ProtoIPIP, packet.ProtoIPv6:
		return forward.IPIP, 0, b
	case packet.ProtoGRE:
		if h, rest, ok := packet.ParseGRE(b); ok && (h.Type() == packet.EtherIPv4 || h.Type() == packet.EtherIPv6) {
			return forward.GRE, 0, rest
		}
	case packet.ProtoUDP:
		if len(b) < packet.UDPLen {
			break
		}
		g, rest, ok := packet.ParseGUE(b[packet.UDPLen:])
		if ok && (g.Proto == packet.ProtoIPIP || g.Proto == packet.ProtoIPv6) {
			return forward.GUE, (*packet.UDP)(b).DstPort(), rest
		}
	}
	return 0, 0, nil
}

// outerFault is what an ICMP error of either family says.
type outerFault uint8

const (
	otherFault outerFault = iota
	unreachable
	tooBig
	timeExceeded
)

// outerError reads an ICMP error of either family.
func outerError(h *packet.ICMP, is4 bool) (what outerFault, why forward.Reason) {
	switch typ := h.Type(); {
	case is4 && typ == packet.ICMPUnreachable && h.Code() == packet.ICMPCodeFragNeeded, !is4 && typ == packet.ICMP6TooBig:
		return tooBig, forward.TooBig
	case is4 && typ == packet.ICMPUnreachable:
		return unreachable, forward.Reason(h.Code())
	case !is4 && typ == packet.ICMP6Unreachable:
		switch h.Code() {
		case packet.ICMP6CodeNoRoute:
			return unreachable, packet.ICMPCodeNet
		case packet.ICMP6CodeProhibited:
			return unreachable, packet.ICMPCodeProhibited
		case packet.ICMP6CodePort:
			return unreachable, forward.NoPort
		}
		return unreachable, forward.NoHost
	case is4 && typ == packet.ICMPTimeExceeded, !is4 && typ == packet.ICMP6TimeExceeded:
		return timeExceeded, 0
	}
	return otherFault, 0
}

// toHost looks at a frame for the host's own MAC: an ICMP error about a tunnel whose outer source is the host's address is
// ours as well.
func (w *path) toHost(f *link.Frame) Verdict {
	p := w.pkt
	if w.table.Empty() || packet.Decode(f.Eth(), p) != packet.NoFault || !p.IsICMP() || p.Fragment {
		return PassForeignMAC
	}
	h := p.ICMP()
	if !isError(p) || !forward.ChecksumOK(p, f.Vnet()) {
		return PassForeignMAC
	}
	if v := w.tunnelError(h, p.Frame[p.L4+packet.ICMPLen:]); v != verdictNone {
		return v
	}
	if packet.DecodeQuoted(p.Frame[p.L4+packet.ICMPLen:], &w.quoted) {
		w.noteForHost(h)
	}
	return PassForeignMAC
}
