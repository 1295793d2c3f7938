package dataplane

import (
	"slices"

	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/forward"
	"uvs/packet"
	"uvs/service"
)

// Stack is the way into the host's own IP stack, for real servers that are addresses of the director itself: a device of
// the host's whose far end is the packet path. The path treats it as one more port, behind which the host is the only
// station. What becomes of the host's answers, that they come back through the device, is the business of whoever makes it.
type Stack struct {
	// OpenRx opens a worker's link to the device; it is called again like Config.OpenRx when the device has disappeared. The
	// device itself need not exist yet: the link has its descriptor from then on that it does, and Plane.Wake tells of it.
	OpenRx func(worker int) (link.Link, error)
	// OpenTx opens the slow path's link.
	OpenTx func() (link.Link, error)
	// MAC is the device's own address, of all frames in both directions but those to Loopback.
	MAC packet.MAC
	// Loopback is the address that the link knows frames to the host's loopback interface by: it alone takes packets for
	// ::1. The answers come by the device.
	Loopback packet.MAC
	// Unbound and Unbound6 are the sources of what a socket without an address of its own sends through the device: a UDP
	// server's on 0.0.0.0 or ::. The zero Addr: there is no such thing.
	Unbound, Unbound6 packet.Addr
}

// stackMTU is the longest packet that the host takes: it reassembles and merges whatever comes.
const stackMTU = 0xffff

// withStack makes the device a port behind the others.
func (c *Config) withStack() {
	s := c.Stack
	if s == nil {
		return
	}
	n, openRx, openTx := len(c.Ports), c.OpenRx, c.OpenTx
	c.Ports = append(c.Ports[:n:n], Port{Name: "the host's own stack", MAC: s.MAC})
	c.OpenRx = func(worker, port int) (link.Link, error) {
		if port == n {
			return s.OpenRx(worker)
		}
		return openRx(worker, port)
	}
	c.OpenTx = func(port int) (link.Link, error) {
		if port == n {
			return s.OpenTx()
		}
		return openTx(port)
	}
}

// stackPort is the device's port, or -1.
func (c *Config) stackPort() int {
	if c.Stack == nil {
		return -1
	}
	return len(c.Ports) - 1
}

// toStack hands a packet of a known connection to the host's stack: translated to the real server's address as by NAT,
// since the host doesn't have the virtual one. Nothing is forwarded, so that its TTL stays and may be 1.
func (w *path) toStack(f *link.Frame, p *packet.Packet, c *conntrack.Conn) Verdict {
	hop := w.stack.to(c)
	if hop == nil {
		return DropMethod
	}
	bare := c.Flags&conntrack.NoOutput != 0 && p.Proto == packet.ProtoUDP && !f.Vnet().NeedsCsum() && p.UDP().Checksum() == 0
	forward.NATIn(p, f.Vnet(), c.Server, c.ServerPort)
	if bare {
		p.UDP().SetChecksum(0) // NAT gives it one; but NAT is not what was asked for
	}
	return w.transmit(f, p, hop, ForwardedLocal)
}

// errorToStack hands the host's stack an ICMP error about what it sent on a connection. The host doesn't come to know of a
// path MTU by it, but for IPv6's TCP: the kernel looks for the route without ports, and so not by the rules that lead here.
// sendOn sees to it.
func (w *path) errorToStack(f *link.Frame, p *packet.Packet, c *conntrack.Conn) Verdict {
	hop := w.stack.to(c)
	if hop == nil {
		return DropMethod
	}
	if mtu, ok := tooBigFor(p.ICMP(), p.Is4()); ok {
		w.plane.narrow.learn(c.Client, mtu, w.now)
	}
	forward.NATErrorIn(p, f.Vnet(), &w.quoted, c.Server, c.ServerPort)
	return w.transmit(f, p, hop, ForwardedICMP)
}

// tooBigFor returns the path MTU that an ICMP error of either family tells of, if it does.
func tooBigFor(h *packet.ICMP, is4 bool) (mtu int, ok bool) {
	switch what, _ := outerError(h, is4); {
	case what != tooBig:
		return 0, false
	case is4:
		return h.MTU(), true
	default:
		return h.MTU6(), true
	}
}

// noteForHost looks at an ICMP error to the host about what it sent without uvs. w.quoted is what it quotes. If the host
// serves from there the packets come this way all the same, and then path MTUs must be known here.
func (w *path) noteForHost(h *packet.ICMP) {
	is4 := w.pkt.Is4()
	mtu, ok := tooBigFor(h, is4)
	if ok && w.pkt.Dst == w.quoted.Src && slices.Contains(w.table.Local(is4), w.quoted.Src) {
		w.plane.narrow.learn(w.quoted.Dst, mtu, w.now)
	}
}

// stackWay is what a path knows of the way into the host's stack.
type stackWay struct {
	hop, loopback *nexthop.Hop // nil: there is none
	unbound       [2]packet.Addr
}

// newStackWay is the way through a port.
func newStackWay(port int, s *Stack) stackWay {
	return stackWay{
		hop:      &nexthop.Hop{Iface: port, Dst: s.MAC, MTU: stackMTU},
		loopback: &nexthop.Hop{Iface: port, Dst: s.Loopback, MTU: stackMTU},
		unbound:  [2]packet.Addr{s.Unbound, s.Unbound6},
	}
}

// to is the way to a connection's server.
func (s *stackWay) to(c *conntrack.Conn) *nexthop.Hop {
	if c.Server.IsLoopback() && !c.Server.Is4() {
		return s.loopback
	}
	return s.hop
}

// isUnbound says that a packet of the host's has the source of a socket without an address of its own.
func (s *stackWay) isUnbound(p *packet.Packet) bool {
	if p.Is4() {
		return p.Src == s.unbound[0] && !p.Src.IsZero()
	}
	return p.Src == s.unbound[1] && !p.Src.IsZero()
}

// fromStack takes a packet that the host's stack sent into the device. k is its key, as of a server's answer.
func (w *path) fromStack(q *port, f *link.Frame, k *conntrack.Key) Verdict {
	p := w.pkt
	switch {
	case w.idle():
	case p.IsICMP():
		if isError(p) && packet.DecodeQuoted(p.Frame[p.L4+packet.ICMPLen:], &w.quoted) {
			if v, ours := w.icmpError(q, f); ours {
				return v
			}
		}
	default:
		switch w.isAnswer(k) {
		case conntrack.Hit:
			return w.toClient(q, f, p, &w.conn)
		case conntrack.Cut:
			return w.cut(q, f, p, &w.conn)
		}
	}
	return w.fromHost(q, f)
}

// isAnswer finds the connection that the host's packet belongs to, and does for it what conntrack.Out does. A UDP server
// that has bound no address of its own answers from wherever the route says: then it is known by its port alone.
func (w *path) isAnswer(k *conntrack.Key) conntrack.Outcome {
	p, conns := w.pkt, w.plane.cfg.Conns
	if !w.stack.isUnbound(p) {
		return conns.OutHashed(k, p.Event(), w.now, &w.conn)
	}
	flow := p.Flow
	for _, flow.Src = range w.table.Local(p.Is4()) {
		conns.Hash(&flow, conntrack.Out, k)
		if o := conns.OutHashed(k, p.Event(), w.now, &w.conn); o != conntrack.Miss {
			return o
		}
	}
	return conntrack.Miss
}

// fromHost sends on what belongs to no connection: the host's answers to clients that use the server by its own
// address, which the host cannot tell from the others. They go as the host would have sent them.
func (w *path) fromHost(q *port, f *link.Frame) Verdict {
	p := w.pkt
	if p.Src.IsLoopback() || isGroup(p.Dst) {
		return DropNoConn // nowhere to go: a connection's that is no more
	}
	hop, status := w.plane.cfg.NextHops.Lookup(p.Dst)
	if status != nexthop.Ready {
		return w.hold(q, f, p, wait{work: sendHosts, dst: p.Dst, status: status, from: p.Dst})
	}
	if w.stack.isUnbound(p) {
		if hop.Source.IsZero() {
			return DropNoRoute
		}
		forward.NATOut(p, f.Vnet(), hop.Source, p.SrcPort)
	}
	return w.sendOn(f, p, hop, ForwardedHosts)
}

// fromStackOut is deliverOut for what the host's stack answers on a connection. The host sent it, and nobody has forwarded it
// yet: its TTL stays.
func (w *path) fromStackOut(q *port, f *link.Frame, p *packet.Packet, c *conntrack.Conn) Verdict {
	hop, status := w.plane.cfg.NextHops.Lookup(c.Client)
	if status != nexthop.Ready {
		// From the client: where a route keeps the host off the virtual address, it takes nothing from there.
		return w.hold(q, f, p, wait{work: sendOut, conn: c, dst: c.Client, status: status, from: c.Client})
	}
	forward.NATOut(p, f.Vnet(), c.Virtual, c.VirtualPort)
	return w.sendOn(f, p, hop, Replied)
}

// sendOn sends a packet of the host's stack by hop. One that is longer than the way carries is cut as the host would have if
// it knew: TCP into shorter segments, and the rest into fragments.
func (w *path) sendOn(f *link.Frame, p *packet.Packet, hop *nexthop.Hop, sent Verdict) Verdict {
	mtu := w.plane.narrow.limit(p.Dst, hop.MTU, w.now)
	n, v := p.IPLen(), f.Vnet()
	switch {
	case w.fragment != nil:
		n = w.fragment.largest
	case v.GSOType() != packet.GSONone:
		n = segmentLen(p, v)
	}
	if n <= mtu {
		return w.transmit(f, p, hop, sent)
	}
	if size := mtu - (p.Payload - p.L3); p.Proto == packet.ProtoTCP && w.fragment == nil && size > 0 {
		v.SetGSOType(packet.GSOTCPv4)
		if !p.Is4() {
			v.SetGSOType(packet.GSOTCPv6)
		}
		v.SetGSOSize(size)
		w.needHeads(forward.SegmentRoom(p, v))
		forward.Ethernet(p.Frame, hop.Dst, w.ports[hop.Iface].mac)
		if !forward.Segment(w.heads, p, v, nil, w.send[hop.Iface]) {
			return DropTooBig
		}
		w.tx[hop.Iface].Flush() // heads is needed again
		return sent
	}
	if p.Is4() {
		forward.MayFragment(p)
	}
	narrow := *hop
	narrow.MTU = mtu
	return w.transmit(f, p, &narrow, sent)
}

// decode decodes a frame that arrived on q. From the host's stack, and from nowhere else, a loopback address may come.
func (q *port) decode(frame []byte, p *packet.Packet) packet.Fault {
	if q.host {
		return packet.DecodeOwn(frame, p)
	}
	return packet.Decode(frame, p)
}

// isLocal says that a connection's server is the director itself.
func isLocal(c *conntrack.Conn) bool { return c.Method == service.Local }
