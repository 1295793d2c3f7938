package dataplane

import (
	"time"

	"go.uber.org/zap"

	"uvs/dataplane/link"
	"uvs/forward"
	"uvs/packet"
)

// arp answers requests for addresses of ours with our MAC and tells the resolver of everything else.
func (s *slowPath) arp(q *port, f *link.Frame) Verdict {
	_, payload, _ := packet.ParseEth(f.Eth())
	a, ok := packet.ParseARP(payload)
	if !ok || a.SenderMAC().IsGroup() || a.SenderMAC() == (packet.MAC{}) {
		return DropARP // whoever answered a station with such an address would answer everybody
	}
	if s.isOurs(a.SenderMAC()) {
		return PassARP // our own, reflected by a switch or come in by another port on the same segment
	}
	if sender := packet.AddrFrom4(a.Sender()); a.Sender() != 0 && s.owns(q, sender) {
		s.conflict(q, sender, a.SenderMAC(), a.Sender() == a.Target())
	}
	s.plane.signs.tell(announced{packet.AddrFrom4(a.Sender()), q.index})
	s.plane.cfg.NextHops.HandleARP(q.index, a)
	if a.Op() != packet.ARPRequest || !s.owns(q, packet.AddrFrom4(a.Target())) {
		return PassARP
	}
	b := forward.ARPReply(s.answer(), q.mac, a.Target(), a.SenderMAC(), a.Sender())
	s.tx[q.index].Send(b, nil)
	return AnsweredARP
}

// isOurs says that one of our ports sends from mac.
func (s *slowPath) isOurs(mac packet.MAC) bool {
	for i := range s.ports {
		if s.ports[i].mac == mac {
			return true
		}
	}
	return false
}

// conflictQuiet is how long a conflict about addresses is neither logged nor contested again (RFC 5227 section 2.4,
// DEFEND_INTERVAL).
const conflictQuiet = 10 * time.Second

// conflict tells the operator that another station claims an address of ours, and everybody else that it is ours. Most
// often that is a real server which has the VIP on its loopback and names it in its own ARP requests; of IPv6, one that has
// it on its Ethernet interface. On a segment where the address isn't announced, being at home on another, that harms nobody.
// announces says that the station announces the address rather than merely names or answers for it.
func (s *slowPath) conflict(q *port, a packet.Addr, mac packet.MAC, announces bool) {
	if !s.announce.knows(announced{a, q.index}) {
		return
	}
	s.plane.claims.note(Claim{Addr: a, Port: q.index, Station: mac}, announces)
	s.announce.defend(announced{a, q.index}, s.now)
	if s.lastConflict != 0 && s.now-s.lastConflict < int64(conflictQuiet) {
		return
	}
	s.lastConflict = s.now
	if s.plane.cfg.Conflict != nil {
		s.plane.cfg.Conflict(q.index, a.Netip(), mac)
	}
	remedy := "set arp_ignore and arp_announce"
	if !a.Is4() {
		remedy = "have it on lo"
	}
	s.plane.cfg.Log.Warn("another station claims an address of this director: its clients' packets go there; "+
		"remove the address there, or "+remedy+" if it is a real server",
		zap.Stringer("address", a), zap.Stringer("mac", mac), zap.String("interface", s.plane.cfg.Ports[q.index].Name))
}

// announceDue follows the configuration and sends the announcements whose time has come. The caller flushes.
func (s *slowPath) announceDue() {
	a := &s.announce
	if !a.started || a.addresses != s.table.Addresses && s.now-a.followed >= a.pause() || a.rerouted && s.now-a.followed >= int64(followPause) {
		a.started, a.addresses, a.rerouted, a.followed = true, s.table.Addresses, false, s.now
		a.follow(s.addresses(), s.now)
		s.followGroups()
	}
	a.due(s.now, s.announceOne)
}

// addresses are those to announce.
func (s *slowPath) addresses() map[announced]bool {
	want := make(map[announced]bool)
	s.everywhere(func(addr packet.Addr) bool {
		s.segments(addr, func(port int) { want[announced{addr, port}] = true })
		return true
	})
	for i := range s.ports {
		for _, g := range s.ports[i].gateways {
			want[announced{g.addr, i}] = true
		}
	}
	return want
}

// everywhere calls yield for the addresses that uvs has on all ports alike.
func (s *slowPath) everywhere(yield func(packet.Addr) bool) {
	s.table.VIPs(yield)
	for _, a := range s.own {
		yield(a)
	}
}

// segments calls yield for the ports that an address is announced on.
func (s *slowPath) segments(a packet.Addr, yield func(port int)) {
	if on := s.plane.cfg.AnnounceOn; on != nil {
		if port, ok := on(a); ok {
			yield(port)
			return
		}
	}
	for i := range s.ports {
		if !s.ports[i].inside {
			yield(i)
		}
	}
}

// announceOne asks whether anybody else has an address, and announces it: a probe and a request by us for ourselves (RFC
// 5227 sections 2.1.1 and 3), or a probe and an unsolicited advertisement (RFC 4862 section 5.4, RFC 4861 section 7.2.6).
// Who has it as well answers the probe, if not the announcement; conflict sees the answer.
func (s *slowPath) announceOne(k announced) {
	q, tx := &s.ports[k.port], s.tx[k.port]
	if !k.addr.Is4() {
		tx.Send(forward.NeighbourProbe(s.answer(), q.mac, k.addr), nil)
		tx.Send(forward.NeighbourAnnouncement(s.answer(), q.mac, k.addr, q.isGateway(k.addr)), nil)
		return
	}
	tx.Send(forward.ARPRequest(s.answer(), q.mac, 0, packet.Broadcast, k.addr.V4()), nil)
	tx.Send(forward.GratuitousARP(s.answer(), q.mac, k.addr.V4(), packet.ARPRequest), nil)
}
