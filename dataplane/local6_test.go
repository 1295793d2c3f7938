package dataplane

import (
	"bytes"
	"net/netip"
	"testing"

	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/sched"
	"uvs/service"
)

var (
	unbound6  = netip.MustParseAddr("fd75::1")
	loopback6 = packet.AddrFrom(netip.IPv6Loopback())
	own6      = packet.AddrFrom(netip.MustParseAddr("2001:db8:9::1"))
)

// serveLocal6 publishes a service of the VIP, TCP on port 80 or UDP on 53, with one server, which is the host.
func (d *director) serveLocal6(proto service.Proto, server netip.AddrPort) {
	d.t.Helper()
	port := map[service.Proto]uint16{service.TCP: 80, service.UDP: 53}[proto]
	key := service.Key{Proto: proto, Addr: netip.AddrPortFrom(vip6, port)}
	s, err := sched.New("rr", 0)
	if err != nil {
		d.t.Fatal(err)
	}
	rs := service.NewRealServer(key, server, service.Local, 1)
	if err := d.servers.Add(rs); err != nil {
		d.t.Fatal(err)
	}
	old := d.plane.Table()
	vs := &service.VirtualService{Key: key, Scheduler: s, SchedulerName: "rr", Index: uint32(len(old.Services)), Servers: []*service.RealServer{rs}}
	s.Changed(service.Change{Kind: service.ServerAdded, Server: rs, After: vs.Servers})
	s.Prepare(vs.Servers)
	d.plane.Publish(service.NewTable(append(append([]*service.VirtualService(nil), old.Services...), vs), d.servers, old.Generation+1))
	d.wayToClients6(1500)
	d.run()
}

func (d *director) wayToClients6(mtu int) {
	d.hops.SetPrefix(netip.MustParsePrefix("2001:db8:c::/48"), &nexthop.Hop{Iface: 0, Dst: gatewayMAC, MTU: mtu, Source: own6}, nexthop.Ready)
}

// fromHost6 runs a packet that the host sends to the client and returns what goes out.
func (h *hosted) fromHost6(src packet.Addr, proto uint8, l4 []byte, sum int) [][]byte {
	h.stack[0].Inject(frame6(stackMAC, stackMAC, src, packet.AddrFrom(client6.Addr()), proto, l4, sum))
	return h.run()[0]
}

func udp6(src, dst uint16, n int) []byte {
	b := make([]byte, packet.UDPLen+n)
	(*packet.Ports)(b).SetSrc(src)
	(*packet.Ports)(b).SetDst(dst)
	(*packet.UDP)(b).SetLen(len(b))
	return b
}

func query6() []byte {
	return frame6(gatewayMAC, cliMAC, packet.AddrFrom(client6.Addr()), packet.AddrFrom(vip6), packet.ProtoUDP, udp6(client6.Port(), 53, 20), 6)
}

func newHosted6(t testing.TB) *hosted {
	return newHosted(t, func(c *Config) {
		c.Stack.Loopback, c.Stack.Unbound6 = packet.MAC{}, packet.AddrFrom(unbound6)
	})
}

func TestLocalServerByIPv6(t *testing.T) {
	for _, c := range []struct {
		server packet.Addr
		to     packet.MAC // of the station that gets it
	}{{own6, stackMAC}, {loopback6, packet.MAC{}}} {
		d := newHosted6(t)
		d.serveLocal6(service.TCP, netip.AddrPortFrom(c.server.Netip(), 8080))
		sent := one(t, d.toHost(fromClient6(packet.TCPSyn, nil)))
		if to := (*packet.Eth)(sent[packet.VnetLen:]).Dst(); to != c.to {
			t.Errorf("for %v: sent to %v, want %v", c.server, to, c.to)
		}
		var p packet.Packet
		if fault := packet.DecodeOwn(sent[packet.VnetLen:], &p); fault != packet.NoFault || p.Dst != c.server || p.DstPort != 8080 || p.TTL != 64 {
			t.Errorf("to the host: fault %d, %+v", fault, p)
		}
		out := decoded(t, one(t, d.fromHost6(c.server, packet.ProtoTCP, tcp6(8080, client6.Port(), packet.TCPSyn|packet.TCPAck, nil), 16)))
		if out.Src != packet.AddrFrom(vip6) || out.SrcPort != 80 || out.TTL != 64 {
			t.Errorf("to the client: %+v", out)
		}
		// What the host sends is cut to its way.
		d.wayToClients6(1300)
		next, total := uint32(1000), 0
		for _, s := range d.fromHost6(c.server, packet.ProtoTCP, tcp6(8080, client6.Port(), packet.TCPAck, make([]byte, 1400)), 16) {
			p := decoded(t, s)
			if p.IPLen() > 1300 || p.TCP().Seq() != next {
				t.Errorf("segment of %d bytes, seq %d, want at most 1300 and %d", p.IPLen(), p.TCP().Seq(), next)
			}
			n := len(p.Frame) - p.Payload
			next, total = next+uint32(n), total+n
		}
		if total != 1400 {
			t.Errorf("%d bytes in segments, want 1400", total)
		}
		d.accounted()
	}
}

func TestUDPOfTheHostByIPv6(t *testing.T) {
	d := newHosted6(t)
	d.serveLocal6(service.UDP, netip.AddrPortFrom(netip.IPv6Loopback(), 5353))
	given := one(t, d.toHost(query6()))
	// A server on :: leaves its address to the route, and then it is found by its port.
	for _, src := range []packet.Addr{loopback6, packet.AddrFrom(unbound6)} {
		p := decoded(t, one(t, d.fromHost6(src, packet.ProtoUDP, udp6(5353, client6.Port(), 20), 6)))
		if p.Src != packet.AddrFrom(vip6) || p.SrcPort != 53 {
			t.Errorf("answer from %v: %+v", src, p)
		}
	}
	// A datagram that is too long for its way goes in fragments.
	d.wayToClients6(1300)
	fragments := d.fromHost6(loopback6, packet.ProtoUDP, udp6(5353, client6.Port(), 1400), 6)
	if len(fragments) != 2 {
		t.Fatalf("%d fragments, want 2", len(fragments))
	}
	for _, s := range fragments {
		if p := decoded(t, s); !p.Fragment || p.IPLen() > 1300 || p.Src != packet.AddrFrom(vip6) {
			t.Errorf("fragment %+v", p)
		}
	}
	d.wayToClients6(1500)
	// A router's word on the path counts too, and the host refuses in the VIP's name.
	answer := frame6(cliMAC, gatewayMAC, packet.AddrFrom(vip6), packet.AddrFrom(client6.Addr()), packet.ProtoUDP, udp6(53, client6.Port(), 1400), 6)
	tooBig := append([]byte{packet.ICMP6TooBig, 0, 0, 0, 0, 0, 1300 >> 8, 1300 & 0xff}, answer[packet.EthLen:packet.EthLen+500]...)
	router := packet.AddrFrom(netip.MustParseAddr("2001:db8:c::1"))
	one(t, d.toHost(frame6(gatewayMAC, cliMAC, router, packet.AddrFrom(vip6), packet.ProtoICMPv6, tooBig, 2)))
	if n := len(d.fromHost6(loopback6, packet.ProtoUDP, udp6(5353, client6.Port(), 1400), 6)); n != 2 {
		t.Errorf("%d fragments after a router said 1300, want 2", n)
	}
	refused := append([]byte{packet.ICMP6Unreachable, packet.ICMP6CodePort, 0, 0, 0, 0, 0, 0}, given[packet.VnetLen+packet.EthLen:]...)
	p := decoded(t, one(t, d.fromHost6(loopback6, packet.ProtoICMPv6, refused, 2)))
	var q packet.Packet
	if p.Src != packet.AddrFrom(vip6) || !packet.DecodeQuoted(p.Frame[p.L4+packet.ICMPLen:], &q) || q.Dst != packet.AddrFrom(vip6) || q.DstPort != 53 {
		t.Errorf("the refusal comes from %v and quotes %+v", p.Src, q)
	}
	d.accounted()
}

// A client that asked for a server by another method than NAT is quoted what it sent, to the last bit, as by the kernel.
func TestHostsErrorQuotesWhatTheClientSent(t *testing.T) {
	d := newHosted6(t)
	d.serveLocal6(service.UDP, netip.AddrPortFrom(netip.IPv6Loopback(), 5353))
	d.plane.Table().Services[0].Servers[0].SetAsked(service.Route)
	query := query6()
	given := one(t, d.toHost(query))
	refused := append([]byte{packet.ICMP6Unreachable, packet.ICMP6CodePort, 0, 0, 0, 0, 0, 0}, given[packet.VnetLen+packet.EthLen:]...)
	p := decoded(t, one(t, d.fromHost6(loopback6, packet.ProtoICMPv6, refused, 2)))
	if quote := p.Frame[p.L4+packet.ICMPLen:]; !bytes.Equal(quote, query[packet.EthLen:]) {
		t.Errorf("quotes %x, want %x", quote, query[packet.EthLen:])
	}
}

func TestHostsOwnTrafficByIPv6GoesOn(t *testing.T) {
	d := newHosted6(t)
	d.serveLocal6(service.UDP, netip.AddrPortFrom(own6.Netip(), 5353))
	for _, src := range []packet.Addr{own6, packet.AddrFrom(unbound6)} {
		p := decoded(t, one(t, d.fromHost6(src, packet.ProtoUDP, udp6(5353, client6.Port(), 20), 6)))
		if p.Src != own6 || p.SrcPort != 5353 {
			t.Errorf("from %v: %+v", src, p)
		}
	}
	if sent := d.fromHost6(loopback6, packet.ProtoUDP, udp6(5353, client6.Port(), 20), 6); len(sent) > 0 {
		t.Errorf("%d frames with a loopback address were sent", len(sent))
	}
	d.accounted()
}

// From a wire nothing may claim to be ::1, nor be for it.
func TestLoopbackIsNeverOnAWire(t *testing.T) {
	d := newHosted6(t)
	d.serveLocal6(service.TCP, netip.AddrPortFrom(netip.IPv6Loopback(), 80))
	d.toHost(fromClient6(packet.TCPSyn, nil))
	client, vip := packet.AddrFrom(client6.Addr()), packet.AddrFrom(vip6)
	for _, f := range [][]byte{
		frame6(gatewayMAC, cliMAC, loopback6, vip, packet.ProtoTCP, tcp6(client6.Port(), 80, packet.TCPSyn, nil), 16),
		frame6(gatewayMAC, cliMAC, client, loopback6, packet.ProtoTCP, tcp6(client6.Port(), 80, packet.TCPSyn, nil), 16),
		frame6(serverMAC(11), rsMAC, loopback6, client, packet.ProtoTCP, tcp6(80, client6.Port(), packet.TCPAck, nil), 16),
	} {
		port := 0
		if packet.MAC(f[:6]) == rsMAC {
			port = 1
		}
		if out := d.inject(port, f); len(out[0])+len(out[1])+len(d.stack[0].Sent()) > 0 {
			t.Errorf("something came of %x", f)
		}
	}
	d.accounted()
}

func TestAllocLocalByIPv6AllocatesNothing(t *testing.T) {
	d := newHosted6(t)
	d.serveLocal6(service.TCP, netip.AddrPortFrom(netip.IPv6Loopback(), 80))
	d.toHost(fromClient6(packet.TCPSyn, nil))
	w := d.plane.workers[0]
	answer := frame6(stackMAC, stackMAC, loopback6, packet.AddrFrom(client6.Addr()), packet.ProtoTCP, tcp6(80, client6.Port(), packet.TCPAck, nil), 16)
	w.setTx([]link.Link{new(traffic), new(traffic), new(traffic)})
	w.rx = []link.Link{link.NewReplay(*received(fromClient6(packet.TCPAck, nil))), new(noLink), link.NewReplay(*received(answer))}
	now := d.now
	if n := testing.AllocsPerRun(100, func() { now += 1000; w.step(now) }); n != 0 {
		t.Errorf("%v allocations per packet both ways, want 0", n)
	}
	if v := d.verdicts(); v[ForwardedLocal] < 100 || v[Replied] < 100 {
		t.Errorf("frames took another way: %v", v)
	}
}
