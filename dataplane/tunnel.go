package dataplane

import (
	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/forward"
	"uvs/packet"
)

// encapsulate sends p, whose TTL has been decremented, to its real server through IP-in-IP.
func (w *path) encapsulate(f *link.Frame, p *packet.Packet, c *conntrack.Conn, hop *nexthop.Hop) Verdict {
	q := &w.ports[hop.Iface]
	tx, send := w.tx[hop.Iface], w.send[hop.Iface]
	t := &w.tunnel
	t.Src, t.Dst, t.PMTUDisc = w.outerSource(c, hop), c.Server, true
	forward.Ethernet(p.Frame, hop.Dst, q.mac)
	v := f.Vnet()
	if v.GSOType() != packet.GSONone {
		room := forward.SegmentRoom(p, v)
		if room == 0 {
			return DropTooBig // a kind of super-frame that cannot be cut, and a tunnel cannot carry it whole
		}
		if len(w.heads) < room {
			w.heads = make([]byte, room)
		}
		tx.Flush() // heads of an earlier one may still wait
		forward.Segment(w.heads, p, v, t, send)
		tx.Flush()
		return ForwardedTUN
	}
	head, body := t.Wrap(w.answer(), p, v)
	if limit := w.outerLimit(hop); len(head)-forward.FrameHead+len(body) > limit {
		whole := append(append(w.whole[:0], head[packet.VnetLen:]...), body...)
		w.whole = whole
		w.split(tx, hop.Iface, v, whole, limit)
		return ForwardedTUN
	}
	tx.Send(head, body)
	return ForwardedTUN
}

// outerLimit is the longest outer packet: what the way out carries, or the largest piece that a datagram came in, as IPVS
// cuts it.
func (w *path) outerLimit(hop *nexthop.Hop) int {
	if w.fragment != nil {
		return min(hop.MTU, w.fragment.largest)
	}
	return hop.MTU
}

// outerSource is the director's address in the outer header: the one the route prefers, else the gateway address on that
// segment, else the VIP.
func (w *path) outerSource(c *conntrack.Conn, hop *nexthop.Hop) packet.Addr {
	if !hop.Source.IsZero() {
		return hop.Source
	}
	return w.ownAddr(&w.ports[hop.Iface], c.Virtual)
}
