package dataplane

import (
	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/forward"
	"uvs/packet"
	"uvs/service"
)

// icmp deals with an ICMP message addressed to us: an error about a connection follows it, an echo request to an address of
// ours is answered.
func (w *path) icmp(q *port, f *link.Frame) Verdict {
	p := w.pkt
	h := p.ICMP()
	isError, echo := isError(p), uint8(packet.ICMPEcho)
	if !p.Is4() {
		echo = packet.ICMP6Echo
	}
	switch {
	case h.Type() == echo && w.owns(q, p.Dst) && !w.owns(q, p.Src):
		if !forward.EchoReply(p, f.Vnet()) {
			return DropICMP
		}
		w.sendBack(q, f, p)
		return AnsweredEcho
	case isError && !forward.ChecksumOK(p, f.Vnet()):
		return DropICMP // as IPVS does for every method
	case isError && !w.idle():
		quote := p.Frame[p.L4+packet.ICMPLen:]
		if v := w.tunnelError(h, quote); v != verdictNone {
			return v
		}
		if packet.DecodeQuoted(quote, &w.quoted) && w.quoted.Is4() == p.Is4() {
			if v, ours := w.icmpError(q, f); ours {
				return v
			}
			if w.table.Settings.ScheduleICMP {
				o := opening{flow: w.quoted.Flow.Reverse(), about: true}
				o.mark = w.table.Mark(&o.flow, q.index)
				if vs := w.table.Match(&o.flow, o.mark); vs != nil {
					w.opening = o
					return w.schedule(q, f, vs)
				}
			}
		}
	}
	if w.owns(q, p.Dst) {
		return DropICMP
	}
	return w.stray(q, f)
}

// isError says that an ICMP message of either family is an error.
func isError(p *packet.Packet) bool {
	if p.Is4() {
		return p.ICMP().IsError()
	}
	return p.ICMP().IsError6()
}

// sendBack sends the frame itself, its Ethernet header already reversed, out of the port it came in.
func (w *path) sendBack(q *port, f *link.Frame, p *packet.Packet) {
	if w.fragment != nil {
		w.fragment.datagram.Emit(p.Frame, 0, w.send[q.index])
		return
	}
	w.tx[q.index].Send(f.Buf[:packet.VnetLen+len(p.Frame)], nil)
}

// icmpError relates an error to a connection by the packet it quotes (ip_vs_in_icmp and ip_vs_out_icmp): one about an
// answer goes to the real server, one about a packet to a NAT server goes to the client. ours is false if it is about
// neither.
func (w *path) icmpError(q *port, f *link.Frame) (v Verdict, ours bool) {
	p, conns, c := w.pkt, w.plane.cfg.Conns, &w.conn
	flow := w.quoted.Flow.Reverse()
	if conns.Find(&flow, conntrack.In, w.now, c) {
		w.in(c, p.IPLen())
		return w.errorToServer(q, f, p, c), true
	}
	if conns.Find(&flow, conntrack.Out, w.now, c) && (c.Method == service.Masq || isLocal(c)) {
		w.out(c, p.IPLen())
		if what, _ := outerError(p.ICMP(), p.Is4()); what == unreachable {
			w.notReachable(c.RS)
		}
		return w.errorToClient(q, f, p, c), true
	}
	w.noteForHost(p.ICMP())
	return verdictNone, false
}

func (w *path) errorToServer(q *port, f *link.Frame, p *packet.Packet, c *conntrack.Conn) Verdict {
	if isLocal(c) {
		return w.errorToStack(f, p, c)
	}
	if p.TTL <= 1 {
		return DropTTL
	}
	hop, status := w.serverHop(c)
	if hop == nil {
		return w.hold(q, f, p, wait{work: sendErrorIn, conn: c, dst: c.Server, status: status})
	}
	if v := w.fits(q, f, p, hop.MTU, c.Virtual); v != verdictNone {
		return v
	}
	p.DecTTL()
	switch c.Method {
	case service.Route:
	case service.Masq:
		forward.NATErrorIn(p, f.Vnet(), &w.quoted, c.Server, c.ServerPort)
	case service.Tunnel:
		w.aim(c)
		if v := w.encapsulate(f, p, c, hop); v != ForwardedTUN {
			return v
		}
		return ForwardedICMP
	default:
		return DropMethod
	}
	return w.transmit(f, p, hop, ForwardedICMP)
}

func (w *path) errorToClient(q *port, f *link.Frame, p *packet.Packet, c *conntrack.Conn) Verdict {
	if p.TTL <= 1 && !isLocal(c) {
		return DropTTL
	}
	hop, status := w.plane.cfg.NextHops.Lookup(c.Client)
	if status != nexthop.Ready {
		return w.hold(q, f, p, wait{work: sendErrorOut, conn: c, dst: c.Client, status: status})
	}
	if v := w.fits(q, f, p, hop.MTU, c.Virtual); v != verdictNone {
		return v
	}
	if isLocal(c) && c.Flags&conntrack.NoOutput != 0 {
		forward.QuoteUntranslated(p, f.Vnet(), &w.quoted, c.Virtual, c.VirtualPort)
	}
	forward.NATErrorOut(p, f.Vnet(), &w.quoted, c.Virtual, c.VirtualPort)
	if !isLocal(c) {
		p.DecTTL()
	}
	return w.transmit(f, p, hop, ForwardedICMP)
}

// notReached asks for the way to dst and gives this packet up.
func (w *path) notReached(dst packet.Addr, status nexthop.Status) Verdict {
	if status == nexthop.Pending {
		w.plane.cfg.NextHops.Resolve(dst)
	}
	return hopVerdict(status)
}

// hopVerdict is the drop that a missing next hop causes.
func hopVerdict(status nexthop.Status) Verdict {
	switch status {
	case nexthop.Pending:
		return DropHeldTimeout
	case nexthop.Unreachable:
		return DropUnreachable
	case nexthop.NotAttached:
		return DropNotAttached
	default:
		return DropNoRoute
	}
}
