package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"uvs/lab"
)

// Segments with jumbo frames or short ones beside ordinary ones, and everybody offers segments of 8960 bytes, so that
// path MTU discovery alone keeps TCP going: the director tells clients and servers what doesn't fit its own legs, and
// brings to the servers what routers tell their virtual address. Datagrams are cut.
func TestMTUsThatDiffer(t *testing.T) {
	for _, c := range []struct {
		segment string // that has an MTU of its own
		mtu     int
		routed  bool
	}{
		{"outside", 9000, false},
		{"outside", 1280, false},
		{"outside", 9000, true},
		{"inside", 9000, false},
		{"inside", 1280, false},
		{"remote", 9000, false},
		{"remote", 1280, false},
		{"access", 9000, true},
		{"access", 1280, true},
	} {
		t.Run(fmt.Sprintf("%s=%d/routed=%v", c.segment, c.mtu, c.routed), func(t *testing.T) {
			methods(t, func(t *testing.T, cfg rigConfig) {
				if c.segment == "inside" && !cfg.NAT || c.segment == "remote" && !cfg.TUN {
					return // there is no such segment
				}
				cfg.Routed, cfg.IPForward = c.routed, true
				r := newRig(t, cfg)
				r.setMTU(c.segment, c.mtu)
				r.offerBigSegments()
				if _, err := lab.Upload(within(t, 40*time.Second), r.client(), r.url(), 4<<20); err != nil {
					t.Error(err)
				}
				if _, err := lab.Download(within(t, 40*time.Second), r.client(), r.url(), 4<<20); err != nil {
					t.Error(err)
				}
				r.count(4)
				if tally := r.datagrams(1, 1000, 1252, 1472, 4000, 8972, 20000); tally.Total() != 14 {
					t.Errorf("14 datagrams were answered by %v", tally)
				}
				s := r.status()
				if n := s.drops("fragment"); n > 0 {
					t.Errorf("%d fragments were dropped: %+v", n, s.Drops)
				}
			})
		})
	}
}

// setMTU gives a whole segment another MTU.
func (r *rig) setMTU(segment string, mtu int) {
	r.t.Helper()
	must(r.t, r.Switch.SetMTU(segment, mtu))
	for _, h := range slices.Concat(r.Clients, r.Directors, r.RealServers, []*lab.Host{r.Router}) {
		if h == nil {
			continue
		}
		for _, leg := range h.Legs {
			if leg.Bridge == segment {
				must(r.t, h.SetMTU(leg.Name, mtu))
				must(r.t, r.Switch.SetMTU(leg.Port, mtu))
			}
		}
	}
	must(r.t, r.Switch.SetMTU(segment, mtu)) // a bridge follows its ports
}

// offerBigSegments has clients and servers offer TCP segments that no way but a jumbo one carries.
func (r *rig) offerBigSegments() {
	r.t.Helper()
	const size = 8960
	for _, c := range r.Clients {
		must(r.t, c.Netlink().RouteReplace(r.routeOf(c, netip.PrefixFrom(r.VIP(), 32), size)))
	}
	for _, rs := range r.RealServers {
		for _, c := range r.Clients {
			must(r.t, rs.Netlink().RouteReplace(r.routeOf(rs, netip.PrefixFrom(c.Addr(), 32), size)))
		}
	}
}

// routeOf is a host's route to an address as it has it already, with a segment size to offer.
func (r *rig) routeOf(h *lab.Host, to netip.Prefix, advMSS int) *netlink.Route {
	r.t.Helper()
	routes, err := h.Netlink().RouteGet(to.Addr().AsSlice())
	must(r.t, err)
	route := &netlink.Route{LinkIndex: routes[0].LinkIndex, Dst: ipNet(to), Gw: routes[0].Gw, AdvMSS: advMSS}
	if route.Gw == nil {
		route.Scope = netlink.SCOPE_LINK
	}
	return route
}

// datagrams has datagrams of some sizes echoed, each from two new ports. Who sends one that doesn't fit its way is told so,
// and the datagram is lost: clients repeat theirs.
func (r *rig) datagrams(sizes ...int) lab.Tally {
	r.t.Helper()
	tally := lab.Tally{}
	for _, size := range sizes {
		for range 2 {
			eventually(r.t, fmt.Sprintf("a datagram of %d bytes is echoed", size), func() (bool, any) {
				server, echo, err := lab.AskUDP(within(r.t, time.Second), r.Clients[0].Namespace, r.udpAddr(), make([]byte, size))
				if err != nil || len(echo) != size {
					return false, err
				}
				tally[server]++
				return true, nil
			})
		}
	}
	return tally
}
