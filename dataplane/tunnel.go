package dataplane

import (
	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/forward"
	"uvs/packet"
	"uvs/service"
)

// encapsulate sends p, whose TTL has been decremented, to its real server through IP-in-IP.
func (w *path) encapsulate(f *link.Frame, p *packet.Packet, c *conntrack.Conn, hop *nexthop.Hop) Verdict {
	q := &w.ports[hop.Iface]
	tx, send := w.tx[hop.Iface], w.send[hop.Iface]
	t := &w.tunnel
	t.Src, t.Dst, t.PMTUDisc = w.outerSource(c, hop), c.Server, w.table.Settings.PMTUDisc
	forward.Ethernet(p.Frame, hop.Dst, q.mac)
	v := f.Vnet()
	if v.GSOType() != packet.GSONone {
		room := forward.SegmentRoom(p, v)
		if room == 0 {
			return DropTooBig // a kind of super-frame that cannot be cut, and a tunnel cannot carry it whole
		}
		if limit := w.outerLimit(c, hop); p.Payload-p.L3+v.GSOSize()+forward.TunnelLen > limit {
			return w.segmentAndSplit(p, v, hop.Iface, limit, room)
		}
		w.needHeads(room)
		forward.Segment(w.heads, p, v, t, send)
		tx.Flush()
		return ForwardedTUN
	}
	if p.IPLen()+forward.TunnelLen > 0xffff {
		return DropTooBig // a gathered datagram so long that no header could say how long the outer packet is
	}
	head, body := t.Wrap(w.answer(), p, v)
	if limit := w.outerLimit(c, hop); len(head)-forward.FrameHead+len(body) > limit {
		whole := append(append(w.whole[:0], head[packet.VnetLen:]...), body...)
		w.whole = whole
		if !w.split(hop.Iface, v, whole, limit) {
			return DropTooBig
		}
		return ForwardedTUN
	}
	tx.Send(head, body)
	return ForwardedTUN
}

// segmentAndSplit sends a super-frame whose segments are too long for the tunnel and may be cut, which only pmtu_disc=0 lets
// happen: rare enough to allocate.
func (w *path) segmentAndSplit(p *packet.Packet, v *packet.Vnet, port, limit, room int) Verdict {
	sent := true
	var none packet.Vnet
	forward.Segment(make([]byte, room), p, v, &w.tunnel, func(head, body []byte) {
		whole := append(append(w.whole[:0], head[packet.VnetLen:]...), body...)
		w.whole = whole
		sent = w.split(port, &none, whole, limit) && sent
	})
	if !sent {
		return DropTooBig
	}
	return ForwardedTUN
}

// tunnelMTU is the longest inner packet that the tunnel to c's server carries.
func (w *path) tunnelMTU(c *conntrack.Conn, hop *nexthop.Hop) int {
	return w.plane.mtus.limit(c.Server, hop.MTU, w.now) - forward.TunnelLen
}

// outerLimit is the longest outer packet: what the way carries, or the largest piece that a datagram came in, as IPVS cuts
// it.
func (w *path) outerLimit(c *conntrack.Conn, hop *nexthop.Hop) int {
	limit := w.plane.mtus.limit(c.Server, hop.MTU, w.now)
	if w.fragment != nil {
		return min(limit, w.fragment.largest)
	}
	return limit
}

// outerSource is the director's address in the outer header: the one the route prefers, else the gateway address on that
// segment, else the VIP.
func (w *path) outerSource(c *conntrack.Conn, hop *nexthop.Hop) packet.Addr {
	if !hop.Source.IsZero() {
		return hop.Source
	}
	return w.ownAddr(&w.ports[hop.Iface], c.Virtual)
}

// tunnelError deals with an ICMP error about an outer packet of a tunnel, which the stations on its way send to the outer
// source: it is translated into one about the inner packet, from the VIP to the client, and a path MTU is remembered
// (ip_vs_in_icmp). quote is the outer packet as far as it was quoted. verdictNone says that it is not about a tunnel of ours.
func (w *path) tunnelError(h *packet.ICMP, quote []byte) Verdict {
	outer, ok := packet.DecodeQuotedIP(quote)
	if !ok || outer.Proto() != packet.ProtoIPIP {
		return verdictNone
	}
	inner, c := quote[outer.HeaderLen():], &w.conn
	if !packet.DecodeQuoted(inner, &w.quoted) || !w.quoted.Is4() || !w.plane.cfg.Conns.Find(&w.quoted.Flow, conntrack.In, w.now, c) ||
		c.Method != service.Tunnel || c.Server != packet.AddrFrom4(outer.Dst()) {
		return verdictNone
	}
	hop, status := w.plane.cfg.NextHops.Lookup(c.Client)
	if status != nexthop.Ready {
		return w.notReached(c.Client, status)
	}
	mtu := 0
	if h.Type() == packet.ICMPUnreachable && h.Code() == packet.ICMPCodeFragNeeded {
		// The client is told what the tunnel carried so far, as IPVS does it: its next packet gets the new value.
		way := hop
		if server, _ := w.serverHop(c); server != nil {
			way = server
		}
		mtu = w.tunnelMTU(c, way)
		w.plane.mtus.learn(c.Server, h.MTU(), w.now)
	}
	// The quoted packet stands for one that just came from the client.
	about := append(append(w.whole[:0], make([]byte, packet.EthLen)...), inner...)
	w.whole = about
	q := &w.quoted
	q.Frame, q.L3, q.L4, q.Payload = about, packet.EthLen, q.L4+packet.EthLen, q.Payload+packet.EthLen
	var b []byte
	switch h.Type() {
	case packet.ICMPUnreachable:
		b = forward.Unreachable(w.answer(), q, forward.Reason(h.Code()), mtu, c.Virtual)
	case packet.ICMPTimeExceeded:
		b = forward.TimeExceeded(w.answer(), q, c.Virtual)
	}
	if b == nil {
		return DropICMP
	}
	forward.Ethernet(b[packet.VnetLen:], hop.Dst, w.ports[hop.Iface].mac)
	w.tx[hop.Iface].Send(b, nil)
	return ForwardedICMP
}

// toHost looks at a frame for the host's own MAC: an ICMP error about a tunnel whose outer source is the host's address is
// ours as well.
func (w *path) toHost(f *link.Frame) Verdict {
	if w.table.Empty() || packet.Decode(f.Eth(), &w.pkt) != packet.NoFault || !w.pkt.Is4() || w.pkt.Proto != packet.ProtoICMP || w.pkt.Fragment {
		return PassForeignMAC
	}
	h := w.pkt.ICMP()
	if !h.IsError() || !forward.ChecksumOK(&w.pkt, f.Vnet()) {
		return PassForeignMAC
	}
	if v := w.tunnelError(h, w.pkt.Frame[w.pkt.L4+packet.ICMPLen:]); v != verdictNone {
		return v
	}
	return PassForeignMAC
}
