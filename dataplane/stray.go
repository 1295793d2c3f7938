package dataplane

import (
	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// stray deals with a packet that belongs to no connection and no service: refused if it is for an address of ours, as the
// kernel would whose address it were; else foreign.
func (w *path) stray(q *port, f *link.Frame) Verdict {
	p := w.pkt
	switch {
	case !w.owns(q, p.Dst):
		return w.foreign(q, f)
	case w.owns(q, p.Src):
		return DropAddress
	default:
		return w.refuse(q, f)
	}
}

// other deals with a packet of a protocol that IPVS doesn't balance.
func (w *path) other(q *port, f *link.Frame) Verdict {
	if w.owns(q, w.pkt.Dst) {
		return PassProtocol
	}
	return w.foreign(q, f)
}

// foreign deals with a packet to an address that isn't ours: --inner-traffic says what becomes of what real servers send
// through our gateway address on their own behalf, and of what routers send to them by us. The rest is none of our business.
func (w *path) foreign(q *port, f *link.Frame) Verdict {
	p, policy := w.pkt, w.plane.cfg.Inner
	switch {
	case isGroup(p.Dst):
		return PassGroup
	case !q.inside && (policy != ForwardInnerTraffic || !w.isInner(p.Dst)):
		return PassNotOurs
	}
	hop, status := w.plane.cfg.NextHops.Lookup(p.Dst)
	switch {
	case status == nexthop.Local:
		return PassNotOurs // for the host itself, which has the frame too if it came to the host's MAC
	case policy == ForwardInnerTraffic:
		return w.route(q, f, hop, status)
	case policy == MasqueradeInnerTraffic:
		return w.masquerade(q, f)
	default:
		return DropInner
	}
}

// isGroup says that a is no single host's: multicast, the limited broadcast, or reserved. Such a packet may come in a frame
// to our own MAC all the same.
func isGroup(a packet.Addr) bool {
	if a.Is4() {
		return a.V4()>>28 >= 0xe
	}
	return a.IsMulticast6()
}

// isInner says that a lies on a segment of real servers whose gateway we are.
func (w *path) isInner(a packet.Addr) bool {
	for i := range w.ports {
		for _, g := range w.ports[i].gateways {
			if g.addr.Is4() == a.Is4() && g.addr.Masked(g.bits) == a.Masked(g.bits) {
				return true
			}
		}
	}
	return false
}

// route forwards a packet as a router does.
func (w *path) route(q *port, f *link.Frame, hop *nexthop.Hop, status nexthop.Status) Verdict {
	p := w.pkt
	if p.TTL <= 1 {
		return w.answerTimeExceeded(q, p, w.routerAddr(q, p.Dst))
	}
	if status != nexthop.Ready {
		return w.hold(q, f, p, wait{work: sendInner, dst: p.Dst, status: status, from: w.routerAddr(q, p.Dst)})
	}
	if v := w.fits(q, f, p, hop.MTU, w.routerAddr(q, p.Dst)); v != verdictNone {
		return v
	}
	p.DecTTL()
	return w.transmit(f, p, hop, InnerForward)
}

// masqueradeAddr is the address of a family that real servers' own traffic is sent under, the zero Addr if there is none.
func (w *path) masqueradeAddr(is4 bool) packet.Addr {
	for _, a := range w.masq {
		if a.Is4() == is4 {
			return a
		}
	}
	return w.table.LowestVIP(is4)
}

// masqueradePorts is how many source ports masquerade tries before it gives up.
const masqueradePorts = 16

// masquerade opens a connection from a real server to the outside. Its entry is that of a NAT connection seen from the
// other end: the station outside is the client, our address and port the virtual service, the real server the server.
func (w *path) masquerade(q *port, f *link.Frame) Verdict {
	p, c, conns := w.pkt, &w.conn, w.plane.cfg.Conns
	if p.Proto != packet.ProtoTCP && p.Proto != packet.ProtoUDP {
		return DropInner
	}
	if p.Proto == packet.ProtoTCP && (p.TCPFlags&packet.TCPSyn == 0 || p.TCPFlags&packet.TCPRst != 0) {
		return DropInner
	}
	from := w.masqueradeAddr(p.Is4())
	if from.IsZero() {
		return DropInner
	}
	sourcePort := p.SrcPort
	for try := range uint16(masqueradePorts) {
		if sourcePort < 1024 {
			sourcePort += 1024
		}
		inbound := packet.Flow{Src: p.Dst, Dst: from, SrcPort: p.DstPort, DstPort: sourcePort, Proto: p.Proto}
		if w.table.Match(&inbound, w.table.Mark(&inbound, q.index)) == nil && !conns.Find(&inbound, conntrack.In, w.now, c) {
			n := &w.create
			*n = conntrack.NewConn{
				Flow: inbound, Server: p.Src, ServerPort: p.SrcPort, Method: service.Masq, Service: service.NoServer,
				Dir: conntrack.Out, Event: p.Event(), Now: w.now,
			}
			switch conns.Insert(n, c) {
			case conntrack.Full:
				return DropTableFull
			case conntrack.Hit: // another worker was faster: with this very flow, or with another that wants the port
				if c.Server != p.Src || c.ServerPort != p.SrcPort {
					break
				}
				fallthrough
			default:
				return w.toClient(q, f, p, c)
			}
		}
		sourcePort += 7919 * (try + 1) // anywhere else
	}
	return DropNoMasqPort
}
