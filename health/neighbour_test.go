package health

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uvs/packet"
)

func FuzzNeighbours(f *testing.F) {
	arp := make([]byte, packet.ARPLen)
	packet.PutARP(arp, packet.ARPReply, packet.MAC{2, 1}, 0xc0000201, packet.MAC{2, 2}, 0xc0000209)
	f.Add(arp, []byte(nil))
	advert := make([]byte, packet.NDPLen+packet.NDPMACLen)
	packet.PutNDP(advert, &packet.NDP{Type: packet.ICMP6NeighbourAdvert, Flags: packet.NDPSolicited, Target: packet.AddrFrom(netip.MustParseAddr("2001:db8::1")), MAC: packet.MAC{2, 1}})
	f.Add(advert, []byte("\x14\x00\x00\x00\x00\x00\x00\x00\x29\x00\x00\x00\x34\x00\x00\x00\xff\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b, control []byte) {
		s := newSolicitor(time.Second)
		for _, a := range []string{"192.0.2.1", "2001:db8::1"} {
			s.wait(netip.MustParseAddr(a), &solicitation{index: 7, result: make(chan packet.MAC, 1)})
		}
		for range 2 {
			s.heardARP(b, control, &unix.SockaddrLinklayer{Ifindex: 7})
			s.heardAdvert(b, control, &unix.SockaddrInet6{})
		}
	})
}

// What answers an ARP request or a solicitation is a reply for that address, on the interface that was asked, and for IPv6 one
// that no router has passed on.
func TestNeighboursAnswer(t *testing.T) {
	server, server6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	mac := packet.MAC{2, 1}
	near := []byte("\x14\x00\x00\x00\x00\x00\x00\x00\x29\x00\x00\x00\x34\x00\x00\x00\xff\x00\x00\x00") // a hop limit of 255
	far := append([]byte(nil), near...)
	far[16] = 254
	reply := func(op uint16, of uint32) []byte {
		b := make([]byte, packet.ARPLen)
		packet.PutARP(b, op, mac, of, packet.MAC{2, 2}, 0xc0000209)
		return b
	}
	advert := func(flags uint8, of netip.Addr) []byte {
		b := make([]byte, packet.NDPLen+packet.NDPMACLen)
		packet.PutNDP(b, &packet.NDP{Type: packet.ICMP6NeighbourAdvert, Flags: flags, Target: packet.AddrFrom(of), MAC: mac})
		return b
	}
	arp := func(s *solicitor, index int, b []byte) { s.heardARP(b, nil, &unix.SockaddrLinklayer{Ifindex: index}) }
	nd := func(s *solicitor, b, control []byte) { s.heardAdvert(b, control, &unix.SockaddrInet6{}) }
	for name, c := range map[string]struct {
		of   netip.Addr
		hear func(s *solicitor)
		want bool
	}{
		"reply":             {server, func(s *solicitor) { arp(s, 7, reply(packet.ARPReply, 0xc0000201)) }, true},
		"request":           {server, func(s *solicitor) { arp(s, 7, reply(packet.ARPRequest, 0xc0000201)) }, false},
		"another's":         {server, func(s *solicitor) { arp(s, 7, reply(packet.ARPReply, 0xc0000202)) }, false},
		"another segment":   {server, func(s *solicitor) { arp(s, 8, reply(packet.ARPReply, 0xc0000201)) }, false},
		"cut":               {server, func(s *solicitor) { arp(s, 7, reply(packet.ARPReply, 0xc0000201)[:27]) }, false},
		"advert":            {server6, func(s *solicitor) { nd(s, advert(packet.NDPSolicited, server6), near) }, true},
		"unsolicited":       {server6, func(s *solicitor) { nd(s, advert(0, server6), near) }, false},
		"from afar":         {server6, func(s *solicitor) { nd(s, advert(packet.NDPSolicited, server6), far) }, false},
		"who knows whence":  {server6, func(s *solicitor) { nd(s, advert(packet.NDPSolicited, server6), nil) }, false},
		"another's, advert": {server6, func(s *solicitor) { nd(s, advert(packet.NDPSolicited, netip.MustParseAddr("2001:db8::2")), near) }, false},
	} {
		s := newSolicitor(time.Second)
		q := &solicitation{index: 7, result: make(chan packet.MAC, 1)}
		forget := s.wait(c.of, q)
		c.hear(s)
		if got := len(q.result) == 1 && <-q.result == mac; got != c.want {
			t.Errorf("%s: taken for the answer: %v, want %v", name, got, c.want)
		}
		if forget(); len(s.out) != 0 {
			t.Errorf("%s: a question is still out", name)
		}
	}
}
