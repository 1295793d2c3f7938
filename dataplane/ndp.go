package dataplane

import (
	"slices"

	"uvs/dataplane/link"
	"uvs/forward"
	"uvs/packet"
)

// discovery answers neighbour solicitations for addresses of ours with our MAC, and listener queries, and tells the resolver
// of everything else. s.pkt is the frame, decoded.
func (s *slowPath) discovery(q *port, f *link.Frame) Verdict {
	p, from := s.pkt, (*packet.Eth)(f.Eth()).Src()
	if v := f.Vnet(); v.NeedsCsum() {
		if !checksumInside(v, p) {
			return DropOffload
		}
		forward.CompleteChecksum(p.Frame, v)
	}
	switch {
	case from.IsGroup() || from == packet.MAC{}:
		return DropNDP
	case p.ICMP().Type() == packet.ICMP6ListenerQuery:
		return s.listenerQuery(q, p) // from the host's own bridge it has the MAC address that may be ours too
	case s.isOurs(from):
		return PassNDP // our own, reflected by a switch or come in by another port on the same segment
	}
	var n packet.NDP
	if !packet.ParseNDP(p, &n) {
		return DropNDP
	}
	if n.MAC != (packet.MAC{}) {
		from = n.MAC
	}
	if s.isOurs(from) {
		return PassNDP
	}
	claimed := n.Src
	if n.Type == packet.ICMP6NeighbourAdvert {
		claimed = n.Target
	}
	if !claimed.IsZero() && s.owns(q, claimed) {
		s.conflict(q, claimed, from, false)
	}
	s.plane.signs.tell(announced{claimed, q.index})
	s.plane.cfg.NextHops.HandleNDP(q.index, &n)
	if n.Type != packet.ICMP6NeighbourSolicit || !s.owns(q, n.Target) {
		return PassNDP
	}
	s.tx[q.index].Send(forward.NeighbourReply(s.answer(), q.mac, &n, from, q.isGateway(n.Target)), nil)
	return AnsweredNDP
}

// isGateway says that a is the gateway address of q's segment: a router's, to neighbour discovery.
func (q *port) isGateway(a packet.Addr) bool {
	return slices.ContainsFunc(q.gateways, func(g gateway) bool { return g.addr == a })
}
