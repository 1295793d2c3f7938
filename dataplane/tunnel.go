package dataplane

import (
	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/forward"
	"uvs/packet"
	"uvs/service"
)

// ipv6MinMTU is what every link carries that IPv6 goes over (RFC 8200 section 5): no sender makes its packets shorter.
const ipv6MinMTU = 1280

// aim prepares w.tunnel, but for its source, for packets to c's real server. It is the server's business, and not the connection's, how they are
// encapsulated; of a server that is unknown by now IPVS knows nothing else than IP-in-IP.
func (w *path) aim(c *conntrack.Conn) *forward.Tunnel {
	aimAt(&w.tunnel, w.table.Servers.At(c.RS), c.Server, &w.table.Settings)
	return &w.tunnel
}

// aimAt makes t, but for its source, the tunnel to real server rs, nil if it is unknown, at an address.
func aimAt(t *forward.Tunnel, rs *service.RealServer, addr packet.Addr, s *service.Settings) {
	var e service.Encap
	if rs != nil {
		e = rs.Encap()
	}
	t.Kind, t.Port = forward.Encapsulation(e.Kind), e.Port
	t.Checksum, t.RemoteChecksum = e.Checksum == service.FullChecksum, e.Checksum == service.RemoteChecksum
	t.Dst, t.PMTUDisc = addr, s.PMTUDisc
}

// encapsulate sends p, whose TTL has been decremented, to its real server through w.tunnel, which was aimed at it.
func (w *path) encapsulate(f *link.Frame, p *packet.Packet, c *conntrack.Conn, hop *nexthop.Hop) Verdict {
	q := &w.ports[hop.Iface]
	tx, send := w.tx[hop.Iface], w.send[hop.Iface]
	t := &w.tunnel
	if t.Src = w.outerSource(c, hop); t.Src.IsZero() {
		return DropNoRoute // nobody could answer, nor say what became of it
	}
	forward.Ethernet(p.Frame, hop.Dst, q.mac)
	v := f.Vnet()
	if v.GSOType() != packet.GSONone {
		room := forward.SegmentRoom(p, v)
		if room == 0 {
			return DropTooBig // a kind of super-frame that cannot be cut, and a tunnel cannot carry it whole
		}
		if limit := w.outerLimit(c, hop); segmentLen(p, v)+t.HeadLen(p, v) > limit {
			return w.segmentAndSplit(p, v, hop.Iface, limit, room)
		}
		w.needHeads(room)
		forward.Segment(w.heads, p, v, t, send)
		tx.Flush()
		return ForwardedTUN
	}
	head, body := t.Wrap(w.answer(), p, v)
	n := len(head) - forward.FrameHead + len(body)
	if n > 0xffff {
		return DropTooBig // a gathered datagram so long that no header can say how long the outer packet is
	}
	if limit := w.outerLimit(c, hop); n > limit {
		if !w.splitOuter(hop.Iface, head, body, limit) {
			return DropTooBig
		}
		return ForwardedTUN
	}
	tx.Send(head, body)
	return ForwardedTUN
}

// segmentAndSplit sends a super-frame whose segments are too long for the tunnel and may be cut, which only pmtu_disc=0 or a
// path MTU below what IPv6 takes for granted lets happen: rare enough to allocate.
func (w *path) segmentAndSplit(p *packet.Packet, v *packet.Vnet, port, limit, room int) Verdict {
	sent := true
	forward.Segment(make([]byte, room), p, v, &w.tunnel, func(head, body []byte) {
		sent = w.splitOuter(port, head, body, limit) && sent
	})
	if !sent {
		return DropTooBig
	}
	return ForwardedTUN
}

// splitOuter sends an outer packet out of a port in fragments that fit limit.
func (w *path) splitOuter(port int, head, body []byte, limit int) bool {
	w.whole = append(append(w.whole[:0], head...), body...)
	return w.split(port, (*packet.Vnet)(w.whole), w.whole[packet.VnetLen:], limit)
}

// tunnelMTU aims w.tunnel at c's server, and is the longest inner packet that it carries, if it is one like p. What IPv6 must be able to
// send anyway is fragmented on its way if need be (RFC 2473 section 7.1).
func (w *path) tunnelMTU(p *packet.Packet, v *packet.Vnet, c *conntrack.Conn, hop *nexthop.Hop) int {
	mtu := w.plane.mtus.limit(c.Server, hop.MTU, w.now) - w.aim(c).HeadLen(p, v)
	if !p.Is4() {
		return max(mtu, ipv6MinMTU)
	}
	return mtu
}

// outerLimit is the longest outer packet: what the way carries, or the largest piece that a datagram came in, as IPVS cuts
// it.
func (w *path) outerLimit(c *conntrack.Conn, hop *nexthop.Hop) int {
	limit := w.plane.mtus.limit(c.Server, hop.MTU, w.now)
	if w.fragment != nil {
		if !c.Server.Is4() {
			return min(limit, max(w.fragment.largest, ipv6MinMTU))
		}
		return min(limit, w.fragment.largest)
	}
	return limit
}

// outerSource is the director's address in the outer header, of the real server's family: the one the route prefers, else the
// gateway address on that segment, else the VIP. The zero Addr says that there is none.
func (w *path) outerSource(c *conntrack.Conn, hop *nexthop.Hop) packet.Addr {
	switch {
	case !hop.Source.IsZero() && hop.Source.Is4() == c.Server.Is4():
		return hop.Source
	case c.Virtual.Is4() == c.Server.Is4():
		return w.ownAddr(&w.ports[hop.Iface], c.Virtual)
	}
	return w.routerAddr(&w.ports[hop.Iface], c.Server)
}
