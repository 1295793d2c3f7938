package guard

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// check runs the check in the namespace.
func (s *space) check(cfg CheckConfig) (f []Finding) {
	s.t.Helper()
	s.in(func() error {
		f = Check(s.t.Context(), cfg)
		return nil
	})
	return f
}

// finds fails the test unless exactly one finding has all the words in it.
func finds(t *testing.T, list []Finding, severity Severity, words ...string) {
	t.Helper()
	n := 0
	for _, f := range list {
		if f.Severity == severity && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(f.String(), w) }) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d findings (%v) with %q, want 1, among:\n%v", n, severity, words, list)
	}
}

func TestCheckFindsNothingOnAGoodHost(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	cfg := CheckConfig{
		Interfaces: []CheckInterface{{Name: "eth0", Mode: Virtual}, {Name: "eth1", Mode: InterfaceMAC}},
		VIPs:       []netip.Addr{vip, vipFar}, Gateways: []Gateway{{Prefix: netip.MustParsePrefix("10.0.0.254/24"), Iface: "eth1"}},
		ProbeTime: 200 * time.Millisecond,
	}
	if f := h.director.check(cfg); len(f) != 0 {
		t.Errorf("findings on a host without fault: %v", f)
	}
	g := h.guard() // its blackhole routes don't confuse the check
	h.update(g, Desired{VIPs: cfg.VIPs, Gateways: cfg.Gateways})
	if f := h.director.check(cfg); len(f) != 0 {
		t.Errorf("findings on a guarded host without fault: %v", f)
	}
}

func TestCheckNamesTheRemedy(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	d := h.director
	d.addr("lo", "192.0.2.100/32") // as IPVS wanted it
	_, anyIP, _ := net.ParseCIDR("203.0.113.0/24")
	d.must(d.RouteAdd(&netlink.Route{Dst: anyIP, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Table: unix.RT_TABLE_LOCAL, LinkIndex: d.link("lo").Attrs().Index}))
	h.client.addr("c0", "192.0.2.55/24") // a real server that doesn't ignore ARP
	d.sysctl("ipv4/conf/eth0/proxy_arp", "1")
	d.must(d.LinkSetMTU(d.link("eth1"), 1400))
	d.must(d.LinkAdd(&netlink.Macvlan{
		LinkAttrs: netlink.LinkAttrs{Name: "mv.0", ParentIndex: d.link("eth0").Attrs().Index}, Mode: netlink.MACVLAN_MODE_BRIDGE,
	}))
	d.must(d.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}))
	port := newSpace(t)
	wire(d, "port0", port, "e0")
	d.must(d.LinkSetMaster(d.link("port0"), d.link("br0")))
	d.in(func() error { // GRO on, as a NIC has it
		return setEthtool("eth1", 0x2c, 1)
	})
	f := d.check(CheckConfig{
		Interfaces: []CheckInterface{
			{Name: "eth0", Mode: Virtual}, {Name: "eth1", Mode: InterfaceMAC, NoVnet: true}, {Name: "mv.0", Mode: Virtual},
			{Name: "port0", Mode: Virtual}, {Name: "eth7", Mode: Virtual}, {Name: "lo", Mode: Virtual},
		},
		VIPs:     []netip.Addr{vip, vipFar, netip.MustParseAddr("192.0.2.55")},
		Gateways: []Gateway{{Prefix: netip.MustParsePrefix("10.0.0.1/24"), Iface: "eth1"}},
	})
	for _, l := range f {
		t.Log(l.Severity, l)
	}
	finds(t, f, Refuse, "192.0.2.100", "the host has it on lo", "ip addr del 192.0.2.100/32 dev lo")
	finds(t, f, Refuse, "10.0.0.1", "the host has it on eth1", "ip addr del 10.0.0.1/24 dev eth1")
	finds(t, f, Refuse, "203.0.113.9", "ip route del local")
	mac := packet.MAC(h.client.link("c0").Attrs().HardwareAddr)
	finds(t, f, Warn, "answers ARP for 192.0.2.55", mac.String(), "on eth0", "arp_ignore")
	finds(t, f, Warn, "proxy_arp", "on eth0", "sysctl -w")
	finds(t, f, Warn, "MTUs differ (eth0 1500, eth1 1400)", "ip link set eth0 mtu 1400")
	finds(t, f, Refuse, "super-frames (gro)", "ethtool -K eth1 gro off")
	finds(t, f, Warn, "unfinished checksums", "tx off")
	finds(t, f, Refuse, "interface mv.0 is down", "ip link set mv.0 up")
	finds(t, f, Refuse, "mv.0", "macvlan", "--mac interface")
	finds(t, f, Warn, "port0", "port of the bridge br0", "--interface br0")
	finds(t, f, Refuse, "eth7 does not exist")
	finds(t, f, Refuse, "lo is not Ethernet")
}

func TestMissingCapabilitiesAreNamed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		effective uint32
		want      []string
	}{
		{1<<unix.CAP_NET_RAW | 1<<unix.CAP_NET_ADMIN, nil},
		{1 << unix.CAP_NET_RAW, []string{"CAP_NET_ADMIN"}},
		{0, []string{"CAP_NET_RAW", "CAP_NET_ADMIN"}},
	} {
		var f findings
		f.lackOf(c.effective)
		if len(f) != len(c.want) {
			t.Errorf("capabilities %x: %v, want %v", c.effective, f, c.want)
		}
		for _, w := range c.want {
			finds(t, f, Refuse, w+" is missing", "setcap")
		}
	}
}

func TestIPVSServicesAreRead(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"TCP  C0000264:0050 wlc  ":                                 "TCP 192.0.2.100:80",
		"UDP  C0000264:0035 rr ops ":                               "UDP 192.0.2.100:53",
		"FWM  00000005 rr ":                                        "FWM 00000005",
		"TCP  [2001:0db8:0000:0000:0000:0000:0000:0100]:0050 wlc ": "TCP [2001:db8::100]:80",
		"SCTP [2001:0db8:0000:0000:0000:0000:0000:0100]:xyz wlc ":  "SCTP [2001:0db8:0000:0000:0000:0000:0000:0100]:xyz",
		"TCP  [2001:0db8:wlc]:0050 ":                               "TCP [2001:0db8:wlc]:0050",
	} {
		got, addr := ipvsService(strings.Fields(line))
		wantAddr := netip.Addr{}
		if service, err := netip.ParseAddrPort(strings.Fields(want)[1]); err == nil {
			wantAddr = service.Addr()
		}
		if got != want || addr != wantAddr {
			t.Errorf("%q: %q, %v, want %q, %v", line, got, addr, want, wantAddr)
		}
	}
}

func TestForwardingOfEitherFamilyIsSeen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ v4, v6, want string }{
		{"0", "0", "[]"}, {"1", "0", "[net.ipv4.ip_forward]"}, {"0", "1", "[net.ipv6.conf.all.forwarding]"},
		{"1", "1", "[net.ipv4.ip_forward net.ipv6.conf.all.forwarding]"},
	} {
		d := newSpace(t)
		d.sysctl("ipv4/ip_forward", c.v4)
		d.sysctl("ipv6/conf/all/forwarding", c.v6)
		d.in(func() error {
			if got := fmt.Sprint(forwarding()); got != c.want {
				t.Errorf("with %s and %s: %s, want %s", c.v4, c.v6, got, c.want)
			}
			return nil
		})
	}
}

func TestSysctlOfAnInterfaceWithDots(t *testing.T) {
	t.Parallel()
	d := newSpace(t)
	d.must(d.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br.100"}}))
	d.in(func() error {
		if got := sysctl("net.ipv4.conf.br.100.proxy_arp"); got != "0" {
			t.Errorf("sysctl = %q, want 0", got)
		}
		return nil
	})
}
