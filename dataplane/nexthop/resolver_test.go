package nexthop

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// net1 is a director with a client's router on eth0 and a real server on eth1:
//
//	router 192.0.2.254 --- eth0 192.0.2.1 director 10.0.0.1 eth1 --- 10.0.0.2 server
type net1 struct{ director, router, server *space }

func newNet1(t *testing.T) net1 {
	n := net1{newSpace(t), newSpace(t), newSpace(t)}
	wire(n.director, "eth0", n.router, "r0")
	wire(n.director, "eth1", n.server, "s0")
	n.director.addr("eth0", "192.0.2.1/24")
	n.director.addr("eth1", "10.0.0.1/24")
	n.router.addr("r0", "192.0.2.254/24")
	n.server.addr("s0", "10.0.0.2/24")
	return n
}

func (n net1) serverHop() Hop {
	return Hop{Iface: 1, Dst: n.server.mac("s0"), MTU: 1500, Source: ip("10.0.0.1"), Gateway: ip("10.0.0.2")}
}

func (n net1) routerHop() Hop {
	return Hop{Iface: 0, Dst: n.router.mac("r0"), MTU: 1500, Source: ip("192.0.2.1"), Gateway: ip("192.0.2.254")}
}

func TestLookupFollowsRoutesAndNeighbours(t *testing.T) {
	t.Parallel()
	n := newNet1(t)
	d := n.director
	r := d.resolver(attach("eth0", "eth1"))

	awaitHop(t, r, soon, "10.0.0.2", n.serverHop())
	awaitStatus(t, r, soon, "198.51.100.7", NoRoute)
	awaitStatus(t, r, soon, "192.0.2.1", Local)
	awaitStatus(t, r, soon, "10.0.0.255", NoRoute) // broadcast
	awaitStatus(t, r, soon, "224.0.0.1", NoRoute)

	if i, ok := r.OnLink(ip("10.0.0.99")); i != 1 || !ok {
		t.Errorf("OnLink(10.0.0.99) = %d, %v, want 1, true", i, ok)
	}
	if i, ok := r.OnLink(ip("198.51.100.7")); ok {
		t.Errorf("OnLink(198.51.100.7) = %d, true, want false", i)
	}

	def := d.route("0.0.0.0/0", "192.0.2.254", "")
	awaitHop(t, r, soon, "198.51.100.7", n.routerHop())

	t.Run("a route's MTU and source are the hop's", func(t *testing.T) {
		d.addr("eth0", "192.0.2.9/24")
		rt := d.route("198.51.100.0/24", "192.0.2.254", "", func(rt *netlink.Route) { rt.MTU, rt.Src = 1400, net.IPv4(192, 0, 2, 9) })
		want := n.routerHop()
		want.MTU, want.Source = 1400, ip("192.0.2.9")
		awaitHop(t, r, soon, "198.51.100.7", want)
		d.must(d.RouteDel(rt))
		awaitHop(t, r, soon, "198.51.100.7", n.routerHop())
	})
	t.Run("refusing routes", func(t *testing.T) {
		for _, kind := range []int{unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT} {
			rt := d.route("198.51.100.0/24", "", "", func(rt *netlink.Route) { rt.Type = kind })
			awaitStatus(t, r, soon, "198.51.100.7", NoRoute)
			d.must(d.RouteDel(rt))
			awaitHop(t, r, soon, "198.51.100.7", n.routerHop())
		}
	})
	t.Run("the smaller metric wins", func(t *testing.T) {
		worse := d.route("198.51.100.0/24", "", "", func(rt *netlink.Route) { rt.Type, rt.Priority = unix.RTN_BLACKHOLE, 20 })
		awaitStatus(t, r, soon, "198.51.100.7", NoRoute)
		better := d.route("198.51.100.0/24", "192.0.2.254", "", func(rt *netlink.Route) { rt.Priority = 10 })
		awaitHop(t, r, soon, "198.51.100.7", n.routerHop())
		d.must(d.RouteDel(better))
		awaitStatus(t, r, soon, "198.51.100.7", NoRoute)
		d.must(d.RouteDel(worse))
	})
	t.Run("a route into another interface than the attached", func(t *testing.T) {
		d.must(d.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br9"}}))
		d.addr("br9", "203.0.113.1/24")
		d.up("br9")
		awaitStatus(t, r, soon, "203.0.113.7", NotAttached)
		d.must(d.LinkDel(d.link("br9")))
		awaitHop(t, r, soon, "203.0.113.7", n.routerHop())
	})
	t.Run("the default route changes under way", func(t *testing.T) {
		n.server.addr("s0", "10.0.0.3/24")
		def.Gw = net.IPv4(10, 0, 0, 3).To4()
		before := r.Generation()
		d.must(d.RouteReplace(def))
		want := n.serverHop()
		want.Gateway = ip("10.0.0.3")
		awaitHop(t, r, soon, "198.51.100.7", want)
		await(t, soon, "Generation() changes with the default route", func() bool { return r.Generation() != before })
		d.must(d.RouteDel(def))
		awaitStatus(t, r, soon, "198.51.100.7", NoRoute)
	})
	t.Run("table default is behind main", func(t *testing.T) {
		inDefault := func(rt *netlink.Route) { rt.Table = unix.RT_TABLE_DEFAULT }
		d.route("198.51.100.0/24", "192.0.2.254", "", inDefault)
		awaitHop(t, r, soon, "198.51.100.7", n.routerHop())
		main := d.route("0.0.0.0/0", "", "", func(rt *netlink.Route) { rt.Type = unix.RTN_UNREACHABLE })
		awaitStatus(t, r, soon, "198.51.100.7", NoRoute)
		throw := d.route("198.51.0.0/16", "", "", func(rt *netlink.Route) { rt.Type = unix.RTN_THROW })
		awaitHop(t, r, soon, "198.51.100.7", n.routerHop())
		d.must(d.RouteDel(throw))
		d.must(d.RouteDel(main))
	})
}

func TestOwnGuardRoutesDontCount(t *testing.T) {
	t.Parallel()
	n := newNet1(t)
	cfg := attach("eth0", "eth1")
	cfg.GuardProtocol = 137
	r := n.director.resolver(cfg)
	n.director.route("0.0.0.0/0", "192.0.2.254", "")
	n.director.route("198.51.100.7/32", "", "", func(rt *netlink.Route) {
		rt.Type, rt.Protocol, rt.Table, rt.Priority = unix.RTN_BLACKHOLE, 137, unix.RT_TABLE_LOCAL, 99
	})
	awaitHop(t, r, soon, "198.51.100.7", n.routerHop())
}

func TestMultipathSharesByWeightAndAvoidsTheDead(t *testing.T) {
	t.Parallel()
	n := newNet1(t)
	d := n.director
	n.server.addr("s0", "10.0.0.3/24")
	r := d.resolver(attach("eth0", "eth1"))
	d.route("198.51.100.0/24", "", "", func(rt *netlink.Route) {
		rt.MultiPath = []*netlink.NexthopInfo{
			{LinkIndex: d.link("eth0").Attrs().Index, Gw: net.IPv4(192, 0, 2, 254)},
			{LinkIndex: d.link("eth1").Attrs().Index, Gw: net.IPv4(10, 0, 0, 3), Hops: 2},
		}
	})
	count := func() (byRouter, byServer, other int) {
		for i := range 256 {
			hop, status := r.Lookup(packet.AddrFrom4(198<<24 | 51<<16 | 100<<8 | uint32(i)))
			switch {
			case status != Ready:
				other++
				r.Resolve(packet.AddrFrom4(198<<24 | 51<<16 | 100<<8 | uint32(i)))
			case hop.Gateway == ip("192.0.2.254"):
				byRouter++
			default:
				byServer++
			}
		}
		return byRouter, byServer, other
	}
	await(t, soon, "both hops used, by weight 1:3", func() bool {
		a, b, other := count()
		return other == 0 && a > 40 && a < 90 && b == 256-a
	})
	hop, _ := r.Lookup(ip("198.51.100.9"))
	for range 10 {
		if again, _ := r.Lookup(ip("198.51.100.9")); again != hop {
			t.Errorf("Lookup gives %+v, then %+v for the same address", hop, again)
		}
	}
	n.router.delAddr("r0", "192.0.2.254/24") // dies
	await(t, 12*time.Second, "all by the hop that lives", func() bool {
		_, b, _ := count()
		return b == 256
	})
	n.router.addr("r0", "192.0.2.254/24")
	await(t, 12*time.Second, "both hops used again", func() bool {
		a, _, other := count()
		return other == 0 && a > 40
	})
}

func TestPinnedServerDiesAndComesBack(t *testing.T) {
	t.Parallel()
	n := newNet1(t)
	r := n.director.resolver(attach("eth0", "eth1"))
	r.SetPinned([]packet.Addr{ip("10.0.0.2")})
	await(t, soon, "resolved without any packet", func() bool {
		_, status := r.Lookup(ip("10.0.0.2"))
		return status == Ready
	})
	time.Sleep(2 * tick) // the entry is REACHABLE and fresh when its server dies
	n.server.delAddr("s0", "10.0.0.2/24")
	died := time.Now()
	awaitStatus(t, r, 12*time.Second, "10.0.0.2", Unreachable)
	t.Logf("unreachable after %v", time.Since(died))
	for range 30 { // while the kernel tries again and again, it stays so
		if _, status := r.Lookup(ip("10.0.0.2")); status != Unreachable {
			t.Fatalf("Lookup = %v while the server is dead, want %v", status, Unreachable)
		}
		time.Sleep(100 * time.Millisecond)
	}
	n.server.addr("s0", "10.0.0.2/24")
	came := time.Now()
	awaitHop(t, r, 12*time.Second, "10.0.0.2", n.serverHop())
	t.Logf("back after %v", time.Since(came))
}

func TestMACChangeIsFollowedAtOnce(t *testing.T) {
	t.Parallel()
	n := newNet1(t)
	n.server.sysctl("ipv4/conf/s0/arp_notify", "1")
	r := n.director.resolver(attach("eth0", "eth1"))
	awaitHop(t, r, soon, "10.0.0.2", n.serverHop())
	time.Sleep(1100 * time.Millisecond) // the kernel ignores a change within a second of the last (locktime)
	before := r.Generation()
	n.server.must(n.server.LinkSetHardwareAddr(n.server.link("s0"), net.HardwareAddr{2, 1, 1, 1, 1, 1})) // announced by gratuitous ARP
	awaitHop(t, r, soon, "10.0.0.2", n.serverHop())
	await(t, soon, "Generation() changes with the neighbour's MAC", func() bool { return r.Generation() != before })
}

// The kernel ignores what it overhears within a second of its last news of a neighbour. If that was the neighbour's only
// word, to us, its new address must be found out all the same.
func TestMACChangeThatTheKernelIgnoredIsFollowed(t *testing.T) {
	t.Parallel()
	n := newNet1(t)
	n.director.sysctl("ipv4/neigh/eth1/locktime", "1000000")
	r := n.director.resolver(attach("eth0", "eth1"))
	awaitHop(t, r, soon, "10.0.0.2", n.serverHop())
	old := n.server.mac("s0")
	n.server.must(n.server.LinkSetHardwareAddr(n.server.link("s0"), net.HardwareAddr{2, 1, 1, 1, 1, 1}))
	r.HandleARP(1, arpFrom(old, "10.0.0.2", "10.0.0.100")) // nothing new
	r.HandleARP(0, arpFrom(n.server.mac("s0"), "10.0.0.2", "10.0.0.100"))
	r.HandleARP(1, arpFrom(n.server.mac("s0"), "10.0.0.3", "10.0.0.100")) // a stranger
	time.Sleep(2 * tick)
	if hop := awaitStatus(t, r, soon, "10.0.0.2", Ready); hop.Dst != old {
		t.Fatalf("without news the MAC address went from %v to %v", old, hop.Dst)
	}
	r.HandleARP(1, arpFrom(n.server.mac("s0"), "10.0.0.2", "10.0.0.100"))
	awaitHop(t, r, 12*time.Second, "10.0.0.2", n.serverHop())
}

func TestStaticNeighbourIsUsedAndLeftAlone(t *testing.T) {
	t.Parallel()
	n := newNet1(t)
	d := n.director
	mac := packet.MAC{2, 9, 9, 9, 9, 9}
	d.must(d.NeighSet(&netlink.Neigh{
		LinkIndex: d.link("eth1").Attrs().Index, IP: net.IPv4(10, 0, 0, 77), HardwareAddr: mac[:], State: netlink.NUD_PERMANENT,
	}))
	r := d.resolver(attach("eth0", "eth1"))
	r.SetPinned([]packet.Addr{ip("10.0.0.77")})
	want := n.serverHop()
	want.Dst, want.Gateway = mac, ip("10.0.0.77")
	awaitHop(t, r, soon, "10.0.0.77", want)
	time.Sleep((keepTicks + 1) * tick)
	list, err := d.NeighList(d.link("eth1").Attrs().Index, unix.AF_INET)
	d.must(err)
	for _, e := range list {
		if e.IP.Equal(net.IPv4(10, 0, 0, 77)) && e.State == netlink.NUD_PERMANENT {
			return
		}
	}
	t.Errorf("the operator's static neighbour is gone or no longer static: %v", list)
}

func TestLinkEventsAreFollowed(t *testing.T) {
	t.Parallel()
	n := newNet1(t)
	d := n.director
	r := d.resolver(attach("eth0", "eth1"))
	d.route("198.51.100.0/24", "10.0.0.2", "")
	via := n.serverHop()
	awaitHop(t, r, soon, "198.51.100.7", via)
	awaitHop(t, r, soon, "10.0.0.2", via)

	d.must(d.LinkSetMTU(d.link("eth1"), 1400))
	via.MTU = 1400
	awaitHop(t, r, soon, "198.51.100.7", via)
	awaitHop(t, r, soon, "10.0.0.2", via)
	if got := r.Link(1); got.MTU != 1400 || !got.Up {
		t.Errorf("Link(1) = %+v, want MTU 1400 and up", got)
	}

	d.down("eth1")
	awaitStatus(t, r, soon, "10.0.0.2", NoRoute)
	awaitStatus(t, r, soon, "198.51.100.7", NoRoute)
	d.up("eth1") // the kernel brings back the segment's route, not the other
	awaitHop(t, r, soon, "10.0.0.2", via)
	awaitStatus(t, r, soon, "198.51.100.7", NoRoute)

	d.must(d.LinkDel(d.link("eth1")))
	awaitStatus(t, r, soon, "10.0.0.2", NoRoute)
	await(t, soon, "the interface is known to be gone", func() bool { return r.Link(1).Index == 0 })
	wire(d, "eth1", n.server, "s0")
	d.addr("eth1", "10.0.0.1/24")
	n.server.addr("s0", "10.0.0.2/24")
	awaitHop(t, r, soon, "10.0.0.2", n.serverHop()) // another index, the same name
	if got, want := r.Link(1).Index, d.link("eth1").Attrs().Index; got != want {
		t.Errorf("Link(1).Index = %d, want %d", got, want)
	}
}

func TestPolicyRulesAskTheKernel(t *testing.T) {
	t.Parallel()
	n := newNet1(t)
	d := n.director
	r := d.resolver(attach("eth0", "eth1"))
	d.route("0.0.0.0/0", "192.0.2.254", "")
	awaitHop(t, r, soon, "198.51.100.7", n.routerHop())

	table := func(rt *netlink.Route) { rt.Table = 100 }
	d.route("0.0.0.0/0", "10.0.0.2", "", table)
	rule := netlink.NewRule()
	rule.Family, rule.Table, rule.Priority = unix.AF_INET, 100, 1000
	_, rule.Dst, _ = net.ParseCIDR("198.51.100.0/24")
	d.must(d.RuleAdd(rule))
	awaitHop(t, r, soon, "198.51.100.7", n.serverHop())
	awaitHop(t, r, soon, "203.0.113.7", n.routerHop())
	awaitHop(t, r, soon, "10.0.0.2", n.serverHop())
	awaitStatus(t, r, soon, "192.0.2.1", Local)

	// A route in a table that only the rule leads to: the remembered answer must not outlive it.
	d.route("198.51.100.0/25", "", "", table, func(rt *netlink.Route) { rt.Type = unix.RTN_BLACKHOLE })
	awaitStatus(t, r, soon, "198.51.100.7", NoRoute)
	awaitHop(t, r, soon, "198.51.100.200", n.serverHop())

	d.must(d.RuleDel(rule))
	awaitHop(t, r, soon, "198.51.100.7", n.routerHop())
}

func TestAddressesAreBoundedUnderPolicyRules(t *testing.T) {
	t.Parallel()
	n := newNet1(t)
	d := n.director
	rule := netlink.NewRule()
	rule.Family, rule.Table, rule.Priority, rule.Mark = unix.AF_INET, 100, 1000, 5
	d.must(d.RuleAdd(rule))
	d.route("0.0.0.0/0", "192.0.2.254", "")
	cfg := attach("eth0", "eth1")
	cfg.MaxAddresses = 300
	r := d.idle(cfg, eventBuffer)
	now := time.Now()
	for i := range uint32(1000) {
		r.Resolve(packet.AddrFrom4(0xc6336400 + i))
		r.answerAsked(now)
	}
	if got := r.view.Load().exact.used; got > 300 {
		t.Errorf("%d addresses remembered, want at most 300", got)
	}
	if r.Stats().Full == 0 {
		t.Error("Stats().Full = 0, want the addresses there was no room for")
	}
	now = now.Add(evictIdle + tick) // idle ones make room
	r.Resolve(packet.AddrFrom4(0xcb007107))
	r.answerAsked(now)
	if r.view.Load().exact.find(packet.AddrFrom4(0xcb007107)) == nil {
		t.Error("a new address finds no room though the others are idle")
	}
}

func TestLostEventsAreMadeUpFor(t *testing.T) {
	t.Parallel()
	n := newNet1(t)
	d := n.director
	r := d.idle(attach("eth0", "eth1"), 4096) // next to no room for events, and nobody reads them yet
	for i := range 500 {
		d.route(netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i / 250), byte(i % 250)}), 32).String(), "192.0.2.254", "")
	}
	d.run(r)
	awaitHop(t, r, soon, "198.18.1.249", n.routerHop())
	if r.Stats().EventsLost == 0 {
		t.Error("Stats().EventsLost = 0: the test lost no event")
	}
}

func TestIPv6RoutesAndNeighbours(t *testing.T) {
	t.Parallel()
	n := newNet1(t)
	d := n.director
	d.addr("eth1", "2001:db8::1/64")
	n.server.addr("s0", "2001:db8::2/64")
	r := d.resolver(attach("eth0", "eth1"))
	want := n.serverHop()
	want.Source, want.Gateway = ip("2001:db8::1"), ip("2001:db8::2")
	awaitHop(t, r, 3*soon, "2001:db8::2", want)
	awaitStatus(t, r, soon, "2001:db8::1", Local)
	awaitStatus(t, r, soon, "2001:db8:f::1", NoRoute)
	rt := d.route("::/0", "2001:db8::2", "")
	awaitHop(t, r, soon, "2001:db8:f::1", want)
	d.must(d.RouteDel(rt))
	awaitStatus(t, r, soon, "2001:db8:f::1", NoRoute)
}

func TestNewNamesTheMissingInterface(t *testing.T) {
	t.Parallel()
	d := newSpace(t)
	d.in(func() error {
		r, err := New(attach("eth7"))
		if err == nil {
			r.Close()
			t.Error("New with an interface that doesn't exist: no error")
		} else if want := "interface eth7 does not exist"; err.Error() != want {
			t.Errorf("New: %q, want %q", err, want)
		}
		return nil
	})
}
