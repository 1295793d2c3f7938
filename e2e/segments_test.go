package e2e

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"uvs/lab"
)

// A director with two interfaces and a virtual address on each:
//
//	client1 10.9.0.201 --+-- outside --+-- eth0 director1 eth1 --+-- inside --+-- client2 10.1.0.201
//	                     |             |    VIP 10.9.0.100       |            +-- rs1, rs2
//	                     |                       10.1.0.100 VIP               |
//	                     +-- 10.9.0.253 ------- router ------- 10.1.0.253 ----+
//
// Each client asks both, so that requests come in by the servers' interface and by the other, and answers go to the
// servers' own segment and beyond. By DR and TUN the servers answer past the director, beyond their segment by the router.
// NAT's servers have been told that client2 is behind their gateway though it is beside them, as NAT must have it.
func TestVirtualAddressesOnTwoInterfaces(t *testing.T) {
	for _, mac := range []string{"virtual", "interface"} {
		t.Run(mac, func(t *testing.T) {
			methods(t, func(t *testing.T, cfg rigConfig) {
				r, client2, vip2 := twoSided(t, cfg, mac)
				at := []func() []wire{capture(t, r.Clients[0].Namespace, "eth0"), capture(t, client2.Namespace, "eth0")}
				legs := r.captureDirector()
				for _, vip := range []netip.Addr{r.VIP(), vip2} {
					r.restore(r.rules(vip, "rr")...)
				}
				for _, c := range []*lab.Host{r.Clients[0], client2} {
					for _, vip := range []netip.Addr{r.VIP(), vip2} {
						r.as(c, vip).exercise()
					}
				}
				r.checkOnlyUVSSpeaks(legs(), mac)
				// Each address is announced on its own segment and nowhere else.
				for i, stop := range at {
					announced := map[netip.Addr]bool{}
					for _, w := range stop() {
						if w.arp && w.src == w.dst {
							announced[w.src] = true
						}
					}
					if own, other := []netip.Addr{r.VIP(), vip2}[i], []netip.Addr{vip2, r.VIP()}[i]; !announced[own] || announced[other] {
						t.Errorf("on segment %d %v were announced, want %v", i, announced, own)
					}
				}
				for i, leg := range []string{"eth0", "eth1"} {
					c, vip := []*lab.Host{r.Clients[0], client2}[i], []netip.Addr{r.VIP(), vip2}[i]
					if macs := whoHas(t, c, vip); !slices.Equal(macs, []string{r.macOf(leg)}) {
						t.Errorf("for %v answer %v, want %s of %s", vip, macs, r.macOf(leg), leg)
					}
				}
			})
		})
	}
}

// checkOnlyUVSSpeaks is checkHostSilent for directors with services on both sides.
func (r *rig) checkOnlyUVSSpeaks(legs [][]wire, mac string) {
	r.t.Helper()
	attached := r.status().Interfaces
	reset := map[uint32]bool{} // by a station
	for _, w := range slices.Concat(legs...) {
		if !w.Out && w.proto == protoTCP && w.flags&tcpRST != 0 {
			reset[w.seq] = true
		}
	}
	for i, frames := range legs {
		for _, w := range frames {
			switch {
			case !w.Out || w.kind != etherIPv4:
			case mac == "virtual" && w.from.String() != attached[i].MAC:
				r.t.Fatalf("the director's host joins in: %v", w)
			case w.proto == protoICMP && w.sport != icmpEchoReply && (!r.tunnel || w.sport != icmpFragNeeded), w.proto == protoTCP && w.flags&tcpRST != 0 && !reset[w.seq]:
				r.t.Fatalf("the director refuses something: %v", w)
			}
		}
	}
}

// twoSided raises that network, with nothing served yet, and returns what a rig has no place for.
func twoSided(t *testing.T, cfg rigConfig, mac string) (r *rig, client2 *lab.Host, vip2 netip.Addr) {
	t.Helper()
	r = &rig{t: t, direct: !cfg.NAT, tunnel: cfg.TUN, Topology: lab.NAT(t, lab.Config{IPForward: true})}
	vip2 = netip.MustParseAddr("10.1.0.100")
	router := r.plug("router", on("outside", "10.9.0.253/24"), on("inside", "10.1.0.253/24"))
	client2 = r.plug("client2", on("inside", "10.1.0.201/24"))
	must(t, client2.AddRoute(defaultRoute, router.Legs[1].Prefix.Addr(), ""))
	must(t, r.Clients[0].AddRoute(netip.MustParsePrefix("10.1.0.0/24"), router.Addr(), ""))
	for _, rs := range r.RealServers {
		switch {
		case cfg.NAT:
			must(t, rs.AddRoute(netip.PrefixFrom(client2.Addr(), 32), r.Gateway, ""))
			continue
		case cfg.TUN:
			startDecapsulator(t, rs, []netip.Addr{r.Directors[0].Legs[1].Prefix.Addr()}, []netip.Addr{r.VIP(), vip2})
		default:
			must(t, rs.Sysctl("net/ipv4/conf/all/arp_ignore", "1"))
			must(t, rs.Sysctl("net/ipv4/conf/all/arp_announce", "2"))
			must(t, rs.AddAddr("lo", netip.PrefixFrom(r.VIP(), 32)))
			must(t, rs.AddAddr("lo", netip.PrefixFrom(vip2, 32)))
		}
		must(t, rs.Netlink().RouteReplace(&netlink.Route{Gw: router.Legs[1].Prefix.Addr().AsSlice()}))
	}
	for _, rs := range r.RealServers {
		web, udp := []netip.AddrPort{netip.AddrPortFrom(rs.Addr(), r.webPort())}, []netip.AddrPort{netip.AddrPortFrom(rs.Addr(), r.udpPort())}
		if r.direct {
			for _, vip := range []netip.Addr{r.VIP(), vip2} {
				web, udp = append(web, netip.AddrPortFrom(vip, r.webPort())), append(udp, netip.AddrPortFrom(vip, r.udpPort()))
			}
		}
		_, err := lab.ServeHTTP(rs.Namespace, rs.Name(), web...)
		must(t, err)
		_, err = lab.ServeUDPEcho(rs.Namespace, rs.Name(), udp...)
		must(t, err)
	}
	args := []string{"--mac", mac, "--interface", "eth0,eth1"}
	if cfg.NAT {
		args = append(args, "--gateway", netip.PrefixFrom(r.Gateway, 24).String()+"@eth1")
	}
	r.director = startDirector(t, r.Directors[0], program("uvsd"), args...)
	return r, client2, vip2
}

// NAT's real servers behind a router that has uvs's gateway address as its own default route:
//
//	client1 --- director1 [10.1.0.254 is uvs's] --- inside --- 10.1.0.253 inner router 10.3.0.254 --- far --- rs1, rs2 10.3.0.11...
func TestNATServersBehindARouter(t *testing.T) {
	for _, mac := range []string{"virtual", "interface"} {
		for _, addressed := range []bool{true, false} {
			if !addressed && mac == "interface" {
				continue
			}
			name := mac + map[bool]string{true: "", false: "/director without inside address"}[addressed]
			t.Run(name, func(t *testing.T) {
				r := &rig{t: t, Topology: lab.NAT(t, lab.Config{RealServers: -1, IPForward: true, NoInsideAddress: !addressed})}
				must(t, r.Switch.AddBridge("far", nil, 0))
				inner := r.plug("inner", on("inside", "10.1.0.253/24"), on("far", "10.3.0.254/24"))
				must(t, inner.AddRoute(defaultRoute, r.Gateway, ""))
				for i, prefix := range []string{"10.3.0.11/24", "10.3.0.12/24"} {
					rs := r.plug([]string{"rs1", "rs2"}[i], on("far", prefix))
					must(t, rs.AddRoute(defaultRoute, inner.Legs[1].Prefix.Addr(), ""))
					r.RealServers = append(r.RealServers, rs)
				}
				index, err := r.Directors[0].Index("eth1")
				must(t, err)
				far := netip.MustParsePrefix("10.3.0.0/24")
				must(t, r.Directors[0].Netlink().RouteAdd(&netlink.Route{
					Dst: ipNet(far), Gw: inner.Addr().AsSlice(), LinkIndex: index, Flags: int(netlink.FLAG_ONLINK),
				}))
				_, err = r.ServeHTTP(r.webPort())
				must(t, err)
				_, err = r.ServeUDPEcho(r.udpPort())
				must(t, err)
				r.director = startDirector(t, r.Directors[0], program("uvsd"), append(r.attach(), "--mac", mac, "--inner-traffic", "masquerade")...)
				r.restore(r.rules(r.VIP(), "rr")...)
				stop := r.captureDirector()
				r.exercise()
				r.checkHostSilent(stop())
				// What the servers ask the world for passes as well.
				if _, err := lab.ServeUDPEcho(r.Clients[0].Namespace, "world", netip.AddrPortFrom(r.Clients[0].Addr(), 5000)); err != nil {
					t.Fatal(err)
				}
				for _, rs := range r.RealServers {
					server, _, err := lab.AskUDP(shortly(t), rs.Namespace, netip.AddrPortFrom(r.Clients[0].Addr(), 5000), []byte("from "+rs.Name()))
					if err != nil || !strings.HasPrefix(server, "world") {
						t.Errorf("%s asks the world: %q, %v", rs, server, err)
					}
				}
			})
		}
	}
}
