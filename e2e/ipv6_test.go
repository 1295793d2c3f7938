package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"uvs/lab"
)

// The protocols of a tunnel.
const protoIPIP, protoIPv6 = 4, 41

// One director serves a name's both addresses, from one set of rules, which it prints again as it got them.
func TestDualStackServicesInOneSetOfRules(t *testing.T) {
	modes(t, func(t *testing.T, cfg rigConfig) {
		cfg.Bare, cfg.IPv6 = true, true
		r := newRig(t, cfg)
		six := r.over6()
		r.restore(slices.Concat(r.rules(r.VIP(), "rr"), six.rules(six.VIP(), "rr"))...)
		for _, r := range []*rig{r, six} {
			if got := r.count(8); got["rs1"] != 4 || got["rs2"] != 4 {
				t.Errorf("8 requests to %v went to %v", r.VIP(), got)
			}
			r.echo(1, 1000)
		}
		saved := r.adm("-S", "-n")
		r.adm("-C")
		if _, err := r.tryAdm(saved, "-R"); err != nil {
			t.Fatal(err)
		}
		if again := r.adm("-S", "-n"); again != saved {
			t.Errorf("saved, restored and saved again:\n%s\nwas\n%s", again, saved)
		}
		r.count(2)
		six.count(2)
	})
}

// Clients whose addresses share the prefix of -M belong together; the others don't.
func TestPersistenceByPrefix(t *testing.T) {
	for _, c := range []struct {
		prefix  string
		servers int // of two clients in turn (rr), ...:201 and ...:202, which differ in the last two bits
	}{{"127", 2}, {"126", 1}, {"64", 1}} {
		t.Run(c.prefix, func(t *testing.T) {
			modes(t, func(t *testing.T, cfg rigConfig) {
				cfg.Six, cfg.Clients = true, 2
				r := newRig(t, cfg)
				r.adm("-E", "-t", r.webService(), "-s", "rr", "-p", "60", "-M", c.prefix)
				servers := lab.Tally{}
				for _, client := range r.Clients {
					tally, err := lab.CountHTTP(shortly(t), client.HTTPClient(), r.url()+"/", 4)
					must(t, err)
					if len(tally) != 1 {
						t.Errorf("%s was sent to %v", client, tally)
					}
					for name := range tally {
						servers[name]++
					}
				}
				if len(servers) != c.servers {
					t.Errorf("the clients were sent to %v, want %d servers", servers, c.servers)
				}
			})
		})
	}
}

// The outer packet's family is the real server's, whatever the service's: each service here has a server of each family.
func TestTunnelsOfMixedFamilies(t *testing.T) {
	for _, offloadsOff := range []bool{false, true} {
		t.Run(fmt.Sprintf("offloads=%v", !offloadsOff), func(t *testing.T) {
			r := newRig(t, rigConfig{TUN: true, Bare: true, Config: lab.Config{IPv6: true, OffloadsOff: offloadsOff}})
			six := r.over6()
			var rules []string
			for _, v := range []*rig{r, six} {
				for _, service := range []string{"-t " + v.webService(), "-u " + v.udpService()} {
					port := netip.MustParseAddrPort(service[3:]).Port()
					rules = append(rules, "-A "+service+" -s rr")
					for _, rip := range []netip.Addr{r.RealServers[0].Addr(), r.RealServers[1].Addr6()} {
						rules = append(rules, fmt.Sprintf("-a %s -r %v -i", service, netip.AddrPortFrom(rip, port)))
					}
				}
			}
			r.restore(rules...)
			at := []func() []wire{capture(t, r.RealServers[0].Namespace, "eth0"), capture(t, r.RealServers[1].Namespace, "eth0")}
			for _, v := range []*rig{r, six} {
				if got := v.count(8); got["rs1"] != 4 || got["rs2"] != 4 {
					t.Errorf("8 requests to %v went to %v", v.VIP(), got)
				}
				for range r.RealServers { // each has its turn
					if _, err := lab.Upload(shortly(t), v.client(), v.url(), 6<<20); err != nil {
						t.Errorf("by %v: %v", v.VIP(), err)
					}
					if _, err := lab.Download(shortly(t), v.client(), v.url(), 6<<20); err != nil {
						t.Errorf("by %v: %v", v.VIP(), err)
					}
				}
				v.echo(1, 1000, 4000)
			}
			for i, stop := range at {
				kind := []uint16{etherIPv4, etherIPv6}[i]
				inner := map[byte]int{}
				for _, w := range stop() {
					if w.Out || w.proto != protoIPIP && w.proto != protoIPv6 {
						continue
					}
					inner[w.proto]++
					if w.kind != kind {
						t.Fatalf("rs%d got %v, want a tunnel of its own family", i+1, w)
					}
				}
				if inner[protoIPIP] < 100 || inner[protoIPv6] < 100 {
					t.Errorf("rs%d got %d packets with IPv4 inside and %d with IPv6", i+1, inner[protoIPIP], inner[protoIPv6])
				}
			}
		})
	}
}

// A router on the way is known by its link-local address only, as routers that advertise themselves are.
func TestLinkLocalGateway(t *testing.T) {
	// withLinkLocal lets the director's default route go by the router's link-local address.
	withLinkLocal := func(r *rig) {
		index, err := r.Directors[0].Index("eth0")
		must(t, err)
		must(t, r.Directors[0].Netlink().RouteReplace(&netlink.Route{LinkIndex: index, Gw: linkLocal(r.Router.Legs[0].MAC).AsSlice()}))
	}
	t.Run("to the real servers", func(t *testing.T) {
		r := newRig(t, rigConfig{TUN: true, Six: true, Before: withLinkLocal})
		r.exercise()
	})
	t.Run("to the clients", func(t *testing.T) {
		r := newRig(t, rigConfig{NAT: true, Six: true, Config: lab.Config{Routed: true}, Before: withLinkLocal})
		r.exercise()
	})
}

// linkLocal is the link-local address that a kernel makes of an Ethernet address (RFC 4291 appendix A).
func linkLocal(mac net.HardwareAddr) netip.Addr {
	ip := netip.MustParseAddr("fe80::ff:fe00:0").As16()
	copy(ip[8:], mac[:3])
	ip[8] ^= 2
	copy(ip[13:], mac[3:])
	return netip.AddrFrom16(ip)
}

// Behind a router to the clients less fits than the servers send. What that router says of it, to the VIP, reaches the server
// that sent; in DR and TUN too, where the director sees nothing of what is sent.
func TestRouterTellsTheServerOfASmallerMTU(t *testing.T) {
	everyway(t, func(t *testing.T, cfg rigConfig) {
		cfg.Routed = true
		r := newRig(t, cfg)
		client := r.Clients[0]
		must(t, r.Router.SetMTU("eth1", 1300))
		must(t, client.SetMTU("eth0", 1300))
		hop := r.Router.Legs[1].Prefix.Addr() // but the client offers the usual segment size:
		if cfg.Six {
			hop = r.Router.Legs[1].Prefix6.Addr()
		}
		must(t, client.Netlink().RouteReplace(&netlink.Route{Gw: hop.AsSlice(), AdvMSS: 1440}))
		var stops []func() []wire
		for _, rs := range r.RealServers {
			if !r.tunnel { // in which the message is inside another packet: that the download succeeds must do
				stops = append(stops, capture(t, rs.Namespace, "eth0"))
			}
		}
		for range r.RealServers {
			if _, err := lab.Download(shortly(t), r.client(), r.url(), 4<<20); err != nil {
				t.Error(err)
			}
		}
		r.echo(4000) // an answer by datagrams: the servers know by now
		for i, stop := range stops {
			if !slices.ContainsFunc(stop(), func(w wire) bool {
				return !w.Out && w.isICMP() && (w.sport == icmpFragNeeded || w.sport == icmp6TooBig) && bytes.Equal(w.payload[2:6], []byte{0, 0, 1300 >> 8, 1300 & 255})
			}) {
				t.Errorf("rs%d wasn't told that 1300 bytes fit", i+1)
			}
		}
	})
}

// Nobody else's NDP about others than the VIP concerns uvs, and what is wrong in it does no harm.
func TestForeignNDPDoesNoHarm(t *testing.T) {
	r := newRig(t, rigConfig{Six: true, Config: lab.Config{Clients: 2}})
	r.count(2)
	from := r.Clients[1]
	mac := from.Legs[0].MAC
	for _, frame := range [][]byte{
		hopLimit(advertisement(mac, r.VIP()), 254),                                                    // came through a router: forged
		hopLimit(advertisement(mac, r.addr(r.RealServers[0])), 64),                                    // the same about a real server
		cut(advertisement(mac, r.VIP()), 20),                                                          // no whole message
		withOption(advertisement(mac, r.VIP()), 2, 0),                                                 // an option of length 0
		withOption(advertisement(mac, r.VIP()), 2, 9),                                                 // one longer than the packet
		hopLimit(solicitation(mac, from.Addr6(), r.VIP()), 1),                                         // a question that isn't one
		solicitation(mac, from.Addr6(), netip.MustParseAddr("2001:db8:9::177")),                       // for nobody
		advertisement(mac, netip.MustParseAddr("2001:db8:9::178")),                                    // of a new station
		ndpFrame(groupMAC(allNodes), mac, from.Addr6(), allNodes, bytes.Repeat([]byte{136, 0, 0}, 3)), // no message at all
	} {
		sendFrame(t, from.Namespace, "eth0", frame)
	}
	time.Sleep(200 * time.Millisecond)
	if s := r.status(); len(s.Warnings) > 0 {
		t.Errorf("warnings: %+v", s.Warnings)
	}
	if got := r.count(8); got["rs1"] != 4 || got["rs2"] != 4 {
		t.Errorf("8 requests went to %v", got)
	}
	if macs := whoHas(t, r.Clients[0], r.VIP()); !slices.Equal(macs, []string{r.macOf("eth0")}) {
		t.Errorf("for the VIP answer %v, want uvs's %s once", macs, r.macOf("eth0"))
	}
}

// hopLimit gives a frame with IPv6 another hop limit, which is in no checksum.
func hopLimit(frame []byte, n byte) []byte {
	frame[etherHeader+7] = n
	return frame
}

// cut shortens a frame's NDP message to n bytes.
func cut(frame []byte, n int) []byte {
	return remade(frame, func(message []byte) []byte { return message[:n] })
}

// withOption sets type and length of the option in a frame's NDP message.
func withOption(frame []byte, kind, length byte) []byte {
	return remade(frame, func(message []byte) []byte {
		message[24], message[25] = kind, length
		return message
	})
}

// remade changes the message in a frame.
func remade(frame []byte, change func(message []byte) []byte) []byte {
	ip := frame[etherHeader:]
	message := change(slices.Clone(ip[40:]))
	message[2], message[3] = 0, 0
	return ndpFrame(frame[:6], frame[6:12], netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:])), message)
}

// A switch that snoops sends questions about an address only where somebody listens to their group. uvs reports the groups of its
// addresses, and again when the switch asks.
func TestSnoopingSwitchHearsOfTheVIP(t *testing.T) {
	needs(t, "ip", "iproute2")
	r := newRig(t, rigConfig{Six: true, Bare: true, Before: func(r *rig) {
		for _, settings := range []string{ // in hundredths of a second: reports are forgotten three seconds after the last
			"mcast_query_response_interval 50 mcast_query_interval 100 mcast_startup_query_interval 100 mcast_membership_interval 300",
			"mcast_snooping 1 mcast_querier 1",
		} {
			args := append([]string{"link", "set", "outside", "type", "bridge"}, strings.Fields(settings)...)
			if out, err := r.Switch.Command(shortly(t), "ip", args...).CombinedOutput(); err != nil {
				t.Fatalf("ip %v: %v: %s", args, err, out)
			}
		}
	}})
	client, stranger := r.Clients[0], r.RealServers[0]
	eventually(t, "the switch keeps a question from who doesn't listen", func() (bool, any) {
		nobody := netip.MustParseAddr("2001:db8:9::177")
		c, err := stranger.Capture("eth0")
		must(t, err)
		if macs := whoHas(t, client, nobody); len(macs) > 0 {
			t.Fatalf("%v answer for %v", macs, nobody)
		}
		for _, f := range c.Stop() {
			if w := take(f); w.ndp && w.target == nobody {
				return false, w
			}
		}
		return true, nil
	})
	r.restore(r.rules(r.VIP(), "rr")...)
	want := []string{r.macOf("eth0")}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if macs := whoHas(t, client, r.VIP()); !slices.Equal(macs, want) {
			t.Fatalf("for the VIP answer %v, want uvs's %v", macs, want)
		}
	}
	r.count(4)
}
