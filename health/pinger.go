package health

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"uvs/packet"
)

// pinger asks hosts by ICMP echo, all of a family by one socket: a socket for each question would cost five system calls, and
// the kernel hands every raw socket each answer. The socket is opened with the first question, and closed after none has been
// out for idle.
type pinger struct {
	// listen opens a raw socket, as net.ListenPacket does.
	listen func(network, address string) (net.PacketConn, error)
	idle   time.Duration

	mu   sync.Mutex // guards the sockets and what is in them, but for reading
	v4   *pingSocket
	v6   *pingSocket
	over sync.WaitGroup // the receivers
}

// pings is what the checks of a process share.
var pings = &pinger{listen: net.ListenPacket, idle: 10 * time.Second}

// pingSocket is a family's socket. Its fields but the first are guarded by the pinger's mutex.
type pingSocket struct {
	raw     syscall.RawConn
	conn    net.PacketConn
	v6      bool
	id      uint16
	next    uint16           // sequence number
	out     map[uint16]*ping // the questions without answer, by sequence number
	lastOut time.Time        // when the last one was ended
}

// ping is a question.
type ping struct {
	to     netip.Addr
	cookie [8]byte    // begins the payload: an answer from a host that has not seen it is forged
	result chan error // has room for one
}

const (
	icmpHeaderLen = 8
	maxPingSize   = 65507 - icmpHeaderLen

	// What stands in the first byte of an ICMP message and an ICMPv6 message (RFC 792, RFC 4443).
	icmp4Reply, icmp4Unreachable, icmp4Echo, icmp4Exceeded = 0, 3, 8, 11
	icmp6Unreachable, icmp6Exceeded, icmp6Echo, icmp6Reply = 1, 3, 128, 129

	// Linux' names for the filter of raw ICMP sockets, which golang.org/x/sys hasn't.
	solRaw, icmpFilter = 255, 1
)

// echo asks the host at addr with size bytes of payload, at least 8, and waits for its answer. record, if not nil, is told what
// was sent and received.
func (p *pinger) echo(ctx context.Context, addr netip.Addr, size int, record func(sent bool, data []byte)) error {
	q := &ping{to: addr.Unmap().WithZone(""), result: make(chan error, 1)}
	for i := range q.cookie {
		q.cookie[i] = byte(rand.Uint32())
	}
	s, seq, err := p.ask(q)
	if err != nil {
		return err
	}
	defer p.forget(s, seq)
	b := make([]byte, icmpHeaderLen+size)
	b[0] = icmp4Echo
	if s.v6 {
		b[0] = icmp6Echo
	}
	packet.SetWord(b[4:], s.id)
	packet.SetWord(b[6:], seq)
	copy(b[icmpHeaderLen:], q.cookie[:])
	for i := icmpHeaderLen + len(q.cookie); i < len(b); i++ {
		b[i] = byte(i)
	}
	if !s.v6 { // for ICMPv6 the kernel does it, who knows the source address
		packet.SetWord(b[2:], ^packet.Fold(packet.Sum(b, 0)))
	}
	if record != nil {
		record(true, b)
	}
	if err := s.send(ctx, addr, b); err != nil {
		return because("cannot send", err)
	}
	select {
	case err = <-q.result:
		if err == nil && record != nil {
			record(false, b[icmpHeaderLen:]) // the same payload came back
		}
		return err
	case <-ctx.Done():
		return because("no echo", ctx.Err())
	}
}

// ask gives the question a number, opening the socket if there is none.
func (p *pinger) ask(q *ping) (*pingSocket, uint16, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := &p.v4
	if q.to.Is6() {
		at = &p.v6
	}
	if *at == nil {
		s, err := p.open(q.to.Is6())
		if err != nil {
			return nil, 0, because("cannot open a socket for ICMP", err)
		}
		*at = s
		p.over.Go(func() { p.receive(s, at) })
	}
	s := *at
	for range 1 << 16 {
		s.next++
		if s.out[s.next] == nil {
			s.out[s.next] = q
			return s, s.next, nil
		}
	}
	return nil, 0, errors.New("too many echo requests are out")
}

func (p *pinger) forget(s *pingSocket, seq uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(s.out, seq)
	s.lastOut = time.Now()
}

// open opens a family's socket.
func (p *pinger) open(v6 bool) (*pingSocket, error) {
	network, address := "ip4:icmp", "0.0.0.0"
	if v6 {
		network, address = "ip6:ipv6-icmp", "::"
	}
	conn, err := p.listen(network, address)
	if err != nil {
		return nil, err
	}
	s := &pingSocket{conn: conn, v6: v6, id: uint16(rand.Uint32()), next: uint16(rand.Uint32()), out: map[uint16]*ping{}, lastOut: time.Now()}
	c, ok := conn.(syscall.Conn)
	if !ok {
		_ = conn.Close()
		return nil, errors.New("not a socket")
	}
	if s.raw, err = c.SyscallConn(); err == nil {
		var inner error
		err = s.raw.Control(func(fd uintptr) { inner = s.set(int(fd)) })
		err = errors.Join(err, inner)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

// set asks the kernel for the messages of interest alone, and for room: an answer that finds none would be a server down, and
// what is sent to hosts that don't answer neighbour discovery waits in the socket's send buffer.
func (s *pingSocket) set(fd int) error {
	const room = 8 << 20
	for _, option := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, option[0], room) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option[1], room)
		}
	}
	if s.v6 {
		f := unix.ICMPv6Filter{}
		for i := range f.Data {
			f.Data[i] = ^uint32(0)
		}
		for _, t := range []int{icmp6Unreachable, icmp6Exceeded, icmp6Reply} {
			f.Data[t/32] &^= 1 << (t % 32)
		}
		return unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &f)
	}
	pass := uint32(1<<icmp4Reply | 1<<icmp4Unreachable | 1<<icmp4Exceeded)
	return unix.SetsockoptInt(fd, solRaw, icmpFilter, int(^pass))
}

// send sends a message. No other question waits while the socket's buffer is full, but this one.
func (s *pingSocket) send(ctx context.Context, addr netip.Addr, b []byte) error {
	var to unix.Sockaddr
	if s.v6 {
		to6 := &unix.SockaddrInet6{Addr: addr.As16()}
		if addr.Zone() != "" {
			l, err := net.InterfaceByName(addr.Zone())
			if err != nil {
				return err
			}
			to6.ZoneId = uint32(l.Index)
		}
		to = to6
	} else {
		to = &unix.SockaddrInet4{Addr: addr.Unmap().As4()}
	}
	for {
		var err error
		if e := s.raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, to) }); e != nil {
			return e
		}
		if err != unix.EAGAIN && err != unix.ENOBUFS && err != unix.EINTR {
			return err
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// receive gives answers to the questions they belong to until the socket has been idle.
func (p *pinger) receive(s *pingSocket, at **pingSocket) {
	b := make([]byte, 64<<10)
	var err error
	for {
		_ = s.conn.SetReadDeadline(time.Now().Add(p.idle))
		n, from := 0, netip.Addr{}
		e := s.raw.Read(func(fd uintptr) bool {
			var sa unix.Sockaddr
			n, sa, err = unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT)
			if sa6, ok := sa.(*unix.SockaddrInet6); ok {
				from = netip.AddrFrom16(sa6.Addr)
			}
			return err != unix.EAGAIN && err != unix.EINTR
		})
		switch {
		case e != nil: // nothing came for so long, or the socket is closed
			if p.retire(s, at, errors.Is(e, net.ErrClosed)) {
				return
			}
		case err == nil:
			p.answer(s, b[:n], from)
		}
	}
}

// retire closes a socket that no question has needed for a while.
func (p *pinger) retire(s *pingSocket, at **pingSocket, closed bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !closed && (len(s.out) > 0 || time.Since(s.lastOut) < p.idle) {
		return false
	}
	*at = nil
	_ = s.conn.Close()
	return true
}

// answer gives a message to the question it belongs to. from is an IPv6 message's sender; an IPv4 one has its header.
func (p *pinger) answer(s *pingSocket, b []byte, from netip.Addr) {
	if s.v6 {
		switch {
		case len(b) < icmpHeaderLen:
		case b[0] == icmp6Reply:
			p.match(s, b, from, nil)
		case b[0] == icmp6Unreachable || b[0] == icmp6Exceeded:
			if quoted := b[icmpHeaderLen:]; len(quoted) >= packet.IPv6Len+icmpHeaderLen && quoted[6] == packet.ProtoICMPv6 {
				ip, rest := quoted[:packet.IPv6Len], quoted[packet.IPv6Len:]
				p.match(s, rest, netip.AddrFrom16([16]byte(ip[24:40])), icmpError(from, b[0] == icmp6Exceeded))
			}
		}
		return
	}
	ip, b, ok := packet.ParseIPv4(b)
	if !ok || len(b) < icmpHeaderLen {
		return
	}
	from = packet.AddrFrom4(ip.Src()).Netip()
	switch b[0] {
	case icmp4Reply:
		p.match(s, b, from, nil)
	case icmp4Unreachable, icmp4Exceeded:
		quoted := b[icmpHeaderLen:]
		if len(quoted) < packet.IPv4Len || quoted[0]>>4 != 4 || quoted[9] != packet.ProtoICMP {
			return
		}
		if n := int(quoted[0]&15) * 4; n >= packet.IPv4Len && len(quoted) >= n+icmpHeaderLen {
			p.match(s, quoted[n:], netip.AddrFrom4([4]byte(quoted[16:20])), icmpError(from, b[0] == icmp4Exceeded))
		}
	}
}

func icmpError(from netip.Addr, exceeded bool) error {
	if exceeded {
		return fmt.Errorf("%v says that the way is too long", from)
	}
	return fmt.Errorf("%v says that the host is unreachable", from)
}

// match ends the question that an echo message at host belongs to; what is nil for an answer, which has the whole payload.
func (p *pinger) match(s *pingSocket, echo []byte, host netip.Addr, what error) {
	if packet.Word(echo[4:]) != s.id {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	q := s.out[packet.Word(echo[6:])]
	if q == nil || q.to != host {
		return
	}
	payload := echo[icmpHeaderLen:]
	if what == nil && (len(payload) < len(q.cookie) || [8]byte(payload[:8]) != q.cookie) {
		return
	}
	select {
	case q.result <- what:
	default: // it has one
	}
}
