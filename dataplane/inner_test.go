package dataplane

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/gopacket/layers"

	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// fromInside is a segment of a real server's own traffic to a station outside.
func fromInside(t testing.TB, n byte, sport, dport uint16, flags string) []byte {
	t.Helper()
	return frame(t, serverMAC(n), rsMAC, &layers.IPv4{SrcIP: net.IPv4(10, 1, 0, n), DstIP: net.IPv4(192, 0, 2, 80)}, tcp(sport, dport, flags))
}

// backTo is a segment from that station to an address of ours.
func backTo(t testing.TB, dst netip.Addr, sport, dport uint16, flags string) []byte {
	t.Helper()
	return frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: net.IPv4(192, 0, 2, 80), DstIP: dst.AsSlice()}, tcp(sport, dport, flags))
}

var masqueradeAddr = netip.MustParseAddr("10.9.0.50")

func masquerading(t testing.TB) *director {
	return newDirector(t, func(c *Config) { c.Inner, c.MasqueradeAddrs = MasqueradeInnerTraffic, []netip.Addr{masqueradeAddr} })
}

func TestTheMasqueradeAddressIsOurs(t *testing.T) {
	d := masquerading(t)
	var announced bool
	for _, f := range d.run()[0] {
		a, ok := packet.ParseARP(f[packet.VnetLen+packet.EthLen:])
		announced = announced || ok && a.Sender() == 0x0a090032 && a.SenderMAC() == cliMAC
	}
	if !announced {
		t.Error("the address was not announced")
	}
	a, ok := packet.ParseARP(one(t, d.inject(0, arpRequest(gatewayMAC, 0x0a0900fe, 0x0a090032))[0])[packet.VnetLen+packet.EthLen:])
	if !ok || a.Op() != packet.ARPReply || a.SenderMAC() != cliMAC {
		t.Errorf("who has the address: %x", a)
	}
	// Nobody listens there.
	p := parse(t, one(t, d.inject(0, backTo(t, masqueradeAddr, 443, 33000, "S"))[0]))
	if rst, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP); !ok || !rst.RST {
		t.Errorf("a connection to it got %v", p)
	}
	d.accounted()
}

// arpRequest is a frame that asks everybody for target.
func arpRequest(mac packet.MAC, sender, target uint32) []byte {
	b := make([]byte, packet.EthLen+packet.ARPLen)
	packet.PutEth(b, packet.Broadcast, mac, packet.EtherARP)
	packet.PutARP(b[packet.EthLen:], packet.ARPRequest, mac, sender, packet.MAC{}, target)
	return b
}

func TestMasqueradingNeedsNoService(t *testing.T) {
	d := masquerading(t)
	d.run()
	one(t, d.inject(1, fromInside(t, 11, 33000, 443, "S"))[0])
	p := parse(t, one(t, d.inject(0, backTo(t, masqueradeAddr, 443, 33000, "SA"))[1]))
	if ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); !ip.DstIP.Equal(net.IPv4(10, 1, 0, 11)) {
		t.Errorf("answer went to %v", ip.DstIP)
	}
	p = parse(t, one(t, d.inject(1, fromInside(t, 11, 33000, 443, "A"))[0]))
	if ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); !ip.SrcIP.Equal(masqueradeAddr.AsSlice()) {
		t.Errorf("left as from %v", ip.SrcIP)
	}
	d.accounted()
}

func TestMasqueradedFlowsGetPortsOfTheirOwn(t *testing.T) {
	d := masquerading(t)
	d.run()
	ports := make(map[layers.TCPPort]byte)
	for n := byte(11); n <= 14; n++ {
		p := parse(t, one(t, d.inject(1, fromInside(t, n, 33000, 443, "S"))[0]))
		port := p.Layer(layers.LayerTypeTCP).(*layers.TCP).SrcPort
		if other, taken := ports[port]; taken {
			t.Errorf("servers %d and %d share port %d", other, n, port)
		}
		ports[port] = n
	}
	for port, n := range ports {
		p := parse(t, one(t, d.inject(0, backTo(t, masqueradeAddr, 443, uint16(port), "SA"))[1]))
		ip, seg := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4), p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		if !ip.DstIP.Equal(net.IPv4(10, 1, 0, n)) || seg.DstPort != 33000 {
			t.Errorf("answer to port %d went to %v:%d, want server %d", port, ip.DstIP, seg.DstPort, n)
		}
	}
	d.accounted()
}

// TestWorkersNeverGiveTwoFlowsOnePort has two workers masquerade two servers' flows that want the same port, at once.
func TestWorkersNeverGiveTwoFlowsOnePort(t *testing.T) {
	links := func() link.Link { return link.NewMem(link.MemConfig{}) }
	d := newDirector(t, func(c *Config) {
		c.Inner, c.MasqueradeAddrs, c.Workers = MasqueradeInnerTraffic, []netip.Addr{masqueradeAddr}, 2
		c.OpenRx = func(int, int) (link.Link, error) { return links(), nil }
	})
	const rounds = 5000
	var at [2]atomic.Int32 // the round each worker is in
	var wg sync.WaitGroup
	for i, w := range d.plane.workers {
		frames := make([][]byte, rounds)
		for r := range frames {
			frames[r] = fromInside(t, byte(11+i), 33000, uint16(1000+r), "S")
		}
		wg.Go(func() {
			w.begin(d.now)
			for r, f := range frames {
				for at[i].Store(int32(r + 1)); at[1-i].Load() <= int32(r); {
				}
				w.batch(&w.ports[1], []link.Frame{*received(f)})
				w.flush()
			}
		})
	}
	wg.Wait()
	seen := make(map[[2]uint16]uint32)
	for _, w := range d.plane.workers {
		if got := w.verdicts[Replied]; got != rounds {
			t.Errorf("%d of %d flows left: %v", got, rounds, w.verdicts)
		}
		for _, f := range w.tx[0].(*link.Mem).Sent() {
			var p packet.Packet
			packet.Decode(f[packet.VnetLen:], &p)
			seen[[2]uint16{p.SrcPort, p.DstPort}]++
		}
	}
	if len(seen) != 2*rounds {
		t.Errorf("%d flows share a port", 2*rounds-len(seen))
	}
}

func TestPacketsInOurOwnNameAreDropped(t *testing.T) {
	d := newDirector(t, nil)
	d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
	d.run()
	own := netip.AddrPortFrom(vip, 80)
	for _, f := range [][]byte{
		fromClient(t, own, "S", ""), // to the service itself, from itself
		frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: vip.AsSlice(), DstIP: vip.AsSlice()}, tcp(80, 81, "S")),
	} {
		if out := d.inject(0, f); len(out[0])+len(out[1]) != 0 {
			t.Errorf("sent %x", out)
		}
	}
	echo := frame(t, gatewayMAC, cliMAC, &layers.IPv4{SrcIP: vip.AsSlice(), DstIP: vip.AsSlice()},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0)})
	if out := d.inject(0, echo); len(out[0]) != 0 {
		t.Errorf("an echo request from the VIP was answered: %x", out[0])
	}
	if v := d.verdicts(); v[DropAddress] != 2 {
		t.Errorf("verdicts %v", v)
	}
	d.accounted()
}

func TestPacketsToGroupsAreNobodysInnerTraffic(t *testing.T) {
	for _, policy := range []InnerPolicy{DropInnerTraffic, ForwardInnerTraffic, MasqueradeInnerTraffic} {
		d := newDirector(t, func(c *Config) { c.Inner = policy })
		d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
		d.hops.SetPrefix(netip.MustParsePrefix("0.0.0.0/0"), &nexthop.Hop{Iface: 0, Dst: gatewayMAC, MTU: 1500}, nexthop.Ready)
		d.run()
		for _, dst := range []net.IP{net.IPv4(239, 1, 1, 1), net.IPv4bcast} {
			in := frame(t, serverMAC(11), rsMAC, &layers.IPv4{SrcIP: net.IPv4(10, 1, 0, 11), DstIP: dst}, &layers.UDP{SrcPort: 5353, DstPort: 5353})
			if out := d.inject(1, in); len(out[0])+len(out[1]) != 0 {
				t.Errorf("policy %d: a datagram to %v was sent on", policy, dst)
			}
		}
		if got := d.verdicts()[PassGroup]; got != 2 {
			t.Errorf("policy %d: verdicts %v", policy, d.verdicts())
		}
		d.accounted()
	}
}

// TestPacketsForTheHostItselfArePassed holds where uvs shares the interface's MAC address: the host has those frames as well,
// and nothing that uvs could say about them is welcome.
func TestPacketsForTheHostItselfArePassed(t *testing.T) {
	outside, inside := net.IPv4(10, 9, 0, 1), net.IPv4(10, 1, 0, 9)
	for _, policy := range []InnerPolicy{DropInnerTraffic, ForwardInnerTraffic, MasqueradeInnerTraffic} {
		d := newDirector(t, func(c *Config) { c.Inner = policy })
		d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
		d.hops.Set(packet.AddrFrom4(0x0a090001), nil, nexthop.Local)
		d.hops.Set(packet.AddrFrom4(0x0a010009), nil, nexthop.Local)
		d.run()
		n := uint64(0)
		for port, ends := range [2]struct{ src, dst packet.MAC }{{gatewayMAC, cliMAC}, {serverMAC(11), rsMAC}} {
			for _, dst := range []net.IP{outside, inside} {
				ip := func() *layers.IPv4 {
					return &layers.IPv4{SrcIP: net.IPv4(10, 1, 0, 11), DstIP: dst}
				}
				for _, f := range [][]byte{
					frame(t, ends.src, ends.dst, ip(), tcp(33000, 22, "S")),
					frame(t, ends.src, ends.dst, ip(), tcp(80, 45000, "SA")), // the answer to a health check of the host's
					frame(t, ends.src, ends.dst, ip(), tcp(33000, 22, "R")),
					frame(t, ends.src, ends.dst, ip(), &layers.UDP{SrcPort: 53, DstPort: 45000}),
					frame(t, ends.src, ends.dst, ip(), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0)}),
					frame(t, ends.src, ends.dst, ip(), &layers.ICMPv4{TypeCode: hostUnreachable}, payload(28)),
					frame(t, ends.src, ends.dst, &layers.IPv4{SrcIP: net.IPv4(10, 1, 0, 11), DstIP: dst, Protocol: layers.IPProtocolOSPF}, payload(20)),
				} {
					n++
					if out := d.inject(port, f); len(out[0])+len(out[1]) != 0 {
						t.Errorf("policy %d, port %d, to %v: sent %x", policy, port, dst, out)
					}
				}
			}
		}
		if got := d.verdicts()[PassNotOurs]; got != n {
			t.Errorf("policy %d: verdicts %v, want %d %v", policy, d.verdicts(), n, PassNotOurs)
		}
		if asked := d.hops.Asked(); len(asked) != 0 {
			t.Errorf("policy %d: the resolver was asked for %v", policy, asked)
		}
		d.accounted()
	}
}

// TestBothFamiliesAreMasqueraded has an address of each for it.
func TestBothFamiliesAreMasqueraded(t *testing.T) {
	own6, remote6 := netip.MustParseAddr("2001:db8:9::50"), packet.AddrFrom(client6.Addr())
	d := newDirector(t, func(c *Config) {
		c.Inner, c.MasqueradeAddrs = MasqueradeInnerTraffic, []netip.Addr{masqueradeAddr, own6}
	})
	d.serve6(service.TCP, 80, service.Masq) // routes
	d.quiet()
	p := parse(t, one(t, d.inject(1, fromInside(t, 11, 33000, 443, "S"))[0]))
	if ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); !ip.SrcIP.Equal(masqueradeAddr.AsSlice()) {
		t.Errorf("IPv4 sent as from %v, want %v", ip.SrcIP, masqueradeAddr)
	}
	out := decoded(t, one(t, d.inject(1, frame6(serverMAC(11), rsMAC, server6(11), remote6, packet.ProtoTCP, tcp6(33000, 443, packet.TCPSyn, nil), 16))[0]))
	if out.Src != packet.AddrFrom(own6) || out.SrcPort != 33000 {
		t.Errorf("IPv6 sent as from %v port %d, want %v", out.Src, out.SrcPort, own6)
	}
	back := frame6(gatewayMAC, cliMAC, remote6, packet.AddrFrom(own6), packet.ProtoTCP, tcp6(443, 33000, packet.TCPSyn|packet.TCPAck, nil), 16)
	if in := decoded(t, one(t, d.inject(0, back)[1])); in.Dst != server6(11) || in.DstPort != 33000 {
		t.Errorf("the answer went to %v port %d", in.Dst, in.DstPort)
	}
	if got := discovered(t, d.inject(0, solicitation(ndpAsker, packet.AddrFrom(own6)))[0]); len(got) != 1 || got[0].MAC != cliMAC {
		t.Errorf("who has the address: %+v", got)
	}
	d.accounted()
}
