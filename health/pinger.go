package health

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"uvs/packet"
)

// pinger asks hosts by ICMP echo, all of a family by one socket: a socket for each question would cost five system calls, and
// the kernel hands every raw socket each answer.
type pinger struct {
	v4, v6 listener
	id     uint16 // of all its questions

	mu   sync.Mutex          // guards what follows
	next uint16              // sequence number
	out  [2]map[uint16]*ping // the questions without answer of IPv4 and IPv6, by sequence number
}

// pings is what the checks of a process share.
var pings = newPinger(net.ListenPacket, listenerIdle)

// newPinger returns a pinger whose sockets listen opens, as net.ListenPacket does, and which are closed after idle.
func newPinger(listen func(network, address string) (net.PacketConn, error), idle time.Duration) *pinger {
	p := &pinger{id: uint16(rand.Uint32()), next: uint16(rand.Uint32()), out: [2]map[uint16]*ping{{}, {}}}
	p.v4 = listener{idle: idle, heard: p.heard4, open: func() (pollable, error) { return icmpSocket(listen, "ip4:icmp", "0.0.0.0", filterICMP4) }}
	p.v6 = listener{idle: idle, heard: p.heard6, open: func() (pollable, error) {
		return icmpSocket(listen, "ip6:ipv6-icmp", "::", filterICMP6(icmp6Unreachable, icmp6Exceeded, icmp6Reply))
	}}
	return p
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
)

// echo asks the host at addr with size bytes of payload, at least 8, and waits for its answer. record, if not nil, is told what
// was sent and received.
func (p *pinger) echo(ctx context.Context, addr netip.Addr, size int, record func(sent bool, data []byte)) error {
	addr = addr.Unmap()
	l, family := &p.v4, 0
	if addr.Is6() {
		l, family = &p.v6, 1
	}
	raw, release, err := l.use()
	if err != nil {
		return because("cannot open a socket for ICMP", err)
	}
	defer release()
	q := &ping{to: addr.WithZone(""), result: make(chan error, 1)}
	for i := range q.cookie {
		q.cookie[i] = byte(rand.Uint32())
	}
	seq, err := p.ask(family, q)
	if err != nil {
		return err
	}
	defer p.forget(family, seq)
	b := make([]byte, icmpHeaderLen+size)
	b[0] = icmp4Echo
	if addr.Is6() {
		b[0] = icmp6Echo
	}
	packet.SetWord(b[4:], p.id)
	packet.SetWord(b[6:], seq)
	copy(b[icmpHeaderLen:], q.cookie[:])
	for i := icmpHeaderLen + len(q.cookie); i < len(b); i++ {
		b[i] = byte(i)
	}
	if !addr.Is6() { // for ICMPv6 the kernel does it, who knows the source address
		packet.SetWord(b[2:], ^packet.Fold(packet.Sum(b, 0)))
	}
	if record != nil {
		record(true, b)
	}
	to, err := sockaddr(addr)
	if err == nil {
		err = send(ctx, raw, b, to)
	}
	if err != nil {
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

// ask gives the question a number.
func (p *pinger) ask(family int, q *ping) (uint16, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.out[family]
	for range 1 << 16 {
		p.next++
		if out[p.next] == nil {
			out[p.next] = q
			return p.next, nil
		}
	}
	return 0, fmt.Errorf("too many echo requests are out%w", quiet{ErrUnable})
}

func (p *pinger) forget(family int, seq uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.out[family], seq)
}

// heard6 gives an ICMPv6 message to the question it belongs to.
func (p *pinger) heard6(b, _ []byte, sender unix.Sockaddr) {
	from := addrOf(sender)
	switch {
	case len(b) < icmpHeaderLen:
	case b[0] == icmp6Reply:
		p.match(1, b, from, nil)
	case b[0] == icmp6Unreachable || b[0] == icmp6Exceeded:
		if quoted := b[icmpHeaderLen:]; len(quoted) >= packet.IPv6Len+icmpHeaderLen && quoted[6] == packet.ProtoICMPv6 {
			ip, rest := quoted[:packet.IPv6Len], quoted[packet.IPv6Len:]
			p.match(1, rest, netip.AddrFrom16([16]byte(ip[24:40])), icmpError(from, b[0] == icmp6Exceeded))
		}
	}
}

// heard4 does the same for ICMP; b has an IPv4 header.
func (p *pinger) heard4(b, _ []byte, _ unix.Sockaddr) {
	ip, b, ok := packet.ParseIPv4(b)
	if !ok || len(b) < icmpHeaderLen {
		return
	}
	from := packet.AddrFrom4(ip.Src()).Netip()
	switch b[0] {
	case icmp4Reply:
		p.match(0, b, from, nil)
	case icmp4Unreachable, icmp4Exceeded:
		quoted := b[icmpHeaderLen:]
		if len(quoted) < packet.IPv4Len || quoted[0]>>4 != 4 || quoted[9] != packet.ProtoICMP {
			return
		}
		if n := int(quoted[0]&15) * 4; n >= packet.IPv4Len && len(quoted) >= n+icmpHeaderLen {
			p.match(0, quoted[n:], netip.AddrFrom4([4]byte(quoted[16:20])), icmpError(from, b[0] == icmp4Exceeded))
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
func (p *pinger) match(family int, echo []byte, host netip.Addr, what error) {
	if packet.Word(echo[4:]) != p.id {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.out[family][packet.Word(echo[6:])]
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
