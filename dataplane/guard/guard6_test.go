package guard

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// newHost6 is newHost with IPv6:
//
//	client fd00:9::fe --- eth0 fd00:9::1 director fd00:1::1 eth1 --- fd00:1::2 server
func newHost6(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, director: newSpace(t), client: newSpace(t), server: newSpace(t)}
	d := h.director
	for _, s := range []*space{d, h.client, h.server} {
		s.sysctl("ipv6/conf/default/accept_dad", "0") // link-local addresses at once
	}
	wire(d, "eth0", h.client, "c0")
	wire(d, "eth1", h.server, "s0")
	d.sysctl("ipv6/conf/all/forwarding", "1")
	d.sysctl("ipv6/icmp/ratelimit", "0")
	for _, s := range []struct {
		*space
		dev, addr string
	}{{d, "eth0", "fd00:9::1/64"}, {d, "eth1", "fd00:1::1/64"}, {h.client, "c0", "fd00:9::fe/64"}, {h.server, "s0", "fd00:1::2/64"}} {
		a, err := netlink.ParseAddr(s.addr)
		s.must(err)
		a.Flags |= unix.IFA_F_NODAD
		s.must(s.AddrAdd(s.link(s.dev), a))
	}
	for _, n := range []struct {
		dev, addr string
		mac       packet.MAC
	}{{"eth0", "fd00:9::fe", h.client.mac("c0")}, {"eth1", "fd00:1::2", h.server.mac("s0")}} { // no chatter about them
		d.must(d.NeighSet(&netlink.Neigh{
			LinkIndex: d.link(n.dev).Attrs().Index, IP: net.ParseIP(n.addr), HardwareAddr: n.mac[:], State: netlink.NUD_PERMANENT,
		}))
	}
	_, all, _ := net.ParseCIDR("::/0")
	h.server.must(h.server.RouteAdd(&netlink.Route{Dst: all, Gw: net.ParseIP("fd00:1::1")}))
	h.toClient, h.toServer = h.client.tap("c0"), h.server.tap("s0")
	return h
}

var (
	vip6    = netip.MustParseAddr("fd00:9::100")
	vipFar6 = netip.MustParseAddr("2001:db8:5::9")
	rip6    = netip.MustParseAddr("fd00:1::2")
	client6 = netip.MustParseAddr("fd00:9::fe")
	remote6 = netip.MustParseAddr("2001:db8:7::7") // there is no route to it
)

// send6 sends an IPv6 packet to the director.
func (tp *tap) send6(to packet.MAC, src, dst netip.Addr, proto layers.IPProtocol, l ...gopacket.SerializableLayer) {
	tp.t.Helper()
	ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	for _, x := range l {
		if x, ok := x.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			_ = x.SetNetworkLayerForChecksum(ip)
		}
	}
	buf := gopacket.NewSerializeBuffer()
	eth := &layers.Ethernet{SrcMAC: tp.mac, DstMAC: to[:], EthernetType: layers.EthernetTypeIPv6}
	opt := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opt, append([]gopacket.SerializableLayer{eth, ip}, l...)...); err != nil {
		tp.t.Fatal(err)
	}
	tp.write(to, buf.Bytes())
}

// laterFragment6 is a fragment header with an offset, and what it carries.
var laterFragment6 = gopacket.Payload(append([]byte{byte(layers.IPProtocolUDP), 0, 0, 0x48, 0, 0, 0, 77}, "a later fragment"...))

// knock6 sends everything to an address that a client may send, a solicitation for it as well.
func (h *host) knock6(dst netip.Addr) {
	h.toClient.drain()
	h.toServer.drain()
	to := h.director.mac("eth0")
	h.toClient.send6(to, client6, dst, layers.IPProtocolTCP, &layers.TCP{SrcPort: 40000, DstPort: 80, SYN: true, Window: 1000})
	h.toClient.send6(to, client6, dst, layers.IPProtocolUDP, &layers.UDP{SrcPort: 40000, DstPort: 53}, gopacket.Payload("query"))
	h.toClient.send6(to, client6, dst, layers.IPProtocolICMPv6, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}, &layers.ICMPv6Echo{Identifier: 1})
	h.toClient.send6(to, client6, dst, layers.IPProtocolIPv6Fragment, laterFragment6)
	h.solicit6(packet.AddrFrom(client6), dst)
	h.solicit6(packet.Addr{}, dst) // a probe
}

// solicit6 asks for an address on the client's segment.
func (h *host) solicit6(src packet.Addr, target netip.Addr) {
	n := packet.NDP{Type: packet.ICMP6NeighbourSolicit, Src: src, Target: packet.AddrFrom(target)}
	n.Dst = packet.SolicitedNode(n.Target)
	size := packet.NDPLen
	if !src.IsZero() {
		n.MAC, size = packet.MAC(h.toClient.mac), size+packet.NDPMACLen
	}
	b := make([]byte, packet.EthLen+packet.IPv6Len+size)
	packet.PutEth(b, packet.GroupMAC(n.Dst), packet.MAC(h.toClient.mac), packet.EtherIPv6)
	packet.PutIPv6(b[packet.EthLen:], size, packet.Header6{NextHeader: packet.ProtoICMPv6, HopLimit: 255, Src: n.Src, Dst: n.Dst})
	packet.PutNDP(b[packet.EthLen+packet.IPv6Len:], &n)
	h.toClient.write(packet.GroupMAC(n.Dst), b)
}

// answer6 sends what a NAT real server sends about a connection, from a port, to a client.
func (h *host) answer6(dst netip.Addr, port uint16) {
	h.toClient.drain()
	h.toServer.drain()
	to := h.director.mac("eth1")
	h.toServer.send6(to, rip6, dst, layers.IPProtocolTCP, &layers.TCP{SrcPort: layers.TCPPort(port), DstPort: 40000, SYN: true, ACK: true, Window: 1000})
	h.toServer.send6(to, rip6, dst, layers.IPProtocolUDP, &layers.UDP{SrcPort: layers.UDPPort(port), DstPort: 40000}, gopacket.Payload("answer"))
	h.toServer.send6(to, rip6, dst, layers.IPProtocolIPv6Fragment, laterFragment6)
	unreachable := layers.CreateICMPv6TypeCode(layers.ICMPv6TypeDestinationUnreachable, layers.ICMPv6CodePortUnreachable)
	h.toServer.send6(to, rip6, dst, layers.IPProtocolICMPv6, &layers.ICMPv6{TypeCode: unreachable}, gopacket.Payload(make([]byte, 56)))
}

func TestIPv6AddressesAreNoBusinessOfTheKernels(t *testing.T) {
	t.Parallel()
	h := newHost6(t)
	for _, a := range []netip.Addr{vip6, vipFar6} {
		h.knock6(a)
		if len(h.leaks(a)) == 0 {
			t.Fatalf("the kernel sends nothing about %v even without a guard: the test shows nothing", a)
		}
	}
	d := h.director // still asks who has the address, from before
	d.must(d.NeighDel(&netlink.Neigh{LinkIndex: d.link("eth0").Attrs().Index, IP: vip6.AsSlice()}))
	g := h.guard()
	h.update(g, Desired{VIPs: []netip.Addr{vip6, vipFar6}})
	for _, a := range []netip.Addr{vip6, vipFar6} {
		h.knock6(a)
		for _, l := range h.leaks(a) {
			t.Errorf("sent by the kernel about %v:\n%s", a, l)
		}
	}
	if err := g.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	h.knock6(vipFar6)
	if len(h.leaks(vipFar6)) == 0 {
		t.Error("an address is still guarded after Close")
	}
}

func TestIPv6AnswersOfNATServersAreNoBusinessOfTheKernels(t *testing.T) {
	t.Parallel()
	for _, fib := range []bool{true, false} {
		t.Run(fmt.Sprintf("fib=%v", fib), func(t *testing.T) {
			t.Parallel()
			h := newHost6(t)
			for _, dst := range []netip.Addr{client6, remote6} { // what there is no route to is answered with an error
				h.answer6(dst, 80)
				if n := len(h.leaks(rip6)); n < 3 {
					t.Fatalf("the kernel sends %d packets without a guard, want more: the test shows nothing", n)
				}
			}
			g := h.guard()
			g.nft.fib = fib
			d := Desired{VIPs: []netip.Addr{vip6}, NATServers: server("[fd00:1::2]:80", packet.ProtoTCP, packet.ProtoUDP)}
			d.NATServers = append(d.NATServers, server("10.0.0.2:80", packet.ProtoTCP)...)
			h.update(g, d)
			for _, dst := range []netip.Addr{client6, remote6} {
				h.answer6(dst, 80)
				for _, l := range h.leaks(rip6) {
					t.Errorf("sent by the kernel:\n%s", l)
				}
			}
			// From another port it is the host's to forward; but not fragments and ICMP errors, which don't tell.
			h.answer6(client6, 81)
			if n := len(h.leaks(rip6)); n != 2 {
				t.Errorf("%d packets from another port forwarded, want 2 (TCP and UDP)", n)
			}
			h.reach("[fd00:1::2]:80", "[fd00:1::1]:999")
			h.reach("[fd00:1::2]:80", "[fd00:9::1]:999")

			d.NATServers = server("[fd00:1::2]:0", packet.ProtoTCP, packet.ProtoUDP)
			h.update(g, d)
			h.answer6(client6, 81)
			for _, l := range h.leaks(rip6) {
				t.Errorf("forwarded by the kernel though the server answers from all ports:\n%s", l)
			}
			d.NATServers = nil
			h.update(g, d)
			h.answer6(client6, 80)
			if len(h.leaks(rip6)) == 0 {
				t.Error("answers are still dropped though the server is gone")
			}
			if got := h.tables(); len(got) != 0 {
				t.Errorf("nftables tables %v without a server to guard, want none", got)
			}
		})
	}
}

func TestIPv6GatewaySegmentGuarded(t *testing.T) {
	t.Parallel()
	h := newHost6(t)
	own := netip.MustParseAddr("fd00:1::fe")
	g := h.guard()
	h.update(g, Desired{Gateways: []Gateway{
		{Prefix: netip.PrefixFrom(own, 64), Iface: "eth1", All: true}, {Prefix: netip.MustParsePrefix("10.0.0.254/24"), Iface: "eth1", All: true},
	}})
	h.answer6(client6, 81)
	for _, l := range h.leaks(rip6) {
		t.Errorf("forwarded by the kernel:\n%s", l)
	}
	h.toServer.send6(h.director.mac("eth1"), rip6, own, layers.IPProtocolUDP, &layers.UDP{SrcPort: 1, DstPort: 2})
	for _, l := range h.leaks(own) {
		t.Errorf("sent by the kernel about the gateway's address:\n%s", l)
	}
	h.reach("[fd00:1::2]:80", "[fd00:1::1]:999")
}
