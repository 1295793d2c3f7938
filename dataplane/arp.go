package dataplane

import (
	"math"
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
	if !ok {
		return DropARP
	}
	if a.SenderMAC() == q.mac {
		return PassARP // our own, reflected by a switch
	}
	if sender := packet.AddrFrom4(a.Sender()); a.Sender() != 0 && s.owns(q, sender) {
		s.conflict(q, sender, a.SenderMAC())
	}
	s.plane.cfg.NextHops.HandleARP(q.index, a)
	if a.Op() != packet.ARPRequest || !s.owns(q, packet.AddrFrom4(a.Target())) {
		return PassARP
	}
	b := forward.ARPReply(s.answer(), q.mac, a.Target(), a.SenderMAC(), a.Sender())
	s.tx[q.index].Send(b, nil)
	return AnsweredARP
}

// conflictQuiet is how long a conflict about addresses is not logged again.
const conflictQuiet = 10 * time.Second

// conflict tells the operator that another station claims an address of ours.
func (s *slowPath) conflict(q *port, a packet.Addr, mac packet.MAC) {
	if s.announce.lastConflict != 0 && s.now-s.announce.lastConflict < int64(conflictQuiet) {
		return
	}
	s.announce.lastConflict = s.now
	s.plane.cfg.Log.Warn("another station claims an address of this director: its clients' packets go there; "+
		"remove the address there, or set arp_ignore and arp_announce if it is a real server",
		zap.Stringer("address", a), zap.Stringer("mac", mac), zap.String("interface", s.plane.cfg.Ports[q.index].Name))
}

// announcer says which address is announced by gratuitous ARP when.
type announcer struct {
	interval     int64
	due          map[announced]schedule
	generation   uint64
	started      bool
	lastConflict int64
}

type announced struct {
	addr packet.Addr
	port int
}

type schedule struct {
	at   int64
	left int // announcements of the opening burst still to come
}

const (
	announceBurst   = 4   // at once, and three times more a second apart: one lost frame must not cost an interval
	announcePerTick = 200 // frames in a tick, so that thousands of addresses don't flood the segment
)

func (a *announcer) init(interval time.Duration) {
	a.interval = int64(interval)
	a.due = make(map[announced]schedule)
}

// announceDue follows the configuration and sends the gratuitous ARPs whose time has come. The caller flushes.
func (s *slowPath) announceDue() {
	a := &s.announce
	if !a.started || a.generation != s.table.Generation {
		a.started, a.generation = true, s.table.Generation
		s.announceFollow()
	}
	sent := 0
	for k, at := range a.due {
		if at.at > s.now {
			continue
		}
		if sent++; sent > announcePerTick {
			break // the rest is still due at the next tick
		}
		s.gratuitousARP(k)
		switch {
		case at.left > 1:
			a.due[k] = schedule{s.now + int64(time.Second), at.left - 1}
		case a.interval < 0:
			a.due[k] = schedule{at: math.MaxInt64} // known, never due again
		default:
			a.due[k] = schedule{at: s.now + a.interval}
		}
	}
}

// announceFollow brings the addresses to announce in line with the table: new ones at once, gone ones never again.
func (s *slowPath) announceFollow() {
	a := &s.announce
	want := make(map[announced]bool)
	own := func(addr packet.Addr) bool {
		if addr.Is4() {
			for _, port := range s.segments(addr) {
				want[announced{addr, port}] = true
			}
		}
		return true
	}
	s.table.VIPs(own)
	own(s.masq)
	for i := range s.ports {
		for _, g := range s.ports[i].gateways {
			want[announced{g.addr, i}] = true
		}
	}
	for k := range a.due {
		if !want[k] {
			delete(a.due, k)
		}
	}
	for k := range want {
		if _, known := a.due[k]; !known {
			a.due[k] = schedule{s.now, announceBurst}
		}
	}
}

// segments are the ports that an address is announced on.
func (s *slowPath) segments(a packet.Addr) []int {
	if on := s.plane.cfg.AnnounceOn; on != nil {
		if port, ok := on(a); ok {
			return []int{port}
		}
	}
	var outside []int
	for i := range s.ports {
		if !s.ports[i].inside {
			outside = append(outside, i)
		}
	}
	return outside
}

// gratuitousARP announces an address: a request by us for ourselves (RFC 5227 section 3).
func (s *slowPath) gratuitousARP(k announced) {
	q := &s.ports[k.port]
	s.tx[q.index].Send(forward.GratuitousARP(s.answer(), q.mac, k.addr.V4(), packet.ARPRequest), nil)
}
