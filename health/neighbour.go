package health

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"uvs/packet"
)

// solicitor asks hosts of the director's own segments for their MAC addresses: by ARP out of one packet socket, and by neighbour
// discovery out of one raw socket.
type solicitor struct {
	v4, v6 listener

	mu       sync.Mutex // guards what follows
	out      map[netip.Addr]map[*solicitation]struct{}
	segments []segment
	looked   time.Time // when segments was made
}

// segment is a network that an interface of the host is in.
type segment struct {
	index  int
	name   string
	mac    packet.MAC
	prefix netip.Prefix // with the host's own address, or not valid if it has none
}

// solicitation is a question.
type solicitation struct {
	index  int // the interface's
	result chan packet.MAC
}

// neighbours is what the checks of a process share.
var neighbours = newSolicitor(listenerIdle)

const (
	segmentsAge = 3 * time.Second // how long the host's addresses are taken to be as they were
	icmp6Advert = 136             // a neighbour advertisement (RFC 4861 section 4.4)
	hopLimitND  = 255             // RFC 4861 section 7.1.2: no router has passed it on
)

func newSolicitor(idle time.Duration) *solicitor {
	s := &solicitor{out: map[netip.Addr]map[*solicitation]struct{}{}}
	s.v4 = listener{idle: idle, open: openARP, heard: s.heardARP}
	s.v6 = listener{idle: idle, heard: s.heardAdvert, open: func() (pollable, error) {
		return icmpSocket(net.ListenPacket, "ip6:ipv6-icmp", "::", func(fd int) error {
			return errors.Join(filterICMP6(icmp6Advert)(fd),
				unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, hopLimitND),
				unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1))
		})
	}}
	return s
}

// openARP opens a packet socket for ARP on all interfaces.
func openARP() (pollable, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(networkOrder(unix.ETH_P_ARP)))
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	makeRoom(fd)
	return os.NewFile(uintptr(fd), "arp"), nil
}

// networkOrder is a protocol's number as packet sockets want it.
func networkOrder(n uint16) uint16 {
	var b [2]byte
	packet.SetWord(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}

// ask asks for addr's MAC address on the named interface, or, if that is empty, on the one whose network addr is in.
func (s *solicitor) ask(ctx context.Context, addr netip.Addr, name string, record func(sent bool, data []byte)) (packet.MAC, error) {
	addr = addr.Unmap()
	if name == "" {
		name = addr.Zone()
	}
	addr = addr.WithZone("")
	where, err := s.segment(addr, name)
	if err != nil {
		return packet.MAC{}, err
	}
	l := &s.v4
	if addr.Is6() {
		l = &s.v6
	}
	raw, release, err := l.use()
	if err != nil {
		return packet.MAC{}, because("cannot open a socket", err)
	}
	defer release()
	q := &solicitation{index: where.index, result: make(chan packet.MAC, 1)}
	defer s.wait(addr, q)()
	if err := where.solicit(ctx, raw, addr, record); err != nil {
		return packet.MAC{}, because("cannot send", err)
	}
	select {
	case mac := <-q.result:
		if record != nil {
			record(false, mac[:])
		}
		return mac, nil
	case <-ctx.Done():
		return packet.MAC{}, because("nobody has the address", ctx.Err())
	}
}

// wait registers a question; what it returns takes it back.
func (s *solicitor) wait(addr netip.Addr, q *solicitation) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out[addr] == nil {
		s.out[addr] = map[*solicitation]struct{}{}
	}
	s.out[addr][q] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if delete(s.out[addr], q); len(s.out[addr]) == 0 {
			delete(s.out, addr)
		}
	}
}

// solicit sends the question.
func (where *segment) solicit(ctx context.Context, raw syscall.RawConn, addr netip.Addr, record func(sent bool, data []byte)) error {
	target := packet.AddrFrom(addr)
	if addr.Is4() {
		// Without an address of the host in that network nobody is named as the sender, so that nobody's cache is touched (RFC 5227
		// section 2.1.1).
		sender := uint32(0)
		if where.prefix.IsValid() {
			sender = packet.AddrFrom(where.prefix.Addr()).V4()
		}
		b := make([]byte, packet.ARPLen)
		packet.PutARP(b, packet.ARPRequest, where.mac, sender, packet.MAC{}, target.V4())
		if record != nil {
			record(true, b)
		}
		to := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ARP), Ifindex: where.index, Halen: 6}
		copy(to.Addr[:], packet.Broadcast[:])
		return send(ctx, raw, b, to)
	}
	b := make([]byte, packet.NDPLen+packet.NDPMACLen)
	packet.PutNDP(b, &packet.NDP{Type: packet.ICMP6NeighbourSolicit, Target: target, MAC: where.mac}) // the kernel makes the checksum
	if record != nil {
		record(true, b)
	}
	return send(ctx, raw, b, &unix.SockaddrInet6{Addr: packet.SolicitedNode(target).As16(), ZoneId: uint32(where.index)})
}

// heardARP gives a reply to the questions it answers.
func (s *solicitor) heardARP(b, _ []byte, sender unix.Sockaddr) {
	from, ok := sender.(*unix.SockaddrLinklayer)
	if !ok {
		return
	}
	if a, ok := packet.ParseARP(b); ok && a.Op() == packet.ARPReply {
		s.answer(packet.AddrFrom4(a.Sender()).Netip(), from.Ifindex, a.SenderMAC())
	}
}

// heardAdvert does the same for a neighbour advertisement. The MAC address may be missing: the station that answers was asked by
// what the kernel knew already.
func (s *solicitor) heardAdvert(b, control []byte, sender unix.Sockaddr) {
	from, ok := sender.(*unix.SockaddrInet6)
	if !ok || len(b) < packet.NDPLen || b[0] != icmp6Advert || b[4]&packet.NDPSolicited == 0 || hopLimit(control) != hopLimitND {
		return
	}
	var mac packet.MAC
	if option := b[packet.NDPLen:]; len(option) >= packet.NDPMACLen && option[0] == 2 && option[1] == 1 {
		mac = packet.MAC(option[2:8])
	}
	// A sender's zone is told for link-local addresses alone, so the question's interface isn't held against any other's.
	s.answer(netip.AddrFrom16([16]byte(b[8:24])), int(from.ZoneId), mac)
}

// hopLimit is what the kernel said of a packet's hop limit, or -1.
func hopLimit(control []byte) int {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return -1
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_HOPLIMIT && len(m.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return -1
}

// answer ends the questions for addr on an interface; index 0 is any.
func (s *solicitor) answer(addr netip.Addr, index int, mac packet.MAC) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for q := range s.out[addr] {
		if index != 0 && index != q.index {
			continue
		}
		select {
		case q.result <- mac:
		default:
		}
	}
}

// segment is where addr is: on the named interface, or in which of the host's networks.
func (s *solicitor) segment(addr netip.Addr, name string) (*segment, error) {
	all, err := s.allSegments()
	if err != nil {
		return nil, because("cannot list the host's addresses", err)
	}
	var best *segment
	for i := range all {
		g := &all[i]
		in := g.prefix.IsValid() && g.prefix.Contains(addr)
		switch {
		case name != "" && g.name != name, name == "" && !in:
		case best == nil, in && !(best.prefix.IsValid() && best.prefix.Contains(addr)), in && g.prefix.Bits() > best.prefix.Bits():
			best = g
		}
	}
	switch {
	case best == nil && name != "":
		return nil, fmt.Errorf("there is no interface %s with Ethernet", name)
	case best == nil:
		return nil, fmt.Errorf("%v is in none of the host's networks: set interface", addr)
	case !best.prefix.IsValid() || !best.prefix.Contains(addr):
		other := *best
		other.prefix = netip.Prefix{}
		return &other, nil
	}
	return best, nil
}

// allSegments lists the networks of the host's Ethernet interfaces, each interface also without one.
func (s *solicitor) allSegments() ([]segment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.looked) < segmentsAge {
		return s.segments, nil
	}
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var all []segment
	for _, l := range links {
		if len(l.HardwareAddr) != len(packet.MAC{}) || l.Flags&net.FlagLoopback != 0 {
			continue
		}
		g := segment{index: l.Index, name: l.Name, mac: packet.MAC(l.HardwareAddr)}
		all = append(all, g)
		addrs, err := l.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			if g.prefix, err = netip.ParsePrefix(a.String()); err == nil {
				all = append(all, g)
			}
		}
	}
	s.segments, s.looked = all, time.Now()
	return all, nil
}
