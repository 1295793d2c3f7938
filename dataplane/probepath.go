package dataplane

import (
	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/forward"
	"uvs/packet"
	"uvs/service"
)

// probed takes w.pkt out of the packet path if it answers a probe of ours, and tells who waits for it.
func (w *path) probed(q *port, f *link.Frame) bool {
	p, ps := w.pkt, &w.plane.probes
	a := ProbeAnswer{From: p.Src, Station: (*packet.Eth)(p.Frame).Src(), Port: q.index}
	switch {
	case p.IsICMP():
		return w.probedICMP(f, a)
	case ps.has(p.DstPort, p.Dst):
		b := ps.find(p.Flow)
		if b == nil || !forward.ChecksumOK(p, f.Vnet()) {
			return false
		}
		if b.passage != nil {
			w.plane.arrivals.offer(b.passage, f)
			return true
		}
		switch syn := packet.TCPSyn | packet.TCPAck; {
		case p.Proto == packet.ProtoUDP:
			a.Outcome = ProbeReplied
		case p.TCPFlags&packet.TCPRst != 0:
			a.Outcome = ProbeRefused
		case p.TCPFlags&uint8(syn) == uint8(syn):
			a.Outcome, a.ack = ProbeAccepted, p.TCP().Ack()
		default:
			return true // nothing that a server would say to a SYN
		}
		b.tell(a)
		return true
	case ps.has(p.SrcPort, p.Src):
		return w.returned(p.Flow, a)
	}
	return false
}

// returned takes a probe that came back as it was sent: whoever got it is no end but a router, and sent it on to the VIP.
func (w *path) returned(f packet.Flow, a ProbeAnswer) bool {
	b := w.plane.probes.find(f.Reverse())
	if b == nil || b.query.Flow != f {
		return false
	}
	a.Outcome = ProbeReturned
	b.tell(a)
	return true
}

// probedICMP is probed for a message of ICMP.
func (w *path) probedICMP(f *link.Frame, a ProbeAnswer) bool {
	p, ps := w.pkt, &w.plane.probes
	h := p.ICMP()
	reply, request, isError := uint8(packet.ICMPEchoReply), uint8(packet.ICMPEcho), h.IsError()
	if !p.Is4() {
		reply, request, isError = packet.ICMP6EchoReply, packet.ICMP6Echo, h.IsError6()
	}
	flow := packet.Flow{Src: p.Src, Dst: p.Dst, DstPort: h.ID(), Proto: p.Proto}
	switch {
	case h.Type() == reply:
		b := ps.find(flow)
		if b == nil || !forward.ChecksumOK(p, f.Vnet()) {
			return false
		}
		a.Outcome = ProbeEchoed
		b.tell(a)
		return true
	case h.Type() == request:
		return w.returned(packet.Flow{Src: p.Src, Dst: p.Dst, SrcPort: h.ID(), Proto: p.Proto}, a)
	case isError:
		return forward.ChecksumOK(p, f.Vnet()) && w.probeError(p.Frame[p.L4+packet.ICMPLen:], a)
	}
	return false
}

// probeError takes the ICMP error w.pkt if what it quotes, or what that had inside, is a probe.
func (w *path) probeError(quote []byte, a ProbeAnswer) bool {
	p := w.pkt
	flow, ok := packet.DecodeQuotedEcho(quote)
	if !ok {
		if !packet.DecodeQuoted(quote, &w.quoted) {
			return false
		}
		flow = w.quoted.Flow
	}
	b := w.plane.probes.find(flow.Reverse())
	if b == nil {
		return false
	}
	h := p.ICMP()
	a.Outcome, a.Type, a.Code = ProbeError, h.Type(), h.Code()
	if what, _ := outerError(h, p.Is4()); what == tooBig {
		if a.MTU = h.MTU6(); p.Is4() {
			a.MTU = h.MTU()
		}
	}
	b.tell(a)
	return true
}

// astray looks at a frame to the host's own MAC address while probes are out: who answers a probe there takes the host for
// his router, unless the probe was sent in the host's name. It says whether the frame was such an answer.
func (w *path) astray(q *port, f *link.Frame) bool {
	p := w.pkt
	if packet.Decode(f.Eth(), p) != packet.NoFault || p.Fragment {
		return false
	}
	flow := p.Flow
	if p.IsICMP() {
		flow.DstPort = p.ICMP().ID()
	}
	switch b := w.plane.probes.find(flow); {
	case p.IsICMP() && isError(p), b != nil && b.passage != nil && b.passage.fromHost:
		return w.probed(q, f)
	case b != nil:
		b.tell(ProbeAnswer{Outcome: ProbeAstray, From: p.Src, Station: (*packet.Eth)(p.Frame).Src(), Port: q.index})
	}
	return false
}

// inject sends a probe, or the reset that ends it, as the packet path would send a client's packet.
func (s *slowPath) inject(in *injection, now int64) {
	s.mu.Lock()
	s.begin(now)
	r := s.sendProbe(in)
	s.mu.Unlock()
	s.flush()
	in.sent <- r
}

func (s *slowPath) sendProbe(in *injection) (r ProbeResult) {
	query, c := in.probe.query, &in.probe.conn
	query.Flags, query.Seq = in.flags, in.seq
	// A next hop that isn't known is the sender's to wait for: the frame must not be held, as that ends in a count.
	if r.Hop, r.Way = s.serverHop(c); r.Hop == nil {
		if r.Way == nexthop.Pending {
			s.plane.cfg.NextHops.Resolve(c.Server)
		}
		r.Verdict = hopVerdict(r.Way)
		return r
	}
	f := link.Frame{Buf: query.Put(make([]byte, query.Size()))}
	r.Verdict = s.sendOwn(r.Hop, &f, c)
	return r
}

// sendOwn sends a packet of our own to the real server of c, by hop. Nobody is told if it is too long and must not be cut.
func (s *slowPath) sendOwn(hop *nexthop.Hop, f *link.Frame, c *conntrack.Conn) Verdict {
	if isLocal(c) || packet.Decode(f.Eth(), s.pkt) != packet.NoFault {
		return DropMethod
	}
	mtu := hop.MTU
	if c.Method == service.Tunnel {
		mtu = s.tunnelMTU(s.pkt, f.Vnet(), c, hop)
	}
	if s.pkt.IPLen() > mtu && !s.pkt.MayFragment() {
		return DropTooBig // rather than that deliver tells us so
	}
	held := len(s.held)
	v := s.deliver(&s.ports[hop.Iface], f, s.pkt, c)
	if len(s.held) > held {
		s.held = s.held[:held] // its next hop was lost at this very moment
		v = DropHeldTimeout
	}
	return v
}
