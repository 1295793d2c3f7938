package nexthop

import (
	"net"
	"testing"
	"time"

	mdpacket "github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// router6 is a host at the other end of a director's interface that announces itself as a router.
type router6 struct {
	*space
	dev   string
	local packet.Addr // link-local
}

// addRouter makes a router behind the director's interface dev.
func (s *space) addRouter(dev, local string) *router6 {
	s.t.Helper()
	r := &router6{newSpace(s.t), "r0", ip(local)}
	for _, x := range []*space{s, r.space} {
		x.sysctl("ipv6/conf/default/accept_dad", "0") // addresses at once
	}
	r.sysctl("ipv6/conf/all/forwarding", "1")        // else its answers say that it is none, and the director forgets its route
	r.sysctl("ipv6/conf/default/addr_gen_mode", "1") // no link-local address but the one below
	wire(s, dev, r.space, r.dev)
	r.addr(r.dev, local+"/64")
	return r
}

// Preferences of a router in its advertisements (RFC 4191 section 2.1).
const (
	prefMedium = 0 << 3
	prefHigh   = 1 << 3
	prefLow    = 3 << 3
)

// advertise sends a router advertisement, which makes a route of so many seconds.
func (r *router6) advertise(lifetime uint16, pref uint8) {
	r.t.Helper()
	mac := r.mac(r.dev)
	const size = 16 + 8 // with the option that bears the MAC address
	b := make([]byte, packet.EthLen+packet.IPv6Len+size)
	to := packet.GroupMAC(packet.AllNodes)
	packet.PutEth(b, to, mac, packet.EtherIPv6)
	packet.PutIPv6(b[packet.EthLen:], size, packet.Header6{NextHeader: packet.ProtoICMPv6, HopLimit: 255, Src: r.local, Dst: packet.AllNodes})
	m := b[packet.EthLen+packet.IPv6Len:]
	m[0], m[4], m[5] = packet.ICMP6RouterAdvert, 64, pref
	packet.SetWord(m[6:], lifetime)
	m[16], m[17] = 1, 1
	copy(m[18:], mac[:])
	packet.SetWord(m[2:], ^packet.Fold(packet.Sum(m, packet.Pseudo6(r.local, packet.AllNodes, packet.ProtoICMPv6, size))))
	r.in(func() error {
		l, err := net.InterfaceByName(r.dev)
		if err != nil {
			return err
		}
		conn, err := mdpacket.Listen(l, mdpacket.Raw, packet.EtherIPv6, nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.WriteTo(b, &mdpacket.Addr{HardwareAddr: to[:]})
		return err
	})
}

// hop is the way by the router from the director's interface at a position.
func (r *router6) hop(iface int, source string) Hop {
	return Hop{Iface: iface, Dst: r.mac(r.dev), MTU: 1500, Source: ip(source), Gateway: r.local}
}

// TestRoutersThatAnnounceThemselvesAreFollowed has two routers with the same link-local address on two interfaces.
func TestRoutersThatAnnounceThemselvesAreFollowed(t *testing.T) {
	t.Parallel()
	d := newSpace(t)
	a, b := d.addRouter("eth0", "fe80::1"), d.addRouter("eth1", "fe80::1")
	d.addr("eth0", "2001:db8:9::1/64")
	d.addr("eth1", "2001:db8:8::1/64")
	r := d.resolver(attach("eth0", "eth1"))
	const far = "2001:db8:f::1"
	byA, byB := a.hop(0, "2001:db8:9::1"), b.hop(1, "2001:db8:8::1")

	awaitStatus(t, r, soon, far, NoRoute)
	a.advertise(1800, prefMedium)
	awaitHop(t, r, 2*soon, far, byA)
	if i, ok := r.OnLink(ip(far)); ok {
		t.Errorf("OnLink = %d, true for what lies behind a router", i)
	}
	b.advertise(1800, prefHigh)
	awaitHop(t, r, 2*soon, far, byB)
	a.advertise(1800, prefHigh) // as good: each has its share
	b.advertise(1800, prefHigh)
	shares := func() (byA, byB, other int) {
		for i := range uint64(256) {
			hi, _ := ip(far).Words()
			dst := packet.AddrFromWords(hi, i+1)
			switch hop, status := r.Lookup(dst); {
			case status != Ready:
				other++
				r.Resolve(dst)
			case hop.Iface == 0:
				byA++
			default:
				byB++
			}
		}
		return byA, byB, other
	}
	await(t, 2*soon, "both routers used", func() bool {
		x, y, other := shares()
		return other == 0 && x > 80 && y > 80
	})
	b.delAddr(b.dev, "fe80::1/64") // it dies without a word
	await(t, 15*time.Second, "all by the router that lives", func() bool {
		x, _, _ := shares()
		return x == 256
	})
	b.addr(b.dev, "fe80::1/64")
	await(t, 15*time.Second, "both routers used again", func() bool {
		x, y, other := shares()
		return other == 0 && x > 80 && y > 80
	})
	a.advertise(0, prefMedium) // it retires
	await(t, 2*soon, "all by the router that stays", func() bool {
		_, y, _ := shares()
		return y == 256
	})
	b.advertise(0, prefMedium)
	awaitStatus(t, r, soon, far, NoRoute)
}

// TestARouterOfLowPreferenceStandsBy wants it used only while no other answers.
func TestARouterOfLowPreferenceStandsBy(t *testing.T) {
	t.Parallel()
	d := newSpace(t)
	a, b := d.addRouter("eth0", "fe80::a"), d.addRouter("eth1", "fe80::b")
	d.addr("eth0", "2001:db8:9::1/64")
	d.addr("eth1", "2001:db8:8::1/64")
	r := d.resolver(attach("eth0", "eth1"))
	const far = "2001:db8:f::1"
	a.advertise(1800, prefLow)
	awaitHop(t, r, 2*soon, far, a.hop(0, "2001:db8:9::1"))
	b.advertise(1800, prefMedium)
	awaitHop(t, r, 2*soon, far, b.hop(1, "2001:db8:8::1"))
	b.delAddr(b.dev, "fe80::b/64")
	awaitHop(t, r, 15*time.Second, far, a.hop(0, "2001:db8:9::1"))
	b.addr(b.dev, "fe80::b/64")
	awaitHop(t, r, 15*time.Second, far, b.hop(1, "2001:db8:8::1"))
}

func TestIPv6MultipathSharesByWeight(t *testing.T) {
	t.Parallel()
	d := newSpace(t)
	a, b := d.addRouter("eth0", "fe80::a"), d.addRouter("eth1", "fe80::b")
	d.addr("eth0", "2001:db8:9::1/64")
	r := d.resolver(attach("eth0", "eth1"))
	d.route("2001:db8:f::/48", "", "", func(rt *netlink.Route) {
		rt.MultiPath = []*netlink.NexthopInfo{
			{LinkIndex: d.link("eth0").Attrs().Index, Gw: net.ParseIP("fe80::a")},
			{LinkIndex: d.link("eth1").Attrs().Index, Gw: net.ParseIP("fe80::b"), Hops: 2},
		}
	})
	count := func() (byA, byB int) {
		for i := range uint64(256) {
			hi, _ := ip("2001:db8:f::").Words()
			dst := packet.AddrFromWords(hi, i+1)
			hop, status := r.Lookup(dst)
			switch {
			case status != Ready:
				r.Resolve(dst)
			case hop.Dst == a.mac(a.dev):
				byA++
			case hop.Dst == b.mac(b.dev):
				byB++
			}
			if hop != nil && hop.Source != ip("2001:db8:9::1") {
				t.Fatalf("source %v, want the host's only global address", hop.Source)
			}
		}
		return byA, byB
	}
	await(t, 2*soon, "both hops used, by weight 1:3", func() bool {
		x, y := count()
		return x > 40 && x < 90 && x+y == 256
	})
	a.delAddr(a.dev, "fe80::a/64")
	await(t, 15*time.Second, "all by the hop that lives", func() bool {
		_, y := count()
		return y == 256
	})
}

func TestPinnedIPv6ServerDiesAndComesBack(t *testing.T) {
	t.Parallel()
	d, server := newSpace(t), newSpace(t)
	for _, x := range []*space{d, server} {
		x.sysctl("ipv6/conf/default/accept_dad", "0")
	}
	wire(d, "eth1", server, "s0")
	d.addr("eth1", "fd00:1::1/64")
	server.addr("s0", "fd00:1::2/64")
	r := d.resolver(attach("eth1"))
	r.SetPinned([]packet.Addr{ip("fd00:1::2")})
	want := Hop{MTU: 1500, Dst: server.mac("s0"), Source: ip("fd00:1::1"), Gateway: ip("fd00:1::2")}
	awaitHop(t, r, 2*soon, "fd00:1::2", want)
	time.Sleep(2 * tick) // the entry is REACHABLE and fresh when its server dies
	server.delAddr("s0", "fd00:1::2/64")
	awaitStatus(t, r, 12*time.Second, "fd00:1::2", Unreachable)
	server.addr("s0", "fd00:1::2/64")
	awaitHop(t, r, 12*time.Second, "fd00:1::2", want)

	// Another MAC address, announced by nobody: the kernel finds out when it probes.
	server.must(server.LinkSetHardwareAddr(server.link("s0"), net.HardwareAddr{2, 1, 1, 1, 1, 1}))
	want.Dst = packet.MAC{2, 1, 1, 1, 1, 1}
	awaitHop(t, r, 20*time.Second, "fd00:1::2", want)
}

func TestIPv6PolicyRulesAskTheKernel(t *testing.T) {
	t.Parallel()
	d := newSpace(t)
	a, b := d.addRouter("eth0", "fe80::a"), d.addRouter("eth1", "fe80::b")
	d.addr("eth0", "2001:db8:9::1/64")
	d.addr("eth1", "2001:db8:8::1/64")
	r := d.resolver(attach("eth0", "eth1"))
	d.route("::/0", "fe80::a", "eth0")
	awaitHop(t, r, 2*soon, "2001:db8:f::1", a.hop(0, "2001:db8:9::1"))
	d.route("::/0", "fe80::b", "eth1", func(rt *netlink.Route) { rt.Table = 100 })
	rule := netlink.NewRule()
	rule.Family, rule.Table, rule.Priority = unix.AF_INET6, 100, 1000
	_, rule.Dst, _ = net.ParseCIDR("2001:db8:f::/48")
	d.must(d.RuleAdd(rule))
	awaitHop(t, r, 2*soon, "2001:db8:f::1", b.hop(1, "2001:db8:8::1"))
	awaitHop(t, r, 2*soon, "2001:db8:e::1", a.hop(0, "2001:db8:9::1"))
	d.must(d.RuleDel(rule))
	awaitHop(t, r, 2*soon, "2001:db8:f::1", a.hop(0, "2001:db8:9::1"))
}
