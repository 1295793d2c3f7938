package guard

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

func TestVirtualAddressesAreNoBusinessOfTheKernels(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, a := range []netip.Addr{vip, vipFar} {
		h.knock(a)
		if len(h.leaks(a)) == 0 {
			t.Fatalf("the kernel sends nothing about %v even without a guard: the test shows nothing", a)
		}
	}
	d := h.director // still asks who has the address, from before
	d.must(d.NeighDel(&netlink.Neigh{LinkIndex: d.link("eth0").Attrs().Index, IP: vip.AsSlice()}))
	g := h.guard()
	h.update(g, Desired{VIPs: []netip.Addr{vip, vipFar}})
	for _, a := range []netip.Addr{vip, vipFar} {
		h.knock(a)
		for _, l := range h.leaks(a) {
			t.Errorf("sent by the kernel about %v:\n%s", a, l)
		}
	}
	if got := h.tables(); len(got) != 0 {
		t.Errorf("nftables tables %v though routes are enough, want none", got)
	}
	h.update(g, Desired{VIPs: []netip.Addr{vipFar}})
	h.knock(vip)
	if len(h.leaks(vip)) == 0 {
		t.Error("an address is still guarded that isn't uvs's any more")
	}
	if err := g.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	h.knock(vipFar)
	if len(h.leaks(vipFar)) == 0 {
		t.Error("an address is still guarded after Close")
	}
}

func TestVirtualMACNeedsNothingOnTheHost(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	mac := packet.MAC{2, 0x75, 1, 2, 3, 4}
	g := h.guard(func(c *Config) {
		for i := range c.Interfaces {
			c.Interfaces[i].Mode, c.Interfaces[i].MACs = Virtual, []packet.MAC{mac}
			mac[5]++
		}
	})
	h.update(g, Desired{VIPs: []netip.Addr{vip}, NATServers: server("10.0.0.2:80", packet.ProtoTCP),
		Gateways: []Gateway{{Prefix: netip.MustParsePrefix("10.0.0.254/24"), Iface: "eth1", All: true}}})
	equal(t, "routes", h.routes())
	equal(t, "tables", h.tables())
	h.toClient.drain()
	ip := ipv4(clientIP, vip, layers.IPProtocolTCP)
	h.toClient.send(packet.MAC{2, 0x75, 1, 2, 3, 4}, ip, tcp(ip, 40000, 80, false))
	for _, l := range h.leaks(vip) {
		t.Errorf("sent by the kernel about a frame to the virtual MAC:\n%s", l)
	}
}

func TestPolicyRulesDontGetAroundTheGuard(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	rule := netlink.NewRule()
	rule.Family, rule.Table, rule.Priority = unix.AF_INET, 100, 1000
	h.director.must(h.director.RuleAdd(rule))
	_, all, _ := net.ParseCIDR("0.0.0.0/0")
	h.director.must(h.director.RouteAdd(&netlink.Route{Dst: all, Gw: net.IPv4(192, 0, 2, 254), Table: 100}))
	g := h.guard()
	h.update(g, Desired{VIPs: []netip.Addr{vipFar}})
	h.knock(vipFar)
	for _, l := range h.leaks(vipFar) {
		t.Errorf("sent by the kernel:\n%s", l)
	}
}

func TestAnswersOfNATServersAreNoBusinessOfTheKernels(t *testing.T) {
	t.Parallel()
	for _, fib := range []bool{true, false} {
		t.Run(fmt.Sprintf("fib=%v", fib), func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.answer(clientIP, 80)
			if n := len(h.leaks(rip)); n < 4 {
				t.Fatalf("the kernel forwards %d packets without a guard, want all: the test shows nothing", n)
			}
			g := h.guard()
			if !g.nft.fib {
				t.Fatal("this kernel has no fib at ingress; the test needs it")
			}
			g.nft.fib = fib
			d := Desired{VIPs: []netip.Addr{vip}, NATServers: server("10.0.0.2:80", packet.ProtoTCP, packet.ProtoUDP)}
			h.update(g, d)
			h.answer(clientIP, 80)
			for _, l := range h.leaks(rip) {
				t.Errorf("forwarded by the kernel:\n%s", l)
			}

			// From another port it is the host's to forward; but not fragments and ICMP errors, which don't tell.
			h.answer(clientIP, 81)
			if n := len(h.leaks(rip)); n != 2 {
				t.Errorf("%d packets from another port forwarded, want 2 (TCP and UDP)", n)
			}
			h.reach("10.0.0.2:80", "10.0.0.1:999")
			h.reach("10.0.0.2:80", "192.0.2.1:999")

			d.NATServers = server("10.0.0.2:0", packet.ProtoTCP, packet.ProtoUDP)
			h.update(g, d)
			h.answer(clientIP, 81)
			for _, l := range h.leaks(rip) {
				t.Errorf("forwarded by the kernel though the server answers from all ports:\n%s", l)
			}
			h.reach("10.0.0.2:80", "10.0.0.1:999")

			d.NATServers = nil
			h.update(g, d)
			h.answer(clientIP, 80)
			if len(h.leaks(rip)) == 0 {
				t.Error("answers are still dropped though the server is gone")
			}
			if got := h.tables(); len(got) != 0 {
				t.Errorf("nftables tables %v without a server to guard, want none", got)
			}
		})
	}
}

func TestGatewaySegmentGuarded(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	own := netip.MustParseAddr("10.0.0.254")
	g := h.guard()
	gw := Gateway{Prefix: netip.PrefixFrom(own, 24), Iface: "eth1", All: true}
	h.update(g, Desired{Gateways: []Gateway{gw}})
	h.answer(clientIP, 81)
	for _, l := range h.leaks(rip) {
		t.Errorf("forwarded by the kernel:\n%s", l)
	}
	ip := ipv4(rip, own, layers.IPProtocolUDP)
	h.toServer.send(h.director.mac("eth1"), ip, udp(ip, 1, 2))
	for _, l := range h.leaks(own) {
		t.Errorf("sent by the kernel about the gateway's address:\n%s", l)
	}
	h.reach("10.0.0.2:80", "10.0.0.1:999")
	gw.All = false
	h.update(g, Desired{Gateways: []Gateway{gw}})
	h.answer(clientIP, 81)
	if len(h.leaks(rip)) == 0 {
		t.Error("what isn't uvs's to forward isn't forwarded by the host either")
	}
}

func TestLeftoversOfACrashAreRecognised(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	// The operator's own, to be left alone.
	h.director.must(h.director.RouteAdd(&netlink.Route{
		Dst: &net.IPNet{IP: net.IPv4(198, 51, 100, 1).To4(), Mask: net.CIDRMask(32, 32)}, Type: unix.RTN_BLACKHOLE, Protocol: unix.RTPROT_STATIC,
	}))
	d := Desired{VIPs: []netip.Addr{vip, vipFar}, NATServers: server("10.0.0.2:80", packet.ProtoTCP)}
	first, other := h.guard(), h.guard(func(c *Config) { c.Interfaces = c.Interfaces[:1] })
	h.update(first, d)
	h.update(other, Desired{VIPs: []netip.Addr{netip.MustParseAddr("192.0.2.101")}, NATServers: server("10.0.0.3:80", packet.ProtoTCP)})
	h.crash(first)
	equal(t, "tables after the crash", h.tables(), "uvs-eth0_eth1", "uvs-eth0")

	// Another run of the same takes over what it needs and removes the rest. The living instance's is left alone.
	again := h.guard()
	h.update(again, Desired{VIPs: []netip.Addr{vip}})
	equal(t, "routes", h.routes(), "192.0.2.100", "192.0.2.101")
	equal(t, "tables", h.tables(), "uvs-eth0")
	h.update(again, d)
	h.crash(again)

	// One by another name finds nothing of it alive and removes it all.
	third := h.guard(func(c *Config) { c.Instance = "third" })
	equal(t, "routes", h.routes(), "192.0.2.101")
	equal(t, "tables", h.tables(), "uvs-eth0")
	for _, g := range []*Guard{third, other} {
		if err := g.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	equal(t, "routes after Close", h.routes())
	equal(t, "tables after Close", h.tables())
	list, err := h.director.RouteListFiltered(unix.AF_INET, &netlink.Route{Type: unix.RTN_BLACKHOLE}, netlink.RT_FILTER_TYPE)
	h.director.must(err)
	if len(list) != 1 {
		t.Errorf("blackhole routes %v, want the operator's alone", list)
	}
}

func TestTwoInstancesOnOneInterfaceDontFight(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	a, b := h.guard(), h.guard()
	if a.Name() == b.Name() {
		t.Fatalf("two living instances are both called %s", a.Name())
	}
	h.update(a, Desired{VIPs: []netip.Addr{vip}, NATServers: server("10.0.0.2:80", packet.ProtoTCP)})
	h.update(b, Desired{VIPs: []netip.Addr{vip, vipFar}})
	h.update(a, Desired{VIPs: []netip.Addr{vip}, NATServers: server("10.0.0.2:80", packet.ProtoTCP)})
	equal(t, "routes of both", h.routes(), "192.0.2.100", "192.0.2.100", "203.0.113.9")
	if err := a.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	equal(t, "routes of the second", h.routes(), "192.0.2.100", "203.0.113.9")
}

func TestUpdateChangesNothingWhereNothingChanged(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	g := h.guard()
	d := Desired{VIPs: []netip.Addr{vip}, Gateways: []Gateway{{Prefix: netip.MustParsePrefix("10.0.0.254/24"), Iface: "eth1", All: true}}}
	for i := range 4000 { // more than fit into one message
		a := netip.AddrFrom4([4]byte{10, 1, byte(i / 250), byte(i % 250)})
		d.NATServers = append(d.NATServers, Server{netip.AddrPortFrom(a, 80), packet.ProtoTCP})
	}
	h.update(g, d)
	have, err := g.nft.read()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(have.sets[family4.sets.answers]); n != 4000 {
		t.Errorf("%d elements installed, want 4000", n)
	}
	var changes atomic.Int32
	changed := h.director.watchNFT(&changes)
	h.update(g, d)
	time.Sleep(100 * time.Millisecond)
	if n := changes.Load(); n != 0 {
		t.Errorf("an Update without a change makes %d transactions, want 0", n)
	}
	d.NATServers = d.NATServers[1:]
	h.update(g, d)
	await(t, soon, "one transaction", func() bool { return changes.Load() == 1 })
	changed()
}

func TestNamesAreSuchAsNFTCanRead(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"eth0": "eth0", "br-lan.100": "br-lan.100", "wan:1 é": "wan_1__"} {
		if got := nftName(in); got != want {
			t.Errorf("nftName(%q) = %q, want %q", in, got, want)
		}
	}
	g := &Guard{cfg: Config{Interfaces: []Interface{{Name: "a:b", Mode: InterfaceMAC}, {Name: "a_b", Mode: InterfaceMAC}}}}
	r := g.rules(Desired{NATServers: server("10.0.0.2:80", packet.ProtoTCP)})
	if len(r.chains) != 2 || r.chains[0].name == r.chains[1].name {
		t.Errorf("chains %+v, want two of different names", r.chains)
	}
}

func TestRunPutsBackWhatOthersTakeAway(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	g := h.guard()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- g.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	h.update(g, Desired{NATServers: server("10.0.0.2:80", packet.ProtoTCP, packet.ProtoUDP)})
	h.director.in(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.FlushRuleset() // as a firewall does that is loaded anew
		return c.Flush()
	})
	await(t, soon, "the table is back", func() bool { return len(h.tables()) == 1 })

	h.director.must(h.director.LinkDel(h.director.link("eth1")))
	time.Sleep(200 * time.Millisecond)
	wire(h.director, "eth1", h.server, "s0")
	h.director.addr("eth1", "10.0.0.1/24")
	h.server.addr("s0", "10.0.0.2/24")
	h.toServer = h.server.tap("s0")
	await(t, 2*soon, "the interface that came back is guarded", func() bool {
		h.answer(clientIP, 80)
		return len(h.leaks(rip)) == 0
	})
}

func TestBridgeIsToldOfTheVirtualMAC(t *testing.T) {
	t.Parallel()
	d := newSpace(t)
	d.must(d.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}))
	ports := []*space{newSpace(t), newSpace(t)}
	for i, p := range ports {
		name := fmt.Sprintf("p%d", i)
		wire(d, name, p, "e0")
		d.must(d.LinkSetMaster(d.link(name), d.link("br0")))
	}
	d.up("br0")
	mac := packet.MAC{2, 0x75, 1, 2, 3, 4}
	open := func(macs ...packet.MAC) *Guard {
		t.Helper()
		var g *Guard
		d.in(func() (err error) {
			g, err = New(Config{Interfaces: []Interface{{Name: "br0", Mode: Virtual, MACs: macs}}})
			return err
		})
		t.Cleanup(func() { g.Close() })
		return g
	}
	told := func(g *Guard) []packet.MAC {
		t.Helper()
		macs, err := g.told(d.link("br0"))
		d.must(err)
		return macs
	}
	flooded := func() bool {
		from, other := ports[0].tap("e0"), ports[1].tap("e0")
		ip := ipv4(clientIP, vip, layers.IPProtocolUDP)
		from.send(mac, ip, udp(ip, 1, 2), gopacket.Payload("flooded?"))
		return len(other.about(packet.MAC(from.mac), vip)) > 0
	}
	time.Sleep(200 * time.Millisecond) // ports begin to forward
	if !flooded() {
		t.Fatal("the bridge doesn't flood even without a guard: the test shows nothing")
	}
	g := open(mac)
	if err := g.Update(Desired{}); err != nil {
		t.Fatalf("Update: %v", err)
	}
	if flooded() {
		t.Error("frames to the virtual MAC are flooded to other ports")
	}
	d.in(func() error {
		_, err := New(Config{Interfaces: []Interface{{Name: "br0", Mode: Virtual, MACs: []packet.MAC{mac}}}})
		if err == nil || !strings.Contains(err.Error(), "in use by another uvsd") {
			t.Errorf("a second instance with the same MAC: %v, want a refusal", err)
		}
		return nil
	})
	(&host{t: t}).crash(g)
	other := open()
	g = open(packet.MAC{2, 0x75, 9, 9, 9, 9}) // a run with another address
	if got := told(g); len(got) != 0 {
		t.Errorf("left behind after a crash: %v, want nothing", got)
	}
	if err := g.Update(Desired{}); err != nil {
		t.Fatalf("Update: %v", err)
	}
	if got := told(g); len(got) != 1 {
		t.Errorf("told %v, want one", got)
	}
	if err := g.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if got := told(other); len(got) != 0 {
		t.Errorf("left behind after Close: %v, want nothing", got)
	}
}
