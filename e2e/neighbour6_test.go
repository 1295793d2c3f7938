package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/lab"
)

// neighbour6 is the MAC address that a host's kernel finds out for an IPv6 neighbour, empty if nobody answers.
func neighbour6(t testing.TB, h *lab.Host, addr netip.Addr) string {
	t.Helper()
	leg := h.Legs[0]
	index, err := h.Index(leg.Name)
	must(t, err)
	_ = h.Netlink().NeighDel(&netlink.Neigh{LinkIndex: index, IP: addr.AsSlice()}) // there may be none
	must(t, h.Do(func() error {
		c, err := net.Dial("udp6", netip.AddrPortFrom(addr, 9).String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, _ = c.Write([]byte("who are you?"))
		return nil
	}))
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		list, err := h.Netlink().NeighList(index, unix.AF_INET6)
		must(t, err)
		for _, n := range list {
			if n.IP.Equal(addr.AsSlice()) && n.State&(netlink.NUD_REACHABLE|netlink.NUD_STALE|netlink.NUD_DELAY|netlink.NUD_PROBE) != 0 {
				return n.HardwareAddr.String()
			}
		}
	}
	return ""
}

// TestKernelsFindIPv6AddressesByNeighbourDiscovery asks as every host does: by its own kernel, through a switch that is
// told to snoop. That queries are answered is TestListenerQueriesAreAnswered's to show: this one passes without answers too.
func TestKernelsFindIPv6AddressesByNeighbourDiscovery(t *testing.T) {
	for _, c := range []struct {
		kind lab.LinkKind
		mac  string
	}{
		{lab.Veth, "virtual"}, {lab.Veth, "interface"}, {lab.BridgeMaster, "virtual"}, {lab.BridgeMaster, "interface"}, {lab.Macvlan, "interface"},
	} {
		t.Run(fmt.Sprintf("%v/mac=%s", c.kind, c.mac), func(t *testing.T) {
			cfg := rigConfig{Args: []string{"--mac", c.mac, "--announce-interval", "1s"}, Bare: true, Config: lab.Config{IPv6: true, IPForward: true, DirectorLink: c.kind}}
			r := newRig(t, cfg)
			must(t, r.Switch.Command(t.Context(), "ip", "link", "set", "outside", "type", "bridge", "mcast_snooping", "1", "mcast_querier", "1",
				"mcast_query_interval", "100", "mcast_startup_query_interval", "100", "mcast_query_response_interval", "50",
				"mcast_membership_interval", "300").Run())
			vip := r.VIPs6[0]
			r.adm("-A", "-t", netip.AddrPortFrom(vip, 80).String())
			client, want := r.Clients[0], r.macOf("eth0")
			eventually(t, fmt.Sprintf("the client finds %v at %s", vip, want), func() (bool, any) {
				got := neighbour6(t, client, vip)
				return got == want, got
			})
			time.Sleep(5 * time.Second) // what was reported at first is forgotten
			if got := neighbour6(t, client, vip); got != want {
				t.Errorf("when the switch has asked who listens, the client finds %v at %q, want %s", vip, got, want)
			}
			// A station that has the address all the same is named.
			station := r.Clients[0]
			must(t, station.AddAddr("eth0", netip.PrefixFrom(vip, 128)))
			eventually(t, "the status names the other station", func() (bool, any) {
				for _, w := range r.status().Warnings {
					if w.Text == fmt.Sprintf("%v answers neighbour discovery on eth0 for %v, which is uvsd's: clients may go there", station.Legs[0].MAC, vip) {
						return true, nil
					}
				}
				return false, r.status().Warnings
			})
			must(t, station.RemoveAddr("eth0", netip.PrefixFrom(vip, 128)))
			r.adm("-D", "-t", netip.AddrPortFrom(vip, 80).String())
			eventually(t, "nobody answers for what is no virtual address any more", func() (bool, any) {
				got := neighbour6(t, client, vip)
				return got == "", got
			})
		})
	}
}

// TestAStationThatTakesAVirtualAddressIsRefusedIt is duplicate address detection from the other side.
func TestAStationThatTakesAVirtualAddressIsRefusedIt(t *testing.T) {
	modes(t, func(t *testing.T, cfg rigConfig) {
		cfg.Config.IPv6, cfg.Bare = true, true
		r := newRig(t, cfg)
		vip := r.VIPs6[0]
		r.adm("-A", "-t", netip.AddrPortFrom(vip, 80).String())
		station := r.Clients[0]
		must(t, station.Sysctl("net.ipv6.conf.eth0.accept_dad", "1"))
		must(t, station.Sysctl("net.ipv6.conf.eth0.dad_transmits", "1"))
		l, err := station.Netlink().LinkByName("eth0")
		must(t, err)
		a := &netlink.Addr{IPNet: &net.IPNet{IP: vip.AsSlice(), Mask: net.CIDRMask(64, 128)}}
		must(t, station.Netlink().AddrAdd(l, a))
		eventually(t, "the station's kernel takes the address for a duplicate", func() (bool, any) {
			list, err := station.Netlink().AddrList(l, unix.AF_INET6)
			must(t, err)
			for _, a := range list {
				if a.IP.Equal(vip.AsSlice()) && a.Flags&unix.IFA_F_DADFAILED != 0 {
					return true, nil
				}
			}
			return false, list
		})
	})
}

// TestRealServersFindTheIPv6Gateway resolves it by their kernels, and they by uvsd on a segment where the host has no address.
func TestRealServersFindTheIPv6Gateway(t *testing.T) {
	for _, mac := range []string{"virtual", "interface"} {
		t.Run("mac="+mac, func(t *testing.T) {
			topo := lab.NAT(t, lab.Config{IPv6: true, NoInsideAddress: true, RealServers: 1})
			d := startDirector(t, topo.Directors[0], program("uvsd"), "--interface", "eth0,eth1", "--mac", mac,
				"--gateway", topo.Gateway.String()+"/24@eth1", "--gateway", topo.Gateway6.String()+"/64@eth1")
			var want string
			for _, i := range d.status().Interfaces {
				if i.Name == "eth1" {
					want = i.MAC
				}
			}
			if got := neighbour6(t, topo.RealServers[0], topo.Gateway6); got != want {
				t.Errorf("the real server finds the gateway %v at %q, want %s", topo.Gateway6, got, want)
			}
			index, err := topo.RealServers[0].Index("eth0")
			must(t, err)
			list, err := topo.RealServers[0].Netlink().NeighList(index, unix.AF_INET6)
			must(t, err)
			for _, n := range list {
				if n.IP.Equal(topo.Gateway6.AsSlice()) && n.Flags&netlink.NTF_ROUTER == 0 {
					t.Error("the real server doesn't take the gateway for a router: it would forget a default route by it")
				}
			}
		})
	}
}

// TestGroupsAreLeftWhenUvsdStops: what it sends then, at a station, to which a switch that doesn't snoop floods it.
func TestGroupsAreLeftWhenUvsdStops(t *testing.T) {
	r := newRig(t, rigConfig{Bare: true, Config: lab.Config{IPv6: true}})
	vip := r.VIPs6[0]
	r.adm("-A", "-t", netip.AddrPortFrom(vip, 80).String())
	eventually(t, "uvsd has the address", func() (bool, any) {
		got := neighbour6(t, r.Clients[0], vip)
		return got == r.macOf("eth0"), got
	})
	r.settle()
	stop := capture(t, r.Clients[0].Namespace, "eth0")
	r.stop()
	ip := vip.As16()
	group := netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: ip[13], 14: ip[14], 15: ip[15]})
	const report, record = etherHeader + 40 + 8, etherHeader + 40 + 8 + 8 // behind the router alert; the first record (RFC 3810 section 5.2)
	left := false
	for _, w := range stop() {
		b := w.Data
		if w.kind == etherIPv6 && b[etherHeader+6] == 0 && len(b) >= record+20 && b[report] == 143 && b[record] == 3 {
			left = left || netip.AddrFrom16([16]byte(b[record+4:])) == group
		}
	}
	if !left {
		t.Errorf("no listener report says that nobody listens to %v any more", group)
	}
}
