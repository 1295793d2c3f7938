package dataplane

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

var (
	stackMAC = packet.MAC{2, 0, 0, 0, 0, 0x77}
	unbound  = netip.MustParseAddr("169.254.117.1")
)

// hosted is a director with a way into its host's stack, which the test plays.
type hosted struct {
	*director
	stack [2]*link.Mem // the worker's and the slow path's
}

func newHosted(t testing.TB, change func(*Config)) *hosted {
	t.Helper()
	h := &hosted{}
	for i := range h.stack {
		h.stack[i] = link.NewMem(link.MemConfig{MAC: stackMAC})
	}
	h.director = newDirector(t, func(c *Config) {
		c.Stack = &Stack{
			OpenRx: func(int) (link.Link, error) { return h.stack[0], nil },
			OpenTx: func() (link.Link, error) { return h.stack[1], nil },
			MAC:    stackMAC, Unbound: packet.AddrFrom(unbound),
		}
		if change != nil {
			change(c)
		}
	})
	return h
}

// toHost runs a frame from a client and returns what the host is given.
func (h *hosted) toHost(frame []byte) [][]byte {
	h.inject(0, frame)
	return append(h.stack[0].Sent(), h.stack[1].Sent()...)
}

// fromHost runs a packet that the host sends and returns what goes out to the clients.
func (h *hosted) fromHost(src netip.Addr, ttl uint8, rest ...gopacket.SerializableLayer) [][]byte {
	h.t.Helper()
	h.stack[0].Inject(frame(h.t, stackMAC, stackMAC, &layers.IPv4{SrcIP: src.AsSlice(), DstIP: client.Addr().AsSlice(), TTL: ttl}, rest...))
	return withoutARP(h.run()[0])
}

// wantIP checks a sent frame's addressing.
func wantIP(t *testing.T, what string, sent []byte, src, dst netip.AddrPort, ttl uint8) gopacket.Packet {
	t.Helper()
	p := parse(t, sent)
	ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	var sport, dport uint16
	if l4, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP); ok {
		sport, dport = uint16(l4.SrcPort), uint16(l4.DstPort)
	} else if l4, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP); ok {
		sport, dport = uint16(l4.SrcPort), uint16(l4.DstPort)
	}
	got := [2]netip.AddrPort{addrPort(ip.SrcIP, sport), addrPort(ip.DstIP, dport)}
	if got != [2]netip.AddrPort{src, dst} || ip.TTL != ttl {
		t.Errorf("%s: %v, TTL %d, want %v to %v, TTL %d", what, got, ip.TTL, src, dst, ttl)
	}
	return p
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip.To4())
	return netip.AddrPortFrom(a, port)
}

func TestLocalServerIsTheHostItself(t *testing.T) {
	d := newHosted(t, nil)
	for _, server := range []string{"127.0.0.1:8080", "10.9.0.1:8080"} {
		rs, virtual := netip.MustParseAddrPort(server), netip.AddrPortFrom(vip, 80)
		d.plane.Publish(service.NewTable(nil, d.servers, d.plane.Table().Generation+1))
		vs := d.serve(service.TCP, service.Local, server)
		from := netip.AddrPortFrom(client.Addr(), client.Port()+uint16(vs.Servers[0].Index)+1)
		// A TTL of 1 is enough, as nothing is forwarded.
		syn := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: from.Addr().AsSlice(), DstIP: vip.AsSlice(), TTL: 1}, tcp(from.Port(), 80, "S"))
		wantIP(t, "to the host", one(t, d.toHost(syn)), from, rs, 1)
		wantIP(t, "to the client", one(t, d.fromHost(rs.Addr(), 1, tcp(8080, from.Port(), "SA"))), virtual, from, 1)
		var c conntrack.Conn
		flow := packet.Flow{Src: packet.AddrFrom(from.Addr()), SrcPort: from.Port(), Dst: packet.AddrFrom(vip), DstPort: 80, Proto: packet.ProtoTCP}
		if !d.conns.Find(&flow, conntrack.In, d.now, &c) || c.State != conntrack.SynRecv || c.Flags&conntrack.NoOutput != 0 {
			t.Errorf("entry after the SYN+ACK: %+v", c)
		}
		d.fromHost(rs.Addr(), 64, tcp(8080, from.Port(), "RA"))
		if d.conns.Find(&flow, conntrack.In, d.now, &c); c.State != conntrack.Close {
			t.Errorf("state %v after the host's reset, want CLOSE as in the kernel", c.State)
		}
	}
	if v := d.verdicts(); v[ForwardedLocal] != 2 || v[Replied] != 4 {
		t.Errorf("verdicts %v", v)
	}
	d.accounted()
}

func TestHostsErrorsComeFromTheVIP(t *testing.T) {
	d := newHosted(t, nil)
	d.serve(service.UDP, service.Local, "127.0.0.1:5353")
	query := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice()},
		&layers.UDP{SrcPort: layers.UDPPort(client.Port()), DstPort: 53}, payload(20))
	got := one(t, d.toHost(query))
	wantIP(t, "query", got, client, netip.MustParseAddrPort("127.0.0.1:5353"), 64)
	unreachable := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 3)}
	quote := bytesOf(got[packet.VnetLen+packet.EthLen:])
	p := wantIP(t, "error", one(t, d.fromHost(netip.MustParseAddr("127.0.0.1"), 64, unreachable, quote)),
		netip.AddrPortFrom(vip, 0), netip.AddrPortFrom(client.Addr(), 0), 64)
	var q packet.Packet
	if !packet.DecodeQuoted(p.Layer(layers.LayerTypeICMPv4).LayerPayload(), &q) || q.Dst != packet.AddrFrom(vip) || q.DstPort != 53 {
		t.Errorf("the error quotes %+v, want the client's own packet", q)
	}
	d.accounted()
}

func TestClientsErrorsReachTheHost(t *testing.T) {
	d := newHosted(t, nil)
	d.serve(service.TCP, service.Local, "127.0.0.1:8080")
	d.toHost(fromClient(t, client, "S", ""))
	answer := one(t, d.fromHost(netip.MustParseAddr("127.0.0.1"), 64, tcp(8080, client.Port(), "A"), payload(100)))
	needed := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: net.IPv4(192, 0, 2, 254), DstIP: vip.AsSlice()},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4), Seq: 1400}, bytesOf(answer[packet.VnetLen+packet.EthLen:]))
	p := wantIP(t, "error", one(t, d.toHost(needed)), netip.MustParseAddrPort("192.0.2.254:0"), netip.MustParseAddrPort("127.0.0.1:0"), 64)
	var q packet.Packet
	if !packet.DecodeQuoted(p.Layer(layers.LayerTypeICMPv4).LayerPayload(), &q) || q.Src.String() != "127.0.0.1" || q.SrcPort != 8080 {
		t.Errorf("the error quotes %+v, want the host's own packet", q)
	}
}

// What the host sends is cut to what the way to the client carries: by its first hop, and further on. The kernel would not
// take an ICMP error's word for it, see errorToStack.
func TestAnswersAreCutToTheirWay(t *testing.T) {
	d := newHosted(t, nil)
	d.serve(service.TCP, service.Local, "127.0.0.1:8080")
	d.serve(service.UDP, service.Local, "127.0.0.1:5353")
	d.toHost(fromClient(t, client, "S", ""))
	d.toHost(frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice()},
		&layers.UDP{SrcPort: layers.UDPPort(client.Port()), DstPort: 53}, payload(20)))
	ip := func() *layers.IPv4 {
		return &layers.IPv4{SrcIP: net.IPv4(127, 0, 0, 1), DstIP: client.Addr().AsSlice(), Flags: layers.IPv4DontFragment}
	}
	answers := func(mtu int) {
		t.Helper()
		d.stack[0].Inject(frame(t, stackMAC, stackMAC, ip(), tcp(8080, client.Port(), "AP"), payload(1400)))
		segments := withoutARP(d.run()[0])
		next, total := uint32(1000), 0
		for _, s := range segments {
			p := parse(t, s)
			h := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
			if n := len(s) - packet.VnetLen - packet.EthLen; n > mtu || h.Seq != next || h.SrcPort != 80 {
				t.Errorf("segment of %d bytes, seq %d, want at most %d and %d: %v", n, h.Seq, mtu, next, p)
			}
			next += uint32(len(h.Payload))
			total += len(h.Payload)
		}
		if len(segments) != 2 || total != 1400 {
			t.Errorf("%d segments with %d bytes", len(segments), total)
		}
		d.stack[0].Inject(frame(t, stackMAC, stackMAC, ip(), &layers.UDP{SrcPort: 5353, DstPort: layers.UDPPort(client.Port())}, payload(1400)))
		fragments := withoutARP(d.run()[0])
		for _, s := range fragments {
			h := (*packet.IPv4)(s[packet.VnetLen+packet.EthLen:])
			if h.TotalLen() > mtu || h.DF() || h.ID() == 0 || h.Src() != packet.AddrFrom(vip).V4() {
				t.Errorf("fragment of %d bytes, DF %v, id %d", h.TotalLen(), h.DF(), h.ID())
			}
		}
		if len(fragments) != 2 {
			t.Errorf("%d fragments, want 2", len(fragments))
		}
	}
	d.hops.SetPrefix(netip.MustParsePrefix("192.0.2.0/24"), &nexthop.Hop{Iface: 0, Dst: gatewayMAC, MTU: 1300}, nexthop.Ready)
	answers(1300)
	quote := frame(t, cliMAC, gatewayMAC, &layers.IPv4{SrcIP: vip.AsSlice(), DstIP: client.Addr().AsSlice()}, tcp(80, client.Port(), "A"))
	d.toHost(frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: net.IPv4(192, 0, 2, 254), DstIP: vip.AsSlice()},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4), Seq: 900}, bytesOf(quote[packet.EthLen:])))
	answers(900)
	d.accounted()
}

// A UDP server on 0.0.0.0 leaves its address to the route, and then it is found by its port.
func TestUnboundServersAnswer(t *testing.T) {
	d := newHosted(t, nil)
	d.serve(service.UDP, service.Local, "10.9.0.1:5353", "127.0.0.1:5353")
	query := func(port uint16) []byte {
		return frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice()},
			&layers.UDP{SrcPort: layers.UDPPort(port), DstPort: 53}, payload(20))
	}
	for port := range uint16(4) {
		d.toHost(query(1000 + port))
		answer := d.fromHost(unbound, 64, &layers.UDP{SrcPort: 5353, DstPort: layers.UDPPort(1000 + port)}, payload(20))
		wantIP(t, "answer", one(t, answer), netip.AddrPortFrom(vip, 53), netip.AddrPortFrom(client.Addr(), 1000+port), 64)
	}
}

// What the host says to clients that use the server by its own address comes by the same way, and goes on.
func TestHostsOwnTrafficGoesOn(t *testing.T) {
	d := newHosted(t, nil)
	d.serve(service.UDP, service.Local, "10.9.0.1:53", "127.0.0.1:53")
	own := netip.MustParseAddr("10.9.0.1")
	d.hops.SetPrefix(netip.MustParsePrefix("192.0.2.0/24"), &nexthop.Hop{Iface: 0, Dst: gatewayMAC, MTU: 1500, Source: packet.AddrFrom(own)}, nexthop.Ready)
	udp := &layers.UDP{SrcPort: 53, DstPort: layers.UDPPort(client.Port())}
	for _, src := range []netip.Addr{own, unbound} {
		wantIP(t, "from "+src.String(), one(t, d.fromHost(src, 1, udp, payload(20))), netip.AddrPortFrom(own, 53), client, 1)
	}
	if sent := d.fromHost(netip.MustParseAddr("127.0.0.1"), 64, udp, payload(20)); len(sent) > 0 {
		t.Errorf("%d frames with a loopback address were sent", len(sent))
	}
	if v := d.verdicts(); v[ForwardedHosts] != 2 || v[DropNoConn] != 1 {
		t.Errorf("verdicts %v", v)
	}
	d.accounted()
}

func TestWithoutAWayIntoTheHostLocalIsDropped(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Local, "127.0.0.1:8080")
	d.inject(0, fromClient(t, client, "S", ""))
	if v := d.verdicts(); v[DropMethod] != 1 {
		t.Errorf("verdicts %v", v)
	}
}

func TestAllocLocalAllocatesNothing(t *testing.T) {
	d := newHosted(t, nil)
	d.serve(service.TCP, service.Local, "127.0.0.1:80")
	d.toHost(fromClient(t, client, "S", ""))
	w := d.plane.workers[0]
	answer := frame(t, stackMAC, stackMAC, &layers.IPv4{SrcIP: net.IPv4(127, 0, 0, 1), DstIP: client.Addr().AsSlice()}, tcp(80, client.Port(), "A"))
	w.setTx([]link.Link{new(traffic), new(traffic), new(traffic)})
	w.rx = []link.Link{link.NewReplay(*received(fromClient(t, client, "A", ""))), new(noLink), link.NewReplay(*received(answer))}
	now := d.now
	if n := testing.AllocsPerRun(100, func() { now += 1000; w.step(now) }); n != 0 {
		t.Errorf("%v allocations per packet both ways, want 0", n)
	}
	if v := d.verdicts(); v[ForwardedLocal] < 100 || v[Replied] < 100 {
		t.Errorf("frames took another way: %v", v)
	}
}

// FuzzFromHost sends any bytes as what the host's stack sends: nothing may crash the path, and each frame must be accounted
// for.
func FuzzFromHost(f *testing.F) {
	loopback := &layers.IPv4{SrcIP: net.IPv4(127, 0, 0, 1), DstIP: client.Addr().AsSlice()}
	answer := frame(f, stackMAC, stackMAC, loopback, tcp(8080, client.Port(), "A"), payload(700))
	datagram := frame(f, stackMAC, stackMAC, &layers.IPv4{SrcIP: unbound.AsSlice(), DstIP: client.Addr().AsSlice(), Flags: layers.IPv4DontFragment},
		&layers.UDP{SrcPort: 5353, DstPort: layers.UDPPort(client.Port())}, payload(700))
	asked := frame(f, stackMAC, stackMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: net.IPv4(127, 0, 0, 1)},
		&layers.UDP{SrcPort: layers.UDPPort(client.Port()), DstPort: 5353}, payload(20))
	refused := frame(f, stackMAC, stackMAC, loopback, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 3)}, bytesOf(asked[packet.EthLen:]))
	f.Add(answer, uint8(0), uint16(0), uint8(0), uint16(0), uint16(1500)) // the answer of a TCP server
	f.Add(answer, uint8(1), uint16(100), uint8(1), uint16(34), uint16(600))
	f.Add(answer, uint8(0), uint16(0), uint8(0), uint16(0), uint16(600))    // too long for the way
	f.Add(datagram, uint8(0), uint16(0), uint8(0), uint16(0), uint16(1500)) // of a UDP server on every address
	f.Add(datagram, uint8(5), uint16(100), uint8(1), uint16(34), uint16(600))
	f.Add(refused, uint8(0), uint16(0), uint8(0), uint16(0), uint16(1500)) // port unreachable
	client6 := packet.AddrFrom(client6.Addr())
	answer6 := frame6(stackMAC, stackMAC, loopback6, client6, packet.ProtoTCP, tcp6(8080, 40001, packet.TCPAck, make([]byte, 1400)), 16)
	datagram6 := frame6(stackMAC, stackMAC, packet.AddrFrom(unbound6), client6, packet.ProtoUDP, udp6(5353, 40001, 1400), 6)
	asked6 := frame6(stackMAC, stackMAC, client6, loopback6, packet.ProtoUDP, udp6(40001, 5353, 20), 6)
	refused6 := frame6(stackMAC, stackMAC, loopback6, client6, packet.ProtoICMPv6,
		append([]byte{packet.ICMP6Unreachable, packet.ICMP6CodePort, 0, 0, 0, 0, 0, 0}, asked6[packet.EthLen:]...), 2)
	f.Add(answer6, uint8(0), uint16(0), uint8(0), uint16(0), uint16(1500)) // the same in IPv6
	f.Add(answer6, uint8(4), uint16(100), uint8(1), uint16(54), uint16(600))
	f.Add(answer6, uint8(0), uint16(0), uint8(0), uint16(0), uint16(1300))
	f.Add(datagram6, uint8(0), uint16(0), uint8(0), uint16(0), uint16(1500))
	f.Add(datagram6, uint8(0), uint16(0), uint8(0), uint16(0), uint16(1300))
	f.Add(datagram6, uint8(5), uint16(100), uint8(1), uint16(54), uint16(1300))
	f.Add(refused6, uint8(0), uint16(0), uint8(0), uint16(0), uint16(1500))
	f.Fuzz(func(t *testing.T, data []byte, gso uint8, size uint16, flags uint8, start, mtu uint16) {
		d := newHosted6(t)
		d.serve(service.TCP, service.Local, "127.0.0.1:8080")
		d.serve(service.UDP, service.Local, "127.0.0.1:5353")
		d.serveLocal6(service.TCP, netip.MustParseAddrPort("[::1]:8080"))
		d.serveLocal6(service.UDP, netip.MustParseAddrPort("[::1]:5353"))
		d.toHost(fromClient6(packet.TCPSyn, nil))
		d.toHost(query6())
		d.wayToClients6(int(mtu))
		d.toHost(fromClient(t, client, "S", ""))
		d.toHost(frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: client.Addr().AsSlice(), DstIP: vip.AsSlice()},
			&layers.UDP{SrcPort: layers.UDPPort(client.Port()), DstPort: 53}, payload(20)))
		d.hops.SetPrefix(netip.MustParsePrefix("192.0.2.0/24"), &nexthop.Hop{Iface: 0, Dst: gatewayMAC, MTU: int(mtu)}, nexthop.Ready)
		fr := link.Frame{Buf: append(make([]byte, packet.VnetLen), data...)}
		if flags&0x80 == 0 {
			mendIPv4(fr.Eth())
		}
		v := fr.Vnet()
		v.SetGSOType(gso)
		v.SetGSOSize(int(size))
		v.SetFlags(flags & 1)
		v.SetCsumStart(int(start))
		v.SetCsumOffset(int(gso))
		d.stack[0].InjectFrame(fr)
		d.run()
		d.accounted()
	})
}
