package lab

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// carries checks that a client reaches a real server's own address by TCP, with content larger than any window, and
// by UDP, with datagrams larger than the MTU.
func carries(t *testing.T, topo *Topology, addr netip.Addr, name string) {
	t.Helper()
	client := topo.Clients[len(topo.Clients)-1]
	base := "http://" + netip.AddrPortFrom(addr, 80).String()
	server, body, err := AskHTTP(shortly(t), client.HTTPClient(), base+"/")
	if err != nil || server != name || string(body) != name+"\n" {
		t.Fatalf("GET / from %v = %q, %q, %v; want %q", addr, server, body, err, name)
	}
	if _, err := Download(shortly(t), client.HTTPClient(), base, 2<<20); err != nil {
		t.Error(err)
	}
	if _, err := Upload(shortly(t), client.HTTPClient(), base, 2<<20); err != nil {
		t.Error(err)
	}
	for _, size := range []int{1, 1000, 4000} {
		payload := bytes.Repeat([]byte{'u'}, size)
		server, echo, err := AskUDP(shortly(t), client.Namespace, netip.AddrPortFrom(addr, 53), payload)
		if err != nil || server != name || !bytes.Equal(echo, payload) {
			t.Errorf("UDP echo of %d bytes from %v = %q, %d bytes, %v; want %q", size, addr, server, len(echo), err, name)
		}
	}
}

// serve starts the servers of a topology.
func serve(t *testing.T, topo *Topology) {
	t.Helper()
	if _, err := topo.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	if _, err := topo.ServeUDPEcho(53); err != nil {
		t.Fatal(err)
	}
}

func TestDRCarriesTCPAndUDP(t *testing.T) {
	for _, cfg := range []Config{
		{Clients: 2, RealServers: 3},
		{OffloadsOff: true},
		{IPv6: true, VIPs: 3},
		{Routed: true, IPv6: true},
		{MTU: 9000},
	} {
		t.Run(describe(cfg), func(t *testing.T) {
			topo := DR(t, cfg)
			serve(t, topo)
			for i, rs := range topo.RealServers {
				carries(t, topo, rs.Addr(), fmt.Sprintf("rs%d", i+1))
				if cfg.IPv6 {
					carries(t, topo, rs.Addr6(), fmt.Sprintf("rs%d", i+1))
				}
			}
			if got, want := len(topo.RealServers), topo.Config.RealServers; got != want {
				t.Errorf("%d real servers, want %d", got, want)
			}
		})
	}
}

// Here the real servers hold the VIPs on lo: nothing on this network tunnels.
func TestTUNsRealServersAreBehindTheRouter(t *testing.T) {
	for _, cfg := range []Config{{Directors: 2}, {OffloadsOff: true, Routed: true, IPv6: true, Clients: 2}} {
		t.Run(describe(cfg), func(t *testing.T) {
			topo := TUN(t, cfg)
			for _, rs := range topo.RealServers {
				must(t, rs.AddAddr("lo", netip.PrefixFrom(topo.VIP(), 32)))
				for _, vip := range topo.VIPs6 {
					must(t, rs.AddAddr("lo", netip.PrefixFrom(vip, 128)))
				}
			}
			serve(t, topo)
			if !cfg.Routed { // who is on the segment of the VIPs knows nothing behind it
				must(t, topo.Clients[0].AddRoute(netip.MustParsePrefix("10.2.0.0/24"), topo.Router.Addr(), ""))
			}
			for i, rs := range topo.RealServers {
				carries(t, topo, rs.Addr(), fmt.Sprintf("rs%d", i+1))
				if cfg.IPv6 {
					carries(t, topo, rs.Addr6(), fmt.Sprintf("rs%d", i+1))
				}
			}
			for _, director := range topo.Directors {
				if _, _, err := AskHTTP(shortly(t), director.HTTPClient(), "http://10.2.0.11/"); err != nil {
					t.Errorf("%s does not reach a real server: %v", director, err)
				}
			}
			// What a real server sends as the VIP reaches the client by the router.
			vip := netip.PrefixFrom(topo.VIP(), 32)
			must(t, topo.Router.AddRoute(vip, topo.RealServers[1].Addr(), ""))
			if !cfg.Routed {
				must(t, topo.Clients[0].AddRoute(vip, topo.Router.Addr(), ""))
			}
			carries(t, topo, topo.VIP(), "rs2")
		})
	}
}

// In NAT the client and the real servers have no way to each other. Here the director's own kernel is made the
// gateway, to show that both legs carry.
func TestNATCarriesTCPAndUDPThroughTheDirector(t *testing.T) {
	for _, cfg := range []Config{
		{IPForward: true},
		{IPForward: true, OffloadsOff: true},
		{IPForward: true, IPv6: true, Routed: true},
		{IPForward: true, NoInsideAddress: true},
		{IPForward: true, DirectorLink: Macvlan},
		{IPForward: true, DirectorLink: BridgeMaster},
		{IPForward: true, DirectorLink: Tap},
		{IPForward: true, DirectorLink: Macvlan, OffloadsOff: true},
		{IPForward: true, DirectorLink: BridgeMaster, OffloadsOff: true},
		{IPForward: true, DirectorLink: Tap, OffloadsOff: true},
	} {
		t.Run(describe(cfg), func(t *testing.T) {
			topo := NAT(t, cfg)
			director := topo.Directors[0]
			if topo.Config.NoInsideAddress == director.Legs[1].Prefix.IsValid() {
				t.Errorf("the director's inside address is %v", director.Legs[1].Prefix)
			}
			must(t, director.AddAddr("eth1", netip.PrefixFrom(topo.Gateway, 24)))
			hop := topo.Clients[0]
			if cfg.Routed {
				hop = topo.Router
			}
			must(t, hop.AddRoute(netip.MustParsePrefix("10.1.0.0/24"), director.Addr(), ""))
			if cfg.IPv6 {
				must(t, director.AddAddr("eth1", netip.PrefixFrom(topo.Gateway6, 64)))
				must(t, director.Sysctl("net/ipv6/conf/all/forwarding", "1"))
				must(t, hop.AddRoute(netip.MustParsePrefix("2001:db8:1::/64"), director.Addr6(), ""))
			}
			serve(t, topo)
			for i, rs := range topo.RealServers {
				carries(t, topo, rs.Addr(), fmt.Sprintf("rs%d", i+1))
				if cfg.IPv6 {
					carries(t, topo, rs.Addr6(), fmt.Sprintf("rs%d", i+1))
				}
			}
		})
	}
}

// describe names a subtest by what its configuration asks for.
func describe(cfg Config) string {
	parts := []string{cfg.DirectorLink.String()}
	for _, p := range []struct {
		name string
		on   bool
	}{
		{"offloads-off", cfg.OffloadsOff}, {"ipv6", cfg.IPv6}, {"routed", cfg.Routed},
		{"no-inside-address", cfg.NoInsideAddress}, {"jumbo", cfg.MTU > 1500},
	} {
		if p.on {
			parts = append(parts, p.name)
		}
	}
	return strings.Join(parts, "+")
}

func TestHostsAreAsDocumented(t *testing.T) {
	topo := NAT(t, Config{Clients: 2, Directors: 2, IPv6: true, Routed: true, VIPs: 2})
	for _, h := range []struct {
		host *Host
		leg  int
		name string
		addr string
		mac  string
	}{
		{topo.Clients[1], 0, "client2", "192.0.2.202/24 2001:db8:c::202/64", "02:00:c0:00:02:ca"},
		{topo.Directors[0], 0, "director1", "10.9.0.1/24 2001:db8:9::1/64", "02:00:0a:09:00:01"},
		{topo.Directors[1], 1, "director2", "10.1.0.2/24 2001:db8:1::2/64", "02:00:0a:01:00:02"},
		{topo.RealServers[1], 0, "rs2", "10.1.0.12/24 2001:db8:1::12/64", "02:00:0a:01:00:0c"},
		{topo.Router, 0, "router", "10.9.0.254/24 2001:db8:9::254/64", "02:00:0a:09:00:fe"},
	} {
		leg := h.host.Legs[h.leg]
		if got := fmt.Sprint(leg.Prefix, leg.Prefix6); h.host.Name() != h.name || got != h.addr {
			t.Errorf("%s %s has %s, want %s %s", h.host, leg.Name, got, h.name, h.addr)
		}
		mac, err := h.host.MAC(leg.Name)
		if err != nil || mac.String() != h.mac || leg.MAC.String() != h.mac {
			t.Errorf("%s %s has MAC %v (%v in Leg), %v; want %s", h.host, leg.Name, mac, leg.MAC, err, h.mac)
		}
	}
	if got := fmt.Sprint(topo.VIPs, topo.VIPs6); got != "[10.9.0.100 10.9.0.101] [2001:db8:9::100 2001:db8:9::101]" {
		t.Errorf("VIPs = %s", got)
	}
	if got := fmt.Sprint(topo.Gateway, topo.Gateway6); got != "10.1.0.254 2001:db8:1::254" {
		t.Errorf("gateways = %s", got)
	}
	for sysctl, want := range map[string]string{"net.ipv4.ip_forward": "0", "net/ipv4/conf/eth0/rp_filter": "0"} {
		if got, err := topo.Directors[0].SysctlValue(sysctl); got != want || err != nil {
			t.Errorf("%s in director1 = %q, %v; want %q", sysctl, got, err, want)
		}
	}
}

func TestIPv6IsSilentUnlessAskedFor(t *testing.T) {
	topo := DR(t, Config{})
	for _, h := range append(topo.RealServers, topo.Directors[0], topo.Clients[0]) {
		must(t, h.Do(func() error {
			if b, err := os.ReadFile("/proc/thread-self/net/if_inet6"); len(b) > 0 {
				t.Errorf("%s has IPv6 addresses: %s", h, b)
			} else if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			return nil
		}))
	}
}

func TestConfigBeyondTheAddressesIsRefused(t *testing.T) {
	if topo, err := NewDR(Config{Clients: 51}); err == nil {
		topo.Close()
		t.Error("NewDR with 51 clients succeeded")
	}
	topo := DR(t, Config{Clients: -1, Directors: -1, RealServers: -1, VIPs: -1})
	if n := len(topo.Clients) + len(topo.Directors) + len(topo.RealServers) + len(topo.VIPs); n != 0 {
		t.Errorf("negative counts gave %d things", n)
	}
}

// arpRequest is a broadcast question for target from the host's first leg.
func arpRequest(h *Host, target netip.Addr) []byte {
	mac, sender, asked := h.Legs[0].MAC, h.Addr().As4(), target.As4()
	frame := bytes.Repeat([]byte{0xff}, 6)                        // to all
	frame = append(append(frame, mac...), 0x08, 0x06)             // from h, EtherType ARP
	frame = append(frame, 0, 1, 8, 0, 6, 4, 0, 1)                 // Ethernet, IPv4, address lengths, request
	frame = append(append(frame, mac...), sender[:]...)           // sender
	return append(append(frame, make([]byte, 6)...), asked[:]...) // target
}

// sendFrames sends frames out of an interface of a namespace, all through one socket: closing one takes the kernel
// ten milliseconds.
func sendFrames(t testing.TB, ns *Namespace, ifname string, frames ...[]byte) {
	t.Helper()
	must(t, ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		for _, frame := range frames {
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index}); err != nil {
				return err
			}
		}
		return nil
	}))
}

// arpAnswers asks for a VIP, then for a real server's own address on the same wire, and returns who had answered for
// the VIP by the time the second answer came.
func arpAnswers(t *testing.T, topo *Topology) (claims []string) {
	t.Helper()
	client := topo.Clients[0]
	capture, err := client.Capture("eth0")
	must(t, err)
	defer capture.Stop()
	for _, rs := range topo.RealServers {
		sendFrames(t, client.Namespace, "eth0", arpRequest(client, topo.VIP()), arpRequest(client, rs.Addr()))
		_, err := capture.Wait(shortly(t), func(f CapturedFrame) bool { return isARPReply(f, rs.Addr()) })
		must(t, err)
	}
	for _, f := range capture.Stop() {
		if isARPReply(f, topo.VIP()) {
			claims = append(claims, net.HardwareAddr(f.Data[22:28]).String())
		}
	}
	return claims
}

// isARPReply reports whether an arriving frame says who has addr.
func isARPReply(f CapturedFrame, addr netip.Addr) bool {
	ip := addr.As4()
	return !f.Out && len(f.Data) >= 42 && bytes.Equal(f.Data[12:14], []byte{0x08, 0x06}) && f.Data[21] == 2 &&
		bytes.Equal(f.Data[28:32], ip[:])
}

func TestRealServersAreSilentAboutTheVIP(t *testing.T) {
	topo := DR(t, Config{})
	if claims := arpAnswers(t, topo); len(claims) > 0 {
		t.Errorf("ARP for the VIP was answered by %v", claims)
	}
	// The same without arp_ignore, to know that the silence is its doing.
	for _, rs := range topo.RealServers {
		must(t, rs.Sysctl("net/ipv4/conf/all/arp_ignore", "0"))
	}
	if claims := arpAnswers(t, topo); len(claims) == 0 {
		t.Error("with arp_ignore 0 nobody answered ARP for the VIP: this test sees nothing")
	}
}

// Hosts keep their IPv6 addresses, too, when their interface goes down for a while.
func TestIPv6AddressesOutliveTheCable(t *testing.T) {
	topo := DR(t, Config{IPv6: true})
	rs, client := topo.RealServers[0], topo.Clients[0]
	_, err := ServeHTTP(rs.Namespace, "rs1", netip.AddrPortFrom(rs.Addr6(), 80))
	must(t, err)
	must(t, rs.SetUp("eth0", false))
	must(t, rs.SetUp("eth0", true))
	must(t, rs.AwaitCarrier("eth0"))
	if _, _, err := AskHTTP(shortly(t), client.HTTPClient(), "http://["+rs.Addr6().String()+"]/"); err != nil {
		t.Error(err)
	}
}

func BenchmarkTopology(b *testing.B) {
	for b.Loop() {
		topo, err := NewDR(Config{})
		must(b, err)
		must(b, topo.Close())
	}
}
