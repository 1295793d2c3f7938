package guard

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/nftables"
	mdpacket "github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// host is a director that routes, as badly as a host can for uvs:
//
//	client 192.0.2.254 --- eth0 192.0.2.1 director 10.0.0.1 eth1 --- 10.0.0.2 server
//
// client and server send raw frames and see what the director's kernel sends.
type host struct {
	t                        *testing.T
	director, client, server *space
	toClient, toServer       *tap
}

var (
	vip      = netip.MustParseAddr("192.0.2.100") // of the client's segment
	vipFar   = netip.MustParseAddr("203.0.113.9") // routed to the director
	rip      = netip.MustParseAddr("10.0.0.2")
	clientIP = netip.MustParseAddr("192.0.2.254")
)

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, director: newSpace(t), client: newSpace(t), server: newSpace(t)}
	d := h.director
	wire(d, "eth0", h.client, "c0")
	wire(d, "eth1", h.server, "s0")
	d.addr("eth0", "192.0.2.1/24")
	d.addr("eth1", "10.0.0.1/24")
	h.client.addr("c0", "192.0.2.254/24")
	h.server.addr("s0", "10.0.0.2/24")
	d.defaultRoute("192.0.2.254")
	h.server.defaultRoute("10.0.0.1")
	for _, s := range []*space{d, h.client, h.server} {
		s.sysctl("ipv6/conf/all/disable_ipv6", "1") // no chatter
	}
	d.sysctl("ipv4/ip_forward", "1")
	d.sysctl("ipv4/icmp_ratelimit", "0")
	d.sysctl("ipv4/icmp_msgs_per_sec", "100000")
	h.toClient, h.toServer = h.client.tap("c0"), h.server.tap("s0")
	return h
}

// guard makes a Guard on the director with both interfaces in mode InterfaceMAC.
func (h *host) guard(edit ...func(*Config)) *Guard {
	h.t.Helper()
	cfg := Config{Interfaces: []Interface{{Name: "eth0", Mode: InterfaceMAC}, {Name: "eth1", Mode: InterfaceMAC}}}
	for _, f := range edit {
		f(&cfg)
	}
	var g *Guard
	h.director.in(func() (err error) {
		g, err = New(cfg)
		return err
	})
	h.t.Cleanup(func() { g.Close() })
	return g
}

func (h *host) update(g *Guard, d Desired) {
	h.t.Helper()
	if err := g.Update(d); err != nil {
		h.t.Fatalf("Update: %v", err)
	}
}

// tap sends and sees frames on an interface.
type tap struct {
	t    *testing.T
	conn *mdpacket.Conn
	mac  net.HardwareAddr
}

func (s *space) tap(dev string) *tap {
	s.t.Helper()
	tp := &tap{t: s.t}
	s.in(func() error {
		l, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		tp.mac = l.HardwareAddr
		tp.conn, err = mdpacket.Listen(l, mdpacket.Raw, unix.ETH_P_ALL, nil)
		return err
	})
	s.t.Cleanup(func() { tp.conn.Close() })
	return tp
}

func (tp *tap) send(to packet.MAC, l ...gopacket.SerializableLayer) {
	tp.t.Helper()
	buf := gopacket.NewSerializeBuffer()
	eth := &layers.Ethernet{SrcMAC: tp.mac, DstMAC: to[:], EthernetType: layers.EthernetTypeIPv4}
	opt := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opt, append([]gopacket.SerializableLayer{eth}, l...)...); err != nil {
		tp.t.Fatal(err)
	}
	if _, err := tp.conn.WriteTo(buf.Bytes(), &mdpacket.Addr{HardwareAddr: to[:]}); err != nil {
		tp.t.Fatal(err)
	}
}

// drain forgets what has come so far.
func (tp *tap) drain() {
	_ = tp.conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	for b := make([]byte, 65536); ; {
		if _, _, err := tp.conn.ReadFrom(b); err != nil {
			return
		}
	}
}

// about are the frames from the director's kernel that speak of an address anywhere, seen within a moment.
func (tp *tap) about(director packet.MAC, addrs ...netip.Addr) []string {
	var seen []string
	_ = tp.conn.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
	for b := make([]byte, 65536); ; {
		n, _, err := tp.conn.ReadFrom(b)
		if err != nil {
			return seen
		}
		frame := b[:n]
		if n < 14 || packet.MAC(frame[6:12]) != director {
			continue
		}
		if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return strings.Contains(string(frame[14:]), string(a.AsSlice())) }) {
			p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
			seen = append(seen, p.String())
		}
	}
}

// leaks are the frames that the director's kernel sends to either side about the addresses.
func (h *host) leaks(addrs ...netip.Addr) []string {
	return append(h.toClient.about(h.director.mac("eth0"), addrs...), h.toServer.about(h.director.mac("eth1"), addrs...)...)
}

func ipv4(src, dst netip.Addr, proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Id: 77, Protocol: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

func tcp(ip *layers.IPv4, src, dst uint16, ack bool) *layers.TCP {
	t := &layers.TCP{SrcPort: layers.TCPPort(src), DstPort: layers.TCPPort(dst), SYN: true, ACK: ack, Window: 1000}
	_ = t.SetNetworkLayerForChecksum(ip)
	return t
}

func udp(ip *layers.IPv4, src, dst uint16) *layers.UDP {
	u := &layers.UDP{SrcPort: layers.UDPPort(src), DstPort: layers.UDPPort(dst)}
	_ = u.SetNetworkLayerForChecksum(ip)
	return u
}

// knock sends everything to an address that a client may send.
func (h *host) knock(dst netip.Addr) {
	h.toClient.drain()
	h.toServer.drain()
	to := h.director.mac("eth0")
	ip := ipv4(clientIP, dst, layers.IPProtocolTCP)
	h.toClient.send(to, ip, tcp(ip, 40000, 80, false))
	ip = ipv4(clientIP, dst, layers.IPProtocolUDP)
	h.toClient.send(to, ip, udp(ip, 40000, 53), gopacket.Payload("query"))
	ip = ipv4(clientIP, dst, layers.IPProtocolICMPv4)
	h.toClient.send(to, ip, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0)})
	ip = ipv4(clientIP, dst, layers.IPProtocolUDP)
	ip.FragOffset = 100
	h.toClient.send(to, ip, gopacket.Payload("a later fragment"))
	ip = ipv4(clientIP, dst, layers.IPProtocolTCP)
	ip.TTL = 1
	h.toClient.send(to, ip, tcp(ip, 40001, 80, false))
}

// answer sends what a NAT real server sends about a connection, from a port, to a client.
func (h *host) answer(dst netip.Addr, port uint16) {
	h.toClient.drain()
	h.toServer.drain()
	to := h.director.mac("eth1")
	ip := ipv4(rip, dst, layers.IPProtocolTCP)
	h.toServer.send(to, ip, tcp(ip, port, 40000, true))
	ip = ipv4(rip, dst, layers.IPProtocolUDP)
	h.toServer.send(to, ip, udp(ip, port, 40000), gopacket.Payload("answer"))
	ip = ipv4(rip, dst, layers.IPProtocolUDP)
	ip.FragOffset = 100
	h.toServer.send(to, ip, gopacket.Payload("a later fragment"))
	ip = ipv4(rip, dst, layers.IPProtocolICMPv4)
	quoted := ipv4(dst, rip, layers.IPProtocolUDP)
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, quoted, udp(quoted, 40000, port)); err != nil {
		h.t.Fatal(err)
	}
	unreachable := layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodePort)
	h.toServer.send(to, ip, &layers.ICMPv4{TypeCode: unreachable}, gopacket.Payload(buf.Bytes()))
}

func server(addr string, protos ...uint8) (list []Server) {
	for _, p := range protos {
		list = append(list, Server{netip.MustParseAddrPort(addr), p})
	}
	return list
}

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

// reach fails the test unless the server can connect from one address to another, which is the director's.
func (h *host) reach(from, to string) {
	h.t.Helper()
	var l net.Listener
	h.director.in(func() (err error) {
		l, err = net.Listen("tcp4", to)
		return err
	})
	defer l.Close()
	h.server.in(func() error {
		dialer := net.Dialer{Timeout: 2 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from)), Control: reuse}
		c, err := dialer.Dial("tcp4", to)
		if err != nil {
			h.t.Errorf("the server cannot talk to the host itself: %v", err)
			return nil
		}
		_ = c.(*net.TCPConn).SetLinger(0) // the same port again at once
		return c.Close()
	})
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

func (h *host) tables() (names []string) {
	h.t.Helper()
	h.director.in(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := c.ListTables()
		for _, t := range tables {
			names = append(names, t.Name)
		}
		return err
	})
	return names
}

// routes are the addresses of all blackhole routes.
func (h *host) routes() (addrs []string) {
	h.t.Helper()
	list, err := h.director.RouteListFiltered(unix.AF_INET, &netlink.Route{Protocol: RouteProtocol, Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	h.director.must(err)
	for _, r := range list {
		addrs = append(addrs, r.Dst.IP.String())
	}
	slices.Sort(addrs)
	return addrs
}

func equal(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
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

// crash ends a Guard as a crash of its process would.
func (h *host) crash(g *Guard) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.release()
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
	if n := len(have.sets[setAnswers]); n != 4000 {
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

// watchNFT counts the transactions of nftables in the namespace until stopped.
func (s *space) watchNFT(n *atomic.Int32) (stop func()) {
	var nw *news
	s.in(func() (err error) {
		nw, err = openNews()
		return err
	})
	heard, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			select {
			case <-heard:
				return
			case <-time.After(5 * time.Millisecond):
			}
			for {
				k, _, err := unix.Recvfrom(nw.fds[1], buf, 0)
				if err != nil {
					break
				}
				for b := buf[:k]; len(b) >= 16; { // each transaction ends with a message of the new generation
					if typ := int(b[4]) | int(b[5])<<8; typ == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
						n.Add(1)
					}
					b = b[min(len(b), int(b[0])|int(b[1])<<8|int(b[2])<<16):]
				}
			}
		}
	}()
	return func() { close(heard); <-done; nw.close() }
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
