package e2e

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"uvs/lab"
)

// The director's default route moves from one router to another under traffic, and back, goes for a while, and is replaced
// by two more specific ones. Clients, and in TUN the real servers, are behind both routers:
//
//	clients 192.0.2.201 --- access ---+--- router  .254 ---+--- outside --- director1
//	                                  +--- router2 .253 ---+
func TestDefaultRouteChangesUnderTraffic(t *testing.T) {
	methods(t, func(t *testing.T, cfg rigConfig) {
		cfg.Routed, cfg.IPForward = true, true
		r := newRig(t, cfg)
		legs := []plugLeg{on("outside", "10.9.0.253/24"), on("access", "192.0.2.253/24")}
		if cfg.TUN {
			legs = append(legs, on("remote", "10.2.0.253/24"))
		}
		router2 := r.plug("router2", legs...)
		director := r.Directors[0]
		index, err := director.Index("eth0")
		must(t, err)
		by := func(router *lab.Host) *netlink.Route {
			return &netlink.Route{LinkIndex: index, Gw: router.Addr().AsSlice()}
		}
		r.during(func() {
			must(t, director.Netlink().RouteReplace(by(router2)))
			r.awaitWay(router2)
			r.count(4)
			must(t, director.Netlink().RouteReplace(by(r.Router)))
			r.awaitWay(r.Router)
			r.count(4)
		})
		r.duringOutage(func() {
			must(t, director.Netlink().RouteDel(by(r.Router)))
			time.Sleep(300 * time.Millisecond)
			for _, half := range []string{"0.0.0.0/1", "128.0.0.0/1"} {
				route := by(router2)
				route.Dst = ipNet(netip.MustParsePrefix(half))
				must(t, director.Netlink().RouteReplace(route))
				defer director.Netlink().RouteDel(route)
			}
			r.awaitWay(router2)
			must(t, director.Netlink().RouteReplace(by(r.Router)))
		})
		r.exercise()
	})
}

// awaitWay waits until the director sends by a router and no longer by another, if the method has it send anything there at all.
func (r *rig) awaitWay(router *lab.Host) {
	r.t.Helper()
	if r.direct && !r.tunnel {
		return // the servers answer, by their own routes
	}
	eventually(r.t, "the director sends by "+router.Name(), func() (bool, any) {
		stop := capture(r.t, r.Directors[0].Namespace, "eth0")
		time.Sleep(20 * time.Millisecond)
		n := 0
		for _, w := range stop() {
			if w.Out && w.kind == etherIPv4 && w.to.String() == router.Legs[0].MAC.String() {
				n++
			} else if w.Out && w.kind == etherIPv4 {
				n = -1 << 30
			}
		}
		return n > 0, n
	})
}
